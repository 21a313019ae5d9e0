"""Two machines in one picture are said."""

from __future__ import annotations

from pathlib import Path

from nash_search.remeasured import MeasuredOn, Remeasured, TimedAgain, TimedBefore
from nash_search.report.remeasured import caption, draw, save_remeasured


def test_two_machines_in_one_picture_are_said(tmp_path: Path) -> None:
    row = TimedAgain(share=0.5, share_bounds=(0.48, 0.52), quality=90.0, before=TimedBefore(share=0.55))
    before = MeasuredOn(fingerprint={}, device="cpu")
    found = Remeasured(
        study="s",
        device="cpu",
        same_fingerprint=True,
        front=(row,),
        fingerprint={"hash": "abcdef012345"},
        before=before,
    )
    assert "same device" in caption(found)
    now = {"hash": "n", "device": "new", "torch": "2", "cores": 4, "dtype": "float32"}
    old = MeasuredOn(fingerprint=now | {"hash": "o", "device": "old", "torch": "1"}, device="cpu")
    elsewhere = found.model_copy(update={"same_fingerprint": False, "fingerprint": now, "before": old})
    assert caption(elsewhere).endswith("what changed: device old -> new, torch 1 -> 2")
    assert "two different fingerprints" in caption(elsewhere)
    assert caption(elsewhere) in [text.get_text() for text in draw(elsewhere).texts]
    assert caption(found) in [text.get_text() for text in draw(found).texts]
    many = elsewhere.model_copy(update={"before": before})
    assert caption(many).endswith("cores unknown -> 4, device unknown -> new, dtype unknown -> float32 and 1 more")
    names = [path.name for path in save_remeasured(tmp_path, found)]
    assert names == ["remeasured-abcdef01.json", "remeasured-abcdef01.png"]
    stored = (tmp_path / names[0]).read_bytes()
    assert Remeasured.model_validate_json(stored) == found
