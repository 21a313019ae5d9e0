"""A study as the search leaves it, from closed formulas: the report's tests need no training.

Latency falls linearly with decoder blocks and encoder width, quality falls slowly and then all
at once; noise, contention, a stopped, a failed and a refused trial are in it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nash_search.config import Architecture, LatencyBudget, Workload
from nash_search.latency_record import Latency, Round
from nash_search.records import CurvePoint, Quality, Shapes, TrialRecord
from nash_search.report.card import Export
from nash_search.results import Answers, Certification, CertifiedPoint, Terms, judged
from nash_search.search import summary
from nash_search.summaries import Summary

Study = tuple[list[TrialRecord], Summary, Answers]

WORKLOAD = Workload(device="cpu", threads=1, batch_size=64, input_tokens=9, output_tokens=8)
DENSE_MS = 68.2
TERMS = Terms(
    budgets=tuple(LatencyBudget.parse(asked) for asked in ("70%", "50%", "25%")), dense_ms=DENSE_MS, floor_share=0.3
)
HEADS, NEURONS, BLOCKS = 4, 256, 6
PLAN = [
    (3, 0),
    (2, 0),
    (1, 0),
    (3, 50),
    (2, 40),
    (2, 60),
    (1, 40),
    (3, 30),
    (2, 80),
    (1, 70),
    (4, 60),
    (2, 20),
    (3, 70),
]


def ratio_of(layers: int, sparsity_pct: int) -> float:
    """Latency as a share of dense."""
    return 0.316 + 0.114 * layers - 0.17 * sparsity_pct / 100


def quality_of(layers: int, sparsity_pct: int) -> float:
    """100 - PER."""
    s = sparsity_pct / 100
    return 91.6 - 0.32 * (6 - layers) ** 1.35 - 0.5 * s - 4.2 * s**4


def latency_of(
    layers: int, sparsity_pct: int, seed: int, pairs: int = 40, rounds: int = 1, contended: float = 0.04
) -> Latency:
    """Raw paired samples around the formula; contended pairs are slower on both sides."""
    rng = random.Random(seed)
    made = []
    for _ in range(rounds):
        runs, dense, flags = [], [], []
        for _ in range(pairs):
            busy = rng.random() < contended
            slow = rng.uniform(1.2, 1.9) if busy else 1.0
            runs.append(DENSE_MS * ratio_of(layers, sparsity_pct) * slow * rng.lognormvariate(0, 0.015))
            dense.append(DENSE_MS * slow * rng.lognormvariate(0, 0.015))
            flags.append(busy)
        made.append(Round(runs_ms=tuple(runs), dense_runs_ms=tuple(dense), cpu_ms=tuple(runs), contended=tuple(flags)))
    fingerprint = {"hash": "3f9a1c", "device": "AMD EPYC 7B13 64-Core Processor", "cores": 2, "torch": "2.13.0"}
    return Latency(rounds=tuple(made), workload=WORKLOAD, fingerprint=fingerprint, fresh=rounds > 1)


def shapes_of(layers: int, sparsity_pct: int, seed: int) -> Shapes:
    """Later blocks keep less, as NASH tends to learn."""
    rng = random.Random(seed)
    keep = 1 - sparsity_pct / 100
    shares = [
        min(1.0, max(0.05, keep * (1.35 - 0.14 * b) + rng.uniform(-0.08, 0.08))) if keep < 1 else 1.0
        for b in range(BLOCKS)
    ]
    return Shapes(
        encoder_heads=tuple(round(HEADS * share) for share in shares),
        encoder_neurons=tuple(round(NEURONS * share) for share in shares),
        decoder_blocks=tuple(round(i * 5 / max(1, layers - 1)) for i in range(layers)),
    )


def record_of(number: int, layers: int, sparsity_pct: int, **changes: Any) -> TrialRecord:
    """One complete trial."""
    rng = random.Random(100 + number)
    value = quality_of(layers, sparsity_pct) + rng.gauss(0, 0.12)
    fields: dict[str, Any] = {
        "number": number,
        "architecture": Architecture(encoder_sparsity_pct=sparsity_pct, decoder_layers=layers),
        "shapes": shapes_of(layers, sparsity_pct, number),
        "latency": latency_of(layers, sparsity_pct, number, contended=0.4 if number == 7 else 0.04),
        "quality": Quality(
            metric="100-PER",
            value=value,
            standard_error=0.21,
            n=6312,
            split="validation",
            signature="per|jiwer:4.0|beams:1",
            beside={"per": 100 - value, "wer": 3.1 * (100 - value)},
        ),
        "curve": tuple(CurvePoint(step=150 * i, value=value - 6 / i**2, train_s=9.0 * i) for i in range(1, 5)),
        "parameters": round(310_000 * (0.4 + 0.1 * layers - 0.3 * sparsity_pct / 100)),
        "sparsity_counted": sparsity_pct / 100,
        "stages": {"narrow": {"steps": 300, "seconds": 17.0}, "tune": {"steps": 300, "seconds": 11.0 + 2 * layers}},
        "versions": {"nash_search": "0.2.0", "torch": "2.13.0", "transformers": "5.23.0", "optuna": "5.0.0"},
        "checkpoint": f"checkpoints/g2p-{number}",
        "created": f"2026-11-22T17:{number:02d}:00Z",
    }
    return TrialRecord(**(fields | changes))


def make_study() -> Study:
    """Thirteen complete trials, one stopped, one failed, one refused; two budgets met, one impossible."""
    records = [record_of(i, layers, sparsity) for i, (layers, sparsity) in enumerate(PLAN)]
    records.append(record_of(13, 1, 80, stopped="dominated at rung 2 of 4"))
    records.append(
        TrialRecord(
            number=14,
            architecture=Architecture(encoder_sparsity_pct=10, decoder_layers=4),
            failure="nan",
            message="loss is not finite at step 212",
        )
    )
    records.append(
        TrialRecord(
            number=15,
            architecture=Architecture(encoder_sparsity_pct=0, decoder_layers=5),
            infeasible="measured 87% of dense, the loosest budget is 70%",
        )
    )
    dense = {"latency": latency_of(6, 0, 77), "stages": {}, "parameters": 310_000, "created": "2026-11-22T16:59:00Z"}
    found = Quality(metric="100-PER", value=91.5, standard_error=0.2, n=6312, split="validation")
    complete = [r for r in records if r.status == "complete" and r.latency and r.quality]
    ranked = sorted(complete, key=lambda r: r.latency.ratio if r.latency else 0.0)
    front, best = [], 0.0
    for r in ranked:
        assert r.latency is not None and r.quality is not None
        if r.quality.value > best:
            best = r.quality.value
            front.append(r)
    records.append(record_of(16, 6, 0, quality=found, **dense))
    answers = judged(Certification(points=tuple(map(certified, front)), dense_checkpoint="teacher"), TERMS)
    tests = {
        p.key: p.validation.model_copy(
            update={"value": p.validation.value - 0.4, "standard_error": 0.25, "split": "test"}
        )
        for p in answers.winners.values()
    }
    dense_test = found.model_copy(update={"value": 91.1, "split": "test", "beside": {"per": 8.9, "wer": 27.6}})
    scored = answers.certification.with_tests(tests).model_copy(update={"dense_test": dense_test})
    answers = answers.of(scored)
    nearest = {"70%": "70%", "50%": "50%", "25%": "30%"}

    document = {
        "study": "g2p-3f9a1c",
        "task": "g2p",
        "device": "cpu",
        "workload": WORKLOAD,
        "dense": {
            "latency_ms": DENSE_MS,
            "lower_ms": 67.6,
            "upper_ms": 68.9,
            "quality": 91.1,
            "quality_standard_error": 0.2,
            "quality_split": "test",
            "beside": {"per": 8.9, "wer": 27.6},
            "validation_quality": 91.5,
            "validation_standard_error": 0.2,
            "parameters": 310_000,
            "checkpoint": "teacher",
        },
        "budgets": [summary.budget_row(a, Path(), nearest_feasible=nearest[a.budget.asked]) for a in answers.budgets],
        "front": [summary.front_row(p, Path(), p.parameters, DENSE_MS) for p in scored.points],
        "trials": {"complete": 13, "stopped": 1, "infeasible": 1, "failed": 1},
        "reference": {"latency_ms": 1.1 * DENSE_MS, "share": 1.1, "quality": 80.0},
        "hypervolume": 7.6,
        "metric": "100-PER",
        "direction": "maximize",
        "probe_dense_ms": DENSE_MS,
        "floor": {"share": TERMS.floor_share},
        "decoder_layers": 6,
        "elapsed_s": 612.0,
        "command": "nash-search --budget-ms 70% --budget-ms 50% --budget-ms 25%",
        "environment": {
            "python": "3.11.2",
            "torch": "2.13.0",
            "transformers": "5.23.0",
            "cpu": "AMD EPYC 7B13",
            "threads": 1,
        },
    }
    return records, Summary(**document), answers


def certified(record: TrialRecord) -> CertifiedPoint:
    """A trial's certificate: five fresh rounds."""
    layers, sparsity = record.architecture.decoder_layers, record.architecture.encoder_sparsity_pct
    assert record.quality is not None
    return CertifiedPoint(
        number=record.number,
        key=f"{record.number:016x}",
        architecture=record.architecture,
        checkpoint=str(record.checkpoint),
        latency=latency_of(layers, sparsity, 900 + record.number, rounds=5),
        same_tokens=True,
        validation=record.quality,
        parameters=record.parameters,
    )


