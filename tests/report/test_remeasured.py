"""Two machines in one picture are said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nash_search.report.remeasured import caption, draw, save_remeasured


def test_two_machines_in_one_picture_are_said(tmp_path: Path) -> None:
    row = {"share": 0.5, "share_bounds": [0.48, 0.52], "quality": 90.0, "before": {"share": 0.55}}
    found: dict[str, Any] = {
        "study": "s", "device": "cpu", "same_fingerprint": True, "front": [row],
        "fingerprint": {"hash": "abcdef012345"}, "before": {"fingerprint": {}, "device": "cpu"},
    }  # fmt: skip
    assert "same device" in caption(found)
    now = {"hash": "n", "device": "new", "torch": "2", "cores": 4, "dtype": "float32"}
    old = now | {"hash": "o", "device": "old", "torch": "1"}
    elsewhere = found | {"same_fingerprint": False, "fingerprint": now, "before": {"fingerprint": old, "device": "cpu"}}
    assert caption(elsewhere).endswith("what changed: device old -> new, torch 1 -> 2")
    assert "two different fingerprints" in caption(elsewhere)
    assert caption(elsewhere) in [text.get_text() for text in draw(elsewhere).texts]
    assert caption(found) in [text.get_text() for text in draw(found).texts]
    many = elsewhere | {"before": {"fingerprint": {}, "device": "cpu"}}
    assert caption(many).endswith("cores unknown -> 4, device unknown -> new, dtype unknown -> float32 and 1 more")
    names = [path.name for path in save_remeasured(tmp_path, found)]
    assert names == ["remeasured-abcdef01.json", "remeasured-abcdef01.png"]
