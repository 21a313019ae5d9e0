"""Nothing is announced before the exported folder itself was timed and scored.

    front, contenders, finalists -> export each -> fresh processes time the dense model and all exports, interleaved
          -> exports write the same tokens as the trained models; quantised ones keep their float twins' quality
          -> one point per architecture (`elected`)
          -> budgets are answered (`choose`), what is neither an answer nor on the certified front goes (`on_front`)
          -> the sealed test split is another module's (`held_out_test`)

For a budget: the best-quality point whose certificate says `met`; where it fails, the next best. A share
budget is judged on the paired ratio, milliseconds on wall times and on how far they move here between occasions.
A point that is ambiguous gets more rounds, and an interval widened for having looked; what was found when it was
asked before is pooled. Of an architecture trained with several seeds the one is exported that meets most budgets
and is best on validation: the test split chooses nothing. The result is one file, `certification.json`; later
questions (`pick`) are answered from it. This module refuses to know how models are made and timed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nash_search import pareto
from nash_search.config import LatencyBudget, SearchConfig
from nash_search.files import ask_free, fsync_folder, write_atomic
from nash_search.latency.fresh import MeasurementFailed
from nash_search.records import Latency, TrialRecord
from nash_search.results import Certification as Certification
from nash_search.results import CertifiedPoint as CertifiedPoint
from nash_search.results import Training as Training
from nash_search.search import margins
from nash_search.search.candidates import near
from nash_search.search.export_names import MEASUREMENT, export_name, measurement
from nash_search.storage import artifacts, failpoints
from nash_search.storage.artifacts import WEIGHTS
from nash_search.trial.evaluator import Evaluator

FILE = "certification.json"
CHECKPOINTS = "checkpoints"
LIMIT_S = 1800.0
"""Longest time for all fresh rounds together, seconds."""


def read(folder: Path) -> Certification | None:
    """The study's certification, if its exports are still there."""
    found = _stored(folder)
    return found if found is not None and all((folder / p.checkpoint).is_dir() for p in found.points) else None


def _stored(folder: Path) -> Certification | None:
    try:
        return Certification.model_validate_json((folder / FILE).read_bytes())
    except (OSError, ValueError):
        return None


def write(folder: Path, certification: Certification) -> None:
    """Keep it, durably."""
    write_atomic(folder / FILE, certification.model_dump_json(indent=1))


def ranked(points: Sequence[CertifiedPoint], floor: float | None) -> list[CertifiedPoint]:
    """Candidates for any budget, best quality first (ties: the faster); none below the quality floor."""
    sign = 1.0 if not points or points[0].validation.direction == "maximize" else -1.0
    allowed = [p for p in points if floor is None or sign * p.validation.value >= sign * floor]
    return sorted(allowed, key=lambda p: (-sign * p.validation.value, p.latency.ratio))


def choose(
    points: Sequence[CertifiedPoint], budget: LatencyBudget, floor: float | None
) -> tuple[str, CertifiedPoint | None]:
    """A budget's answer: `met` with its point, `ambiguous` with the best that may meet it, or `infeasible`."""
    order = ranked(points, floor)
    for wanted in ("met", "ambiguous"):
        for point in order:
            if point.verdict(budget) == wanted:
                return wanted, point
    return "infeasible", None


def open_questions(records: Sequence[TrialRecord], budgets: Sequence[LatencyBudget]) -> dict[str, list[LatencyBudget]]:
    """By trial folder, the budgets that a point may or may not meet: worth more rounds when ambiguous."""
    return {_key(record): [b for b in budgets if near(record, b)] for record in records}


def elected(points: Sequence[CertifiedPoint], budgets: Sequence[LatencyBudget]) -> list[CertifiedPoint]:
    """One point per trial: the seed that meets most budgets, then the best on validation (ties: the first seed)."""
    groups: dict[int, list[CertifiedPoint]] = {}
    for point in points:
        groups.setdefault(point.number, []).append(point)

    def worth(point: CertifiedPoint) -> tuple[int, float]:
        met = sum(point.verdict(b) == "met" for b in budgets)
        return met, point.validation.value * (1 if point.validation.direction == "maximize" else -1)

    return [max(sorted(group, key=lambda p: p.seed), key=worth) for group in groups.values()]


