"""A study's teacher with a smaller vocabulary: chosen from train, written once, weighed against the one given.

    train -> kept tokens -> tokenizer, teacher      the same in every process: nothing here is random
    STUDY/teacher/                                  what fresh processes and readers load
    STUDY/vocabulary.json                           what trimming gained, and what it cost

The trimmed teacher *is* the study's dense model: shares, speed-ups and the quality floor refer to it. A budget
in percent of the teacher as it was given would credit pruning with what trimming did; so trimming's own gain
is stated by itself and multiplied into nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from nash_search import pruner
from nash_search.config import TaskConfig, digest
from nash_search.files import write_atomic
from nash_search.latency_record import Latency
from nash_search.plain_json import kept_object
from nash_search.pruner.vocabulary import named_ids
from nash_search.records import Quality
from nash_search.storage import artifacts
from nash_search.tasks import exported, models
from nash_search.tasks.load import load_task
from nash_search.tasks.task import Examples, Task
from nash_search.tasks.vocabulary import kept_tokens, lost_tokens, trim_tokenizer

TEACHER = "teacher"
FILE = "vocabulary.json"

Weigh = Callable[[Any, Task | None], tuple[Latency, Quality | None]]
"""The teacher and the task as they were given -> the study's dense model timed next to it, and its validation quality
(None: without its task)."""


class Trimming:
    """Which tokens stay, and the teacher and tokenizer that have only these."""

    def __init__(self, found: models.ModelFolder, config: TaskConfig, generation: Mapping[str, Any]) -> None:
        self._found, self._config, self._generation = found, config, generation
        given, tokenizer = pruner.load(found.folder), models.load_tokenizer(found)
        self.whole = int(given.config.vocab_size)
        self.kept_ids: Sequence[int] = kept_tokens(tokenizer, self.given_task().train, also=named_ids(given))
        self.tokenizer = trim_tokenizer(tokenizer, self.kept_ids)
        self.teacher = pruner.trim_vocabulary(given, self.kept_ids)

    def given_task(self) -> Task:
        """The task with the whole vocabulary."""
        tokenizer = models.load_tokenizer(self._found)
        return load_task(self._config, tokenizer, self._generation)

    @cached_property
    def digest(self) -> str:
        """Identity of the choice."""
        return digest(list(self.kept_ids))[:16]

    def keep(self, study: Path, teacher: Any) -> Path:
        """The trimmed teacher's folder in the study, written unless it lies there whole."""
        return keep_teacher(study, teacher, {"vocabulary": self.digest}, tokenizer=self.tokenizer)

    def report(self, study: Path, weigh: Weigh, quality: Callable[[], Quality], validation: Examples) -> dict[str, Any]:
        """What trimming gained and cost, from the study's file where it stands there.

        Args:
            study: the study's folder.
            weigh: times and scores the teacher as it was given; called once per study.
            quality: the trimmed teacher's, on validation.
            validation: the split whose lost tokens are counted.
        """
        known = read(study)
        if known is not None and known["digest"] == self.digest:
            return known
        given, whole = pruner.load(self._found.folder), self.given_task()
        exported.carry(given, whole)
        after = quality()
        latency, before = weigh(given, whole)
        assert before is not None
        low, high = latency.ratio_bounds
        return _write(
            study,
            {
                "digest": self.digest,
                "kept": len(self.kept_ids),
                "of": self.whole,
                "parameters": _parameters(self.teacher),
                "given_parameters": _parameters(given),
                "share": latency.ratio,
                "share_bounds": [low, high],
                "metric": after.metric,
                "quality": after.value,
                "given_quality": before.value,
                "lost": {"validation": self._lost(validation)},
            },
        )

    def report_test(self, study: Path, open_test: Callable[[], Examples]) -> dict[str, Any]:
        """The report with what the sealed test split lost; asked once that split has been opened."""
        known = read(study) or {}
        if "test" not in known["lost"]:
            known["lost"]["test"] = self._lost(open_test())
            _write(study, known)
        return known

    def _lost(self, split: Examples) -> dict[str, float]:
        return lost_tokens(models.load_tokenizer(self._found), self.tokenizer, self.kept_ids, split).document()


def keep_teacher(study: Path, teacher: Any, identity: Mapping[str, Any], **beside: Any) -> Path:
    """A dense model that lies in no folder of the user's as it is searched: the study's own, written once.

    Args:
        study: the study's folder.
        teacher: the model.
        identity: what it is known by.
        beside: tokenizer and extractor, saved with it.
    """
    place = study / TEACHER
    known = artifacts.read(place, deep=False)
    if known is None or any(known.get(name) != value for name, value in identity.items()):
        scratch = study / f".{TEACHER}.tmp"
        for path in (scratch, place):
            shutil.rmtree(path, ignore_errors=True)
        pruner.save(teacher, scratch, **beside)
        artifacts.commit(scratch, place, dict(identity))
    return place.resolve()


def read(study: Path) -> dict[str, Any] | None:
    """The study's report on its vocabulary; None where nothing was trimmed."""
    return kept_object(study / FILE)


def _write(study: Path, found: dict[str, Any]) -> dict[str, Any]:
    low, high = found["share_bounds"]
    plain = found | {"share_bounds": [x if abs(x) < float("inf") else None for x in (low, high)]}
    write_atomic(study / FILE, json.dumps(plain, indent=1))
    return plain


def _parameters(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())
