"""A study says how it came about, and nothing that is secret."""

import json

from nash_search.storage import provenance


def test_commands_are_kept_once_in_order_and_passwords_never(tmp_path):
    for command in ("nash-search --budget-ms 50%", "nash-search resume x", "nash-search --budget-ms 50%", ""):
        provenance.remember(tmp_path, command)
    provenance.remember(tmp_path, "nash-search --ray-address ray://me:secret@host:10001")
    assert provenance.commands(tmp_path) == [
        "nash-search --budget-ms 50%", "nash-search resume x", "nash-search --ray-address ray://***@host:10001"
    ]  # fmt: skip


def test_the_summary_holds_command_and_environment(rehearse, tmp_path):
    (tmp_path / "s").mkdir()
    provenance.remember(tmp_path / "s", "nash-search --budget-ms 50%")
    result = rehearse(trials=2)
    summary = json.loads((result.folder / "summary.json").read_text())
    assert summary["command"] == "nash-search --budget-ms 50%"
    assert {"device", "hash", "python", "torch", "optuna"} <= set(summary["environment"])
    assert "command" not in result.document


def test_a_study_made_from_python_has_no_command(rehearse):
    assert rehearse(trials=2).full_document["command"] == ""
