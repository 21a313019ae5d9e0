"""What the host says of its own pressure."""

from __future__ import annotations

from nash_search.device import host


def test_a_container_s_own_pressure_comes_before_the_machine_s(tmp_path, monkeypatch):
    files = [tmp_path / "own", tmp_path / "machine"]
    monkeypatch.setattr(host, "PRESSURE", tuple(map(str, files)))
    assert host.cpu_pressure_s() is None
    files[1].write_text("some avg10=0.04 avg60=4.35 avg300=3.47 total=2500000\nfull avg10=0.00 total=0\n")
    assert host.cpu_pressure_s() == 2.5
    files[0].write_text("some avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\n")
    assert host.cpu_pressure_s() == 1.0