def on_front(points: Sequence[CertifiedPoint], budgets: Sequence[LatencyBudget]) -> list[CertifiedPoint]:
    """The front by certified latency, every budget's answer, and what is not what was trained."""
    sound = [p for p in points if p.sound]
    direction = points[0].validation.direction if points else "maximize"
    losses = pareto.losses([p.latency.ratio for p in sound], [p.validation.value for p in sound], direction)
    kept = {p.key for p, best in zip(sound, pareto.front_mask(losses), strict=True) if best}
    kept |= {p.key for b in budgets if (p := choose(points, b, None)[1]) is not None}
    return [p for p in points if not p.sound or p.key in kept]


def certify(
    folder: Path,
    candidates: Sequence[TrialRecord],
    evaluator: Evaluator,
    config: SearchConfig,
    say: Callable[[str, dict[str, Any]], None],
    dense_ms: float | None = None,
) -> Certification:
    """Export and time the front and its contenders; what was certified before is kept, unless it left a budget open.

    Args:
        folder: the study's folder.
        candidates: complete records with checkpoints: the front and its contenders, then finalists.
        evaluator: loads, times and scores.
        config: budgets, rounds and pairs.
        say: told of each step.
        dense_ms: the dense latency that shares are shares of, where every budget is a share.
    """
    before = read(folder)
    if before is not None and _still_answers(before, candidates, config.budgets):
        found = before
    elif not candidates:
        found = Certification(points=(), dense_checkpoint=str(evaluator.dense_folder()))
    else:
        known = _stored(folder)
        looked = known.latencies() if known is not None else {}
        found = _time(folder, candidates, evaluator, config, say, dense_ms, looked)
        if known is not None:  # what was scored on the sealed split stays known where an export was deleted
            kept = {"dense_test": known.dense_test, "opened": known.opened}
            found = found.with_tests(known.tests()).model_copy(update=kept)
        write(folder, found)
    return found


def _still_answers(before: Certification, candidates: Sequence[TrialRecord], budgets: Sequence[LatencyBudget]) -> bool:
    """The same candidates, and nothing that another look could decide."""
    same = set(before.timed or [p.key for p in before.points]) == {_key(r) for r in candidates}
    return same and all(choose(before.points, budget, None)[0] != "ambiguous" for budget in budgets)


def winners(found: Certification, budgets: Sequence[LatencyBudget], floor: float | None) -> dict[str, CertifiedPoint]:
    """The points that meet a budget and are its answer, by the budget's folder."""
    answers = {budget.folder: choose(found.points, budget, floor) for budget in budgets}
    return {name: point for name, (verdict, point) in answers.items() if verdict == "met" and point is not None}


def _key(record: TrialRecord) -> str:
    assert record.checkpoint is not None
    return Path(record.checkpoint).parent.name


