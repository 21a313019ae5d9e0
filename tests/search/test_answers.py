"""A front is judged once, and console, card, page and JSON say the same of it."""

import io
import json
from collections import Counter

import pytest
from rich.console import Console

from nash_search import cli, results
from nash_search.cli import live_report
from nash_search.cli.studies import stored_config
from nash_search.config import LatencyBudget
from nash_search.report import load
from nash_search.report.console import RunTable
from nash_search.results import CertifiedPoint

ASKED = "60%"


def other_tokens(point):
    """The export writes something else than the trained model."""
    point["same_tokens"] = False


def slow(point):
    """Every call took three times as long."""
    for taken in point["latency"]["rounds"]:
        taken["runs_ms"] = [3 * ms for ms in taken["runs_ms"]]


def told(folder, capsys):
    """What `pick --json`, `report`, the console and the cards say of the budget: its model's folder, by reader."""
    cli.main(["pick", str(folder), "--budget-ms", ASKED, "--json"])
    (answer,) = json.loads(capsys.readouterr().out)["budgets"]
    assert cli.main(["report", str(folder)]) == 0
    live_report.restate(folder, stored_config(folder))
    cards = {p.parent.name: p.read_text() for p in folder.glob("checkpoints/*/README.md")}
    out = io.StringIO()
    RunTable(console=Console(file=out, width=200)).finish(load.load(folder))
    exports = [name for name in cards if name == answer["checkpoint"].rpartition("/")[2]]
    return {
        "json": exports,
        "card": [name for name, text in cards.items() if f"certified to meet {ASKED}" in text.replace("\\", "")],
        "page": [name for name in cards if f"{name}&#39;" in (folder / "report.html").read_text()],
        "markdown": [name for name in cards if f"{name}'" in (folder / "report.md").read_text()],
        "console": [name for name in cards if f"{name}'" in out.getvalue()],
    }


@pytest.mark.parametrize("spoil", [other_tokens, pytest.param(slow, marks=pytest.mark.slow)])
def test_one_verdict_edited_in_the_certificate_changes_console_card_page_and_json(rehearse, capsys, spoil):
    result = rehearse(trials=8, budgets=(LatencyBudget.parse(ASKED),))
    before = told(result.folder, capsys)
    (winner,) = before["json"]
    assert before == dict.fromkeys(before, [winner])
    path = result.folder / "certification.json"
    certified = json.loads(path.read_text())
    (point,) = [p for p in certified["points"] if p["checkpoint"].endswith(winner)]
    spoil(point)
    path.write_text(json.dumps(certified))
    after = told(result.folder, capsys)
    (second,) = after["json"]
    assert second != winner and after == dict.fromkeys(after, [second])


def test_each_budget_is_answered_once_and_each_point_judged_once_for_it(rehearse, monkeypatch):
    chosen, judged = Counter(), Counter()
    choose, verdict = results._choose, CertifiedPoint.verdict

    def counted_choose(points, budget, terms):
        chosen[budget.asked] += 1
        return choose(points, budget, terms)

    def counted_verdict(point, budget):
        judged[point.key, budget.asked] += 1
        return verdict(point, budget)

    monkeypatch.setattr(results, "_choose", counted_choose)
    monkeypatch.setattr(CertifiedPoint, "verdict", counted_verdict)
    result = rehearse(trials=6, budgets=tuple(LatencyBudget.parse(b) for b in (ASKED, "50%")))
    load.load(result.folder, result.answers)
    assert chosen == {ASKED: 1, "50%": 1}
    assert len(judged) >= 2 * len(result.front) and set(judged.values()) == {1}
