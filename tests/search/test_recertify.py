"""What is asked again is pooled and counted; what the old protocol certified says so until it is timed again."""

import json

from nash_search import cli, intervals
from nash_search.config import AnswerLimits, LatencyBudget
from nash_search.latency.occasions import Occasion, keep
from nash_search.latency_record import Latency
from nash_search.report import load as stored
from nash_search.report import markdown, page
from nash_search.report.plan_text import plan_lines
from nash_search.report.words import OLD_PROTOCOL
from nash_search.results import Terms, judged
from nash_search.search import certify, margins, remeasure
from nash_search.search.pick import pick
from nash_search.summaries import Plan, Summary
from tests.synthetic_evaluator import DENSE_MS


def budgets(*asked):
    return tuple(LatencyBudget.parse(b) for b in asked)


def as_of_before(folder):
    """The study as the old protocol left it: nothing in it knows of an occasion effect."""

    def without(value):
        if isinstance(value, dict):
            gone = ("effect", "looks", "occasion", "occasion_sd", "rounds_pooled", "certifies", "others")
            return {k: without(v) for k, v in value.items() if k not in gone}
        return [without(v) for v in value] if isinstance(value, list) else value

    for name in ("certification.json", "summary.json"):
        (folder / name).write_text(json.dumps(without(json.loads((folder / name).read_text()))))


def timed_here(monkeypatch, folder, device="rehearsal"):
    """Let `remeasure` time the rehearsal: every point as before, and whatever the rounds say."""
    points = {p.checkpoint: p.latency for p in certify.read(folder).points}

    def measure_fresh(folders, dense, workload, **settings):
        made = {"workload": workload, "fingerprint": {"device": device, "hash": device}, "fresh": True}
        return {
            name: Latency(rounds=points[name].rounds[:5], effect=intervals.DEFAULT_OCCASION, **made) for name in folders
        }

    monkeypatch.setattr(remeasure.latency, "measure_fresh", measure_fresh)
    (folder / "rehearsal").mkdir(exist_ok=True)  # where its dense model would lie


def test_the_same_command_pools_its_rounds_with_the_earlier_ones_and_says_how_often_it_was_asked(rehearse, notebook):
    fastest = rehearse(trials=2, study="before").full_document["floor"]["share"]
    notebook.stages.clear()
    asked = budgets(f"{1.02 * fastest * DENSE_MS:.1f}")  # nearer than any machine can tell
    first = rehearse(trials=4, budgets=asked)
    assert {b["verdict"] for b in first.document["budgets"]} == {"ambiguous"}
    again = rehearse(trials=4, budgets=asked)
    latencies = certify.read(again.folder).latencies()
    assert {(x.looks, len(x.rounds)) for x in latencies.values()} == {(2, 10)}
    assert {p.key for p in first.front} <= set(latencies) == set(certify.read(first.folder).timed)
    assert [d["looks"] for stage, d in notebook.stages if stage == "certify"] == [1, 2]
    said = markdown.render(stored.load(again.folder))
    assert "asked 2 times: all 10 rounds count" in said


def test_a_decided_study_is_not_timed_again(rehearse):
    first = rehearse(trials=4, budgets=budgets("90%"))
    again = rehearse(trials=4, budgets=budgets("90%"))
    assert again.front == first.front and {p.latency.looks for p in again.front} == {1}


def test_plan_and_answer_say_what_this_machine_can_certify(rehearse, notebook):
    result = rehearse(trials=4, budgets=budgets("40", "50%"))
    plan = next(detail for stage, detail in notebook.stages if stage == "plan")
    needs = 40 * (1 - plan["certifies"]["ms_margin"])
    (line,) = [x for x in plan_lines(Plan(**plan)) if x.startswith("certifies")]
    assert f"40 ms needs a median of at most {needs:.1f} ms here; a share is judged to 1.5%" in line
    assert "assumed, 0 measurements of the dense model being too few" in line and 34 < needs < 35
    assert "40 ms needs a median of at most" in markdown.render(stored.load(result.folder))