@pytest.fixture
def study() -> Study:
    """A finished study: records, document and answers."""
    return make_study()


def export_of(answers: Answers, number: int, name: str = "x", **changes: Any) -> Export:
    """The export of a certified trial, for its card."""
    point = next(p for p in answers.certification.points if p.number == number)
    return Export(name=name, point=point, **changes)


@pytest.fixture
def export_at() -> Callable[..., Export]:
    """`export_at(answers, number, name, **changes)`."""
    return export_of


@pytest.fixture
def record_at() -> Callable[..., TrialRecord]:
    """Make one trial: `record_at(number, layers, sparsity_pct, **changes)`."""
    return record_of


PAYLOADS = (
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=1</script>",
    "</title></style></textarea></noscript><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    "<svg onload=window.pwned=1>",
    "<svg><animate onbegin=window.pwned=1 attributeName=x dur=1s>",
    "<body onload=window.pwned=1>",
    "<details open ontoggle=window.pwned=1>",
    "<iframe src=javascript:window.parent.pwned=1></iframe>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "<a href=javascript:window.pwned=1 id=bait>bait</a>",
    "<meta http-equiv=refresh content=0;url=http://evil.example/>",
    "<base href=http://evil.example/>",
    "<link rel=stylesheet href=http://evil.example/x.css>",
    "<style>@import url(http://evil.example/y.css);body{display:none}</style>",
    "<form action=http://evil.example/><button autofocus onfocus=window.pwned=1>",
    "<input autofocus onfocus=window.pwned=1>",
    "<object data=http://evil.example/></object>",
    "<!--><script>window.pwned=1</script-->",
    "<![CDATA[<script>window.pwned=1</script>]]>",
    '" onmouseover=window.pwned=1 autofocus onfocus=window.pwned=1 x="',
    "' onfocus=window.pwned=1 autofocus x='",
    "`};window.pwned=1;//",
    "\\u003cscript\\u003ewindow.pwned=1\\u003c/script\\u003e",
    "&lt;script&gt;window.pwned=1&lt;/script&gt;",
    "[bait](javascript:window.pwned=1)",
    "![bait](http://evil.example/pixel.png)",
    '[bait]: http://evil.example/ "x"',
    "<javascript:window.pwned=1>",
    "http://evil.example/auto www.evil.example mail@evil.example",
    "| broken | table |\n|---|---|\n\n# heading\n\n***",
    "```\n<script>window.pwned=1</script>\n```",
    "$$\\href{javascript:window.pwned=1}{bait}$$",
    "{{ 7*191 }} {% raw %} ${7*191} #{7*191} <%= 7*191 %>",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "%{x} %{customdata[0]} <b>bold</b> <a href='http://evil.example/'>bait</a><extra>x</extra>",
    "\x1b[2J\x1b[31mred\x1b]0;title\x07\x1b]8;;http://evil.example/\x07bait\x1b]8;;\x07",
    "\x9b2Jc1 control\x00nul\r\noverwritten\b\b\b",
    "[red]markup[/red] [link=http://evil.example/]bait[/link] [/]",
    "\u202egnitirwrevo\u202c \u2066isolate\u2069\u2028line",
    '=HYPERLINK("http://evil.example/","bait")',
    "+1+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+9)*cmd|' /C calc'!A0",
    "\t=1+1",
    "--- \nlicense: evil\n---",
    "../../../etc/passwd\x00.png",
)


