"""Every test of the device has a lock folder of its own."""

from __future__ import annotations

import pytest

from nash_search.device import lock


@pytest.fixture(autouse=True)
def locks(tmp_path, monkeypatch):
    monkeypatch.setenv("NASH_SEARCH_LOCKS", str(tmp_path / "locks"))
    lock._seats.__dict__.clear()
    yield tmp_path / "locks"
    lock._seats.__dict__.clear()