def test_a_device_that_is_known_is_said_by_its_own_measurements(rehearse, notebook, tmp_path):
    seen = [
        Occasion(at=f"2026-11-{day:02d}", fingerprint="rehearsal", of="x", dense_ms=100 + 0.1 * (-1) ** day)
        for day in range(1, 21)
    ]
    keep(tmp_path / margins.LATENCIES, seen)
    result = rehearse(trials=2, budgets=budgets("40"))
    plan = [detail for stage, detail in notebook.stages if stage == "plan"][-1]
    assert plan["certifies"]["occasions"] == 20 and not plan["certifies"]["assumed"]
    assert plan["certifies"]["occasion_sd"] < 0.01, "this clock hardly moves"
    assert "by 20 measurements" in " ".join(plan_lines(Plan(**plan)))
    assert result.front[0].latency.effect.occasions > 20, "the trials' are among them"


def test_a_study_of_the_old_protocol_says_so_in_pick_page_and_card_until_remeasured(rehearse, monkeypatch, capsys):
    folder = rehearse(trials=4, budgets=budgets("60", "50%")).folder
    assert cli.main(["pick", str(folder), "--budget-ms", "90", "--json"]) == 0
    assert OLD_PROTOCOL not in capsys.readouterr().err
    as_of_before(folder)
    assert cli.main(["pick", str(folder), "--budget-ms", "90", "--json"]) == 0
    told = capsys.readouterr()
    assert f"{OLD_PROTOCOL}: nash-search remeasure {folder.name} renews them" in told.err
    assert json.loads(told.out)["budgets"][0]["occasion_sd"] is None
    old = {p.checkpoint: p.latency for p in certify.read(folder).points}

    def texts():
        view = stored.load(folder)
        from nash_search.report.exports import write_cards

        cards = [path.read_text() for path in write_cards(folder, view)]
        assert cards
        return [page.render(view), markdown.render(view), *cards]

    assert all("old protocol" in text for text in texts())
    timed_here(monkeypatch, folder)
    assert cli.main(["remeasure", str(folder), "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["renewed"] and "counts these rounds too" in told.err
    assert not any("old protocol" in text for text in texts())
    renewed = certify.read(folder)
    for point in renewed.points:
        before = old[point.checkpoint]
        assert point.latency.looks == 2 and len(point.latency.rounds) == len(before.rounds) + 5
        assert point.latency.bounds_ms[1] - point.latency.bounds_ms[0] > before.bounds_ms[1] - before.bounds_ms[0]
    summary = json.loads((folder / "summary.json").read_text())
    answers = judged(renewed, Terms.of_summary(Summary(**summary), budgets("60", "50%"), AnswerLimits()))
    assert [b["verdict"] for b in summary["budgets"]] == [a.verdict for a in answers.budgets]
    copies = {path.name for path in (folder / "best").iterdir()}
    assert copies == set(answers.winners)


def test_another_device_renews_nothing(rehearse, monkeypatch, capsys):
    folder = rehearse(trials=4).folder
    before = (folder / "certification.json").read_bytes()
    timed_here(monkeypatch, folder, device="elsewhere")
    assert cli.main(["remeasure", str(folder), "--json"]) == 0
    told = capsys.readouterr()
    assert not json.loads(told.out)["renewed"] and "certified on another device or software" in told.err
    assert (folder / "certification.json").read_bytes() == before


def test_pick_that_certifies_again_counts_its_look_and_every_document_says_so(rehearse, capsys):
    folder = rehearse(trials=4).folder
    assert cli.main(["pick", str(folder), "--budget-ms", "50%", "--certify", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["budgets"]
    assert told["looks"] == 2 and pick(folder, LatencyBudget.parse("50%")).budgets[0].rounds == 10
    summary = json.loads((folder / "summary.json").read_text())
    assert {b["looks"] for b in summary["budgets"] if b["checkpoint"]} == {2}
    assert "asked 2 times: all 10 rounds count" in (folder / "report.md").read_text()


def test_every_trial_and_every_certification_is_an_occasion_of_the_device(rehearse):
    folder = rehearse(trials=4).folder
    lines = (folder.parent / margins.LATENCIES / "occasions.jsonl").read_text().splitlines()
    ways = [json.loads(line)["of"] for line in lines]
    assert len(set(ways)) == 2 and ways.count(ways[-1]) == 1, "certified once; the trials are another way of timing"