def make_hostile() -> Study:
    """A study in which every text that may come from outside is an attack."""
    records, summary, answers = make_study()
    document = summary.to_json()
    spare = iter(PAYLOADS * 4)
    found = []
    for record in records:
        changes: dict[str, Any] = {"message": next(spare), "versions": {"torch": next(spare), next(spare): "1"}}
        if record.latency is not None:
            fingerprint = {"device": next(spare), next(spare): next(spare)}
            changes["latency"] = record.latency.model_copy(update={"fingerprint": fingerprint})
        if record.quality is not None:
            changes["quality"] = record.quality.model_copy(update={"metric": PAYLOADS[0], "signature": next(spare)})
        if record.stopped:
            changes["stopped"] = next(spare)
        architecture = record.architecture.model_copy(update={"decoder_selection": next(spare)})
        found.append(record.model_copy(update={**changes, "architecture": architecture}))
    for number, payload in enumerate(PAYLOADS, start=100):
        asked = Architecture(encoder_sparsity_pct=10, decoder_layers=1, decoder_selection=payload)
        found.append(TrialRecord(number=number, architecture=asked, failure="error", message=payload))
    document |= {
        "study": "".join(PAYLOADS[:6]),
        "task": PAYLOADS[3],
        "device": PAYLOADS[1],
        "metric": PAYLOADS[0],
        "command": "".join(PAYLOADS),
        "environment": {str(i): p for i, p in enumerate(PAYLOADS)} | {p: p for p in PAYLOADS},
        "workload": document["workload"] | {"attention": PAYLOADS[0], "device": PAYLOADS[3]},
    }
    for entry, payload in zip(document["front"] + document["budgets"], PAYLOADS, strict=False):
        entry["checkpoint"] = payload
        entry["beside"] = {payload: 1.0}
    document["dense"]["beside"] = {p: 1.0 for p in PAYLOADS}
    for budget, payload in zip(document["budgets"], PAYLOADS, strict=False):
        budget["asked"] = budget["verdict"] = budget["nearest_feasible"] = payload
    return found, Summary(**document), attacked(answers)


