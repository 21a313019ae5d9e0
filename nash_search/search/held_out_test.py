"""The one moment at which the sealed test split is opened: every budget has its winner, nothing is left to choose.

winners, all their seeds, the dense model -> one opening -> their qualities; winners -> best/<budget>/
"""

from __future__ import annotations

import shutil
from pathlib import Path

from nash_search.files import take_place
from nash_search.results import Answers
from nash_search.search.certify import write
from nash_search.storage import artifacts
from nash_search.trial.evaluator import Evaluator
from nash_search.trial.job import Say

BEST = "best"
DENSE = "dense"
"""The dense model among what is scored."""


def score(folder: Path, answers: Answers, evaluator: Evaluator, say: Say) -> Answers:
    """Score the winners, all their seeds and the dense model on the sealed test split, opened once for all of them.

    The opening is counted before it happens; what was scored before is not scored again. Winners get a second
    folder in `best/`.
    """
    found = answers.certification
    known, keys = found.tests(), {p.key for p in answers.winners.values()}
    paths: dict[str, Path] = {}
    for point in [p for p in found.points if p.key in keys]:
        paths |= {t.key: folder / t.checkpoint for t in point.alike} | {point.key: folder / point.checkpoint}
    wanted = {key: path for key, path in paths.items() if key not in known}
    if found.dense_test is None and found.points:
        wanted[DENSE] = evaluator.dense_folder()
    while wanted:
        say("test", {"models": len(wanted)})
        found = found.model_copy(update={"opened": found.opened + 1})
        write(folder, found)
        tests = evaluator.test_quality(wanted)
        data = {quality.data for quality in tests.values()}
        found = found.model_copy(update={"dense_test": tests.pop(DENSE, found.dense_test)})
        known = {key: quality for key, quality in (known | tests).items() if quality.data in data or key in paths}
        found = found.with_tests(known)
        write(folder, found)
        # scores of another test split, which was edited since, compare with none of today's
        wanted = {key: paths[key] for key, quality in known.items() if quality.data not in data}
        if found.dense_test is not None and found.dense_test.data not in data:
            wanted[DENSE] = evaluator.dense_folder()
    place(folder, answers)
    return answers.of(found)


def place(folder: Path, answers: Answers) -> None:
    """Copy (hard-link) every winner to `best/<budget>`, and delete that of a budget without a winner."""
    (folder / BEST).mkdir(exist_ok=True)
    for name, point in answers.winners.items():
        scratch, target = folder / BEST / f".tmp-{name}", folder / BEST / name
        shutil.rmtree(scratch, ignore_errors=True)
        artifacts.second(folder / point.checkpoint, scratch)
        take_place(scratch, target, durable=False)
    for budget in answers.terms.budgets:  # a copy of an earlier answer that no longer holds
        if budget.folder not in answers.winners:
            shutil.rmtree(folder / BEST / budget.folder, ignore_errors=True)