def _time(
    folder: Path,
    candidates: Sequence[TrialRecord],
    evaluator: Evaluator,
    config: SearchConfig,
    say: Callable[[str, dict[str, Any]], None],
    dense_ms: float | None,
    looked: Mapping[str, Latency],
) -> Certification:
    exports = folder / CHECKPOINTS
    scratch = _unannounced(folder, candidates)
    failpoints.hit("export")
    settings = {"rounds": config.certify_rounds, "pairs": config.certify_pairs}
    looks = 1 + max((looked[key].looks for key in scratch if key in looked), default=0)
    say("certify", {"points": len(candidates), **settings, "looks": looks})
    latencies = evaluator.time_fresh(
        scratch,
        open_questions(candidates, config.budgets),
        **settings,
        limit_s=LIMIT_S,
        effect=margins.learnt(folder, evaluator.fingerprint()),
        before=looked,
    )
    if not all(latency.rounds for latency in latencies.values()):
        what = f"the front must be timed within {LIMIT_S:.0f} s, but others kept the device all the while"
        raise MeasurementFailed(what)
    same = evaluator.same_tokens(scratch, {_key(r): _home(folder, r) for r in candidates})
    fidelity = evaluator.fidelity(scratch)
    if fidelity:
        say("fidelity", {"found": tuple(fidelity.values())})
    timed = [
        CertifiedPoint(
            number=r.number,
            key=_key(r),
            architecture=r.architecture,
            checkpoint="",
            latency=latencies[_key(r)],
            same_tokens=same[_key(r)],
            fidelity=fidelity.get(_key(r)),
            validation=r.quality,  # type: ignore[arg-type]
            seed=r.seed,
            parameters=r.parameters,
        )
        for r in candidates
    ]
    points: list[CertifiedPoint] = []
    for point in on_front(elected(timed, config.budgets), config.budgets):
        point = point.model_copy(update={"seeds": _trainings(point, timed, candidates, config.budgets)})
        name = export_name(
            config.task.name, point.architecture, point.latency, point.validation, dense_ms=dense_ms,
            taken=frozenset(Path(p.checkpoint).name for p in points),
        )  # fmt: skip
        target = exports / name
        shutil.rmtree(target, ignore_errors=True)
        dense, inputs = evaluator.dense_folder(), evaluator.inputs()
        about = measurement(config, point.architecture, point.latency, point.validation, dense, inputs)
        (scratch[point.key] / MEASUREMENT).write_text(json.dumps(about, indent=1), "utf-8")
        scratch[point.key].rename(target)
        points.append(point.model_copy(update={"checkpoint": f"{CHECKPOINTS}/{name}"}))
    fsync_folder(exports)
    kept = {Path(p.checkpoint).name for p in points}
    for path in exports.iterdir():
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)
    points.sort(key=lambda p: p.latency.ratio)
    margins.keep_fresh(folder, next(iter(latencies.values())), evaluator.dense_folder())
    on = {p.key for p in points}
    return Certification(
        points=tuple(points),
        timed=tuple(p.key for p in timed),
        others={key: latency for key, latency in ({**looked, **latencies}).items() if key not in on},
        dense_checkpoint=str(evaluator.dense_folder()),
    )


def _unannounced(folder: Path, candidates: Sequence[TrialRecord]) -> dict[str, Path]:
    """By trial folder, what would be exported, under names that no answer gives; the trials keep theirs.

    Raises:
        OSError: ENOSPC, when the disk has no room for them and for the winners' in `best/`.
    """
    exports = folder / CHECKPOINTS
    exports.mkdir(exist_ok=True)
    for litter in exports.glob(".tmp-*"):
        shutil.rmtree(litter)
    weights = {_key(record): _home(folder, record) / WEIGHTS for record in candidates}
    ask_free(exports, 2 * artifacts.second_bytes(list(weights.values()), exports), "certification")
    scratch = {key: exports / f".tmp-{key}" for key in weights}
    for key, path in weights.items():
        artifacts.second(path, scratch[key])
    return scratch


def _home(folder: Path, record: TrialRecord) -> Path:
    """The folder that a trial or finalist left behind."""
    assert record.checkpoint is not None
    return (folder / record.checkpoint).parent


def _trainings(
    point: CertifiedPoint,
    timed: Sequence[CertifiedPoint],
    records: Sequence[TrialRecord],
    budgets: Sequence[LatencyBudget],
) -> tuple[Training, ...]:
    """All seeds of a point's architecture, in their order; nothing where there is one."""
    own = [(p, r) for p, r in zip(timed, records, strict=True) if p.number == point.number]
    return tuple(
        Training(
            seed=p.seed,
            key=p.key,
            checkpoint=str(r.checkpoint),
            share=p.latency.ratio,
            meets=tuple(b.asked for b in budgets if p.verdict(b) == "met"),
            train_s=r.train_s,
            train_steps=r.train_steps,
            validation=p.validation,
        )
        for p, r in sorted(own, key=lambda pair: pair[0].seed)
        if len(own) > 1
    )