def attacked(answers: Answers) -> Answers:
    """A certificate in which every text is an attack."""
    payloads = iter(PAYLOADS * 9)

    def of(quality: Quality) -> Quality:
        beside = {next(payloads): 1.0 for _ in range(5)}
        return quality.model_copy(update={"metric": PAYLOADS[0], "signature": next(payloads), "beside": beside})

    points = []
    for point in answers.certification.points:
        changes: dict[str, Any] = {"checkpoint": next(payloads), "validation": of(point.validation)}
        changes["test"] = of(point.test) if point.test else None
        changes["latency"] = point.latency.model_copy(update={"fingerprint": {next(payloads): next(payloads)}})
        points.append(point.model_copy(update=changes))
    budgets = [
        a.model_copy(update={"budget": a.budget.model_copy(update={"asked": next(payloads)})}) for a in answers.budgets
    ]
    certification = answers.certification.model_copy(update={"points": tuple(points)})
    return answers.model_copy(update={"budgets": tuple(budgets)}).of(certification)


@pytest.fixture
def hostile() -> Study:
    """Records and document whose every text is an attack."""
    return make_hostile()


@pytest.fixture
def payloads() -> tuple[str, ...]:
    """The attacks."""
    return PAYLOADS


@pytest.fixture
def on_disk(study: Any, tmp_path: Path) -> Path:
    """A study's folder as the search leaves it."""
    records, document, answers = study
    made = tmp_path / "g2p-3f9a1c"
    for record in records:
        place = made / "trials" / f"{record.number:016x}"
        place.mkdir(parents=True)
        (place / "record.json").write_text(record.model_dump_json())
    (made / "trials" / "torn").mkdir()
    (made / "trials" / "torn" / "record.json").write_text('{"number": ')
    (made / "summary.json").write_text(json.dumps(document.to_json()))
    cells = [
        {"architecture": r.architecture.model_dump(), "latency": r.latency.model_dump()} for r in records if r.latency
    ]
    (made / "probe.json").write_text(json.dumps({"entries": cells, "key": "x"}))
    for number in (0, 4):
        export = made / "checkpoints" / f"g2p-{number}"
        export.mkdir(parents=True)
        (export / "config.json").write_text(json.dumps({"auto_map": {}} if number == 4 else {}))
    (made / "best" / "50pct").mkdir(parents=True)
    (made / "certification.json").write_text(answers.certification.model_dump_json())
    return made
