"""Nothing is announced before the exported folder itself was timed and scored.

    front, contenders, finalists -> export each -> fresh processes time the dense model and all exports, interleaved
          -> exports write the same tokens as the trained models; quantised ones keep their float twins' quality
          -> one point per architecture (`best_training_each`)
          -> budgets are answered (`results.judged`), what is neither an answer nor on the certified front goes
          -> the sealed test split is another module's (`held_out_test`)

For a budget: the best-quality point whose certificate says `met`; where it fails, the next best. A share
budget is judged on the paired ratio, milliseconds on wall times and on how far they move here between occasions.
A point that is ambiguous gets more rounds, and an interval widened for having looked; what was found when it was
asked before is pooled. Of an architecture trained more than once (at length, with other seeds) the training is
exported that meets most budgets and is best on validation: the test split chooses nothing. The result is one file,
`certification.json`; later questions (`pick`) are answered from it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from nash_search import pareto
from nash_search.config import SearchConfig
from nash_search.files import fsync_folder, take_place, write_atomic
from nash_search.latency_record import Latency
from nash_search.records import TrialRecord
from nash_search.results import (
    CERTIFICATION,
    Answers,
    BudgetAnswer,
    Certification,
    CertifiedPoint,
    Terms,
    Training,
    judged,
)
from nash_search.search import fresh_timing
from nash_search.search.export_names import MEASUREMENT, export_name, measurement
from nash_search.search.fresh_timing import CHECKPOINTS, home_of, key_of, scratch_of, unannounced
from nash_search.trial.evaluator import Evaluator
from nash_search.trial.job import Say


def read(folder: Path) -> Certification | None:
    """The study's certification, if its exports are still there."""
    found = Certification.stored(folder)
    return found if found is not None and all((folder / p.checkpoint).is_dir() for p in found.points) else None


def write(folder: Path, certification: Certification) -> None:
    """Keep it, durably."""
    write_atomic(folder / CERTIFICATION, certification.model_dump_json(indent=1))


def best_training_each(
    points: Sequence[CertifiedPoint], meets: Mapping[str, Sequence[str]], terms: Terms
) -> list[CertifiedPoint]:
    """One point per trial: of the trainings that the limits admit the one that meets most budgets, then the best.

    Ties go to the better on validation, then to the first.

    Args:
        points: as timed, every training one.
        meets: by point, the budgets that it meets; nothing of a point whose trial was trained once.
        terms: whose limits admit a training, or not.
    """
    groups: dict[int, list[CertifiedPoint]] = {}
    for point in points:
        groups.setdefault(point.number, []).append(point)

    def worth(point: CertifiedPoint) -> tuple[bool, int, float]:
        quality = point.validation
        return terms.admits(point), len(meets.get(point.key, ())), -pareto.loss(quality.value, quality.direction)

    return [max(sorted(group, key=lambda p: (p.finish_steps, p.seed)), key=worth) for group in groups.values()]


def on_front(points: Sequence[CertifiedPoint], answers: Sequence[BudgetAnswer]) -> list[CertifiedPoint]:
    """Points of the certified front, every budget's answer, and unsound exports, kept so that they can be reported.

    An export is unsound where it writes other tokens than the trained model, or has lost quality.
    """
    sound = [p for p in points if p.sound]
    direction = points[0].validation.direction if points else "maximize"
    losses = pareto.losses([p.latency.ratio for p in sound], [p.validation.value for p in sound], direction)
    kept = {p.key for p, best in zip(sound, pareto.front_mask(losses), strict=True) if best}
    kept |= {a.point.key for a in answers if a.point is not None}
    return [p for p in points if not p.sound or p.key in kept]


def certify(
    folder: Path,
    candidates: Sequence[TrialRecord],
    evaluator: Evaluator,
    config: SearchConfig,
    say: Say,
    terms: Terms,
) -> Answers:
    """Export, time and judge the front and its contenders.

    Where the stored certification covers these candidates and leaves no budget ambiguous, it is the answer.

    Args:
        folder: the study's folder.
        candidates: complete records with checkpoints: the front and its contenders, then finalists.
        evaluator: loads, times and scores.
        config: budgets, rounds and pairs.
        say: told of each step.
        terms: what the points are judged by.
    """
    before = read(folder)
    if before is not None and set(before.timed or [p.key for p in before.points]) == {key_of(r) for r in candidates}:
        found = judged(before, terms)
        if all(a.verdict != "ambiguous" for a in found.budgets):  # another look could decide nothing
            return found
    if not candidates:
        return judged(Certification(points=(), dense_checkpoint=str(evaluator.dense_folder())), terms)
    known = Certification.stored(folder)
    looked = known.latencies() if known is not None else {}
    timed = _time(folder, candidates, evaluator, config, say, looked)
    found = _export(folder, timed, candidates, evaluator, config, terms)
    if known is not None:  # what was scored on the sealed split stays known where an export was deleted
        kept = {"dense_test": known.dense_test, "opened": known.opened}
        found = found.of(found.certification.with_tests(known.tests()).model_copy(update=kept))
    write(folder, found.certification)
    return found


def decide(
    folder: Path,
    records: Sequence[TrialRecord],
    evaluator: Evaluator,
    config: SearchConfig,
    say: Say,
) -> dict[str, Latency]:
    """Which architectures meet which budgets, before anything is trained at length.

    Latency depends on shapes alone, so weights of a short training are enough to find out.

    Args:
        folder: the study's folder; what is found is kept in `certification.json`, and counts when the front is timed.
        records: trials of these architectures, with checkpoints.
        evaluator: times.
        config: budgets, rounds and pairs.
        say: told of it.

    Returns:
        Fresh latencies by name of the trial's folder, those of before among them.
    """
    known = Certification.stored(folder) or Certification(points=(), dense_checkpoint=str(evaluator.dense_folder()))
    looked = known.latencies()
    new = [r for r in records if key_of(r) not in looked]
    if not new:
        return looked
    scratch = unannounced(folder, new)
    found = fresh_timing.latencies(folder, new, scratch, evaluator, config, say, looked)
    for path in scratch.values():
        shutil.rmtree(path)
    write(folder, known.model_copy(update={"others": {**known.others, **found}}))
    return {**looked, **found}


def _time(
    folder: Path,
    candidates: Sequence[TrialRecord],
    evaluator: Evaluator,
    config: SearchConfig,
    say: Say,
    looked: Mapping[str, Latency],
) -> Certification:
    """Every candidate as it would be exported, timed in fresh processes; its points have no export yet."""
    scratch = unannounced(folder, candidates)
    latencies = fresh_timing.latencies(folder, candidates, scratch, evaluator, config, say, looked)
    same = evaluator.same_tokens(scratch, {key_of(r): home_of(folder, r) for r in candidates})
    fidelity = evaluator.fidelity(scratch)
    if fidelity:
        say("fidelity", {"found": tuple(fidelity.values())})
    points = tuple(
        CertifiedPoint(
            number=r.number,
            key=key_of(r),
            architecture=r.architecture,
            checkpoint="",
            latency=latencies[key_of(r)],
            same_tokens=same[key_of(r)],
            fidelity=fidelity.get(key_of(r)),
            validation=r.quality,  # type: ignore[arg-type]
            seed=r.seed,
            finish_steps=r.finish_steps,
            parameters=r.parameters,
        )
        for r in candidates
    )
    return Certification(
        points=points,
        timed=tuple(p.key for p in points),
        others={**looked, **latencies},
        dense_checkpoint=str(evaluator.dense_folder()),
    )


def _export(
    folder: Path,
    timed: Certification,
    records: Sequence[TrialRecord],
    evaluator: Evaluator,
    config: SearchConfig,
    terms: Terms,
) -> Answers:
    """One point per architecture is judged; what is an answer or on the front becomes an export, the rest goes."""
    exports, dense, inputs = folder / CHECKPOINTS, evaluator.dense_folder(), evaluator.inputs()
    numbers = [p.number for p in timed.points]
    meets = {
        p.key: tuple(b.asked for b in terms.budgets if p.verdict(b) == "met")
        for p in timed.points
        if numbers.count(p.number) > 1
    }
    able = tuple(best_training_each(timed.points, meets, terms))
    found = judged(timed.model_copy(update={"points": able}), terms)
    points: list[CertifiedPoint] = []
    for point in on_front(able, found.budgets):
        name = export_name(
            config.task.name, point.architecture, point.latency, point.validation, dense_ms=terms.shown_dense_ms,
            taken=frozenset(Path(p.checkpoint).name for p in points),
        )  # fmt: skip
        scratch, target = scratch_of(exports, point.key), exports / name
        about = measurement(config, point.architecture, point.latency, point.validation, dense, inputs)
        (scratch / MEASUREMENT).write_text(json.dumps(about, indent=1), "utf-8")
        take_place(scratch, target, durable=False)
        seeds = _trainings(point, timed.points, records, meets)
        points.append(point.model_copy(update={"checkpoint": f"{CHECKPOINTS}/{name}", "seeds": seeds}))
    fsync_folder(exports)
    kept = {Path(p.checkpoint).name for p in points}
    for path in exports.iterdir():
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)
    points.sort(key=lambda p: p.latency.ratio)
    on = {p.key for p in points}
    others = {key: latency for key, latency in timed.others.items() if key not in on}
    return found.of(timed.model_copy(update={"points": tuple(points), "others": others}))


def _trainings(
    point: CertifiedPoint,
    timed: Sequence[CertifiedPoint],
    records: Sequence[TrialRecord],
    meets: Mapping[str, tuple[str, ...]],
) -> tuple[Training, ...]:
    """All trainings of a point's architecture, the shortest first, then by seed; nothing where there is one."""
    own = [(p, r) for p, r in zip(timed, records, strict=True) if p.number == point.number]
    return tuple(
        Training(
            seed=p.seed,
            finish_steps=p.finish_steps,
            key=p.key,
            checkpoint=str(r.checkpoint),
            share=p.latency.ratio,
            meets=meets[p.key],
            train_s=r.train_s,
            train_steps=r.train_steps,
            validation=p.validation,
        )
        for p, r in sorted(own, key=lambda pair: (pair[0].finish_steps, pair[0].seed))
        if len(own) > 1
    )
