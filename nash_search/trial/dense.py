"""The dense model of a search: found and vetted, its vocabulary trimmed where that was asked for, with its task.

Everything a search says about "the dense model" refers to `teacher` here.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nash_search import pruner
from nash_search.config import EMBEDDED, SearchConfig
from nash_search.errors import InvalidInput
from nash_search.families import FAMILIES
from nash_search.records import Quality
from nash_search.storage import artifacts
from nash_search.tasks import exported, models
from nash_search.tasks.g2p import teacher_folder
from nash_search.tasks.load import load_task, task_of_model
from nash_search.tasks.task import Task
from nash_search.trial import window
from nash_search.trial.vocabulary import Trimming, Weigh, keep_teacher

BESIDE_WEIGHTS = (
    "generation_config.json",
    "*token*.json",
    "*vocab*",
    "*.model",
    "*.spm",
    "merges.txt",
    "*processor*.json",
    "normalizer.json",
)
"""Files of a model's folder that say how it reads and writes: generation settings, tokenizer, feature extractor."""


class Dense:
    """The model that a search prunes, and the task it was fine-tuned for."""

    def __init__(self, config: SearchConfig) -> None:
        self.config = config
        self._kept_folder: Path | None = None

    @cached_property
    def found(self) -> models.ModelFolder:
        """The given model's folder, vetted: the one asked for, or the teacher shipped with the task."""
        if self.config.model is None and self.config.task.name not in EMBEDDED:
            raise InvalidInput("your own data needs your own model, but got none", where="--model", fix="give --model")
        if self.config.model is None:
            found = models.vet(teacher_folder())
        else:
            found = models.find_model(self.config.model, self.config.revision)
        if self.config.format == "stock":
            self._check_stock(found)
        if self.config.recipe.labels != "data" and not FAMILIES[found.model_type].answers_are_labels:
            rule = "labels teacher must have a family whose answers can be labels"
            raise InvalidInput(f"{rule}, but got {found.model_type}", where="recipe.labels", fix="set labels: data")
        return found

    def _check_stock(self, found: models.ModelFolder) -> None:
        """Refuse `format: stock` where the family's own config cannot express every shape of the search space."""
        rule, where = "format stock must be able to say every shape of the search", "--format"
        if found.ours:
            raise InvalidInput(f"{rule}, but got a model that is narrow already", where=where, fix="use --format auto")
        if (
            FAMILIES[found.model_type].layout.encoder_ffn_key is None
            and max(self.config.search_space.sparsities_pct) > 0
        ):
            raise InvalidInput(
                f"{rule}, but got narrow encoders of {found.model_type}",
                where=where,
                fix="set search_space.encoder_sparsity_pct: [0, 0, 10] in --config, or use --format auto",
            )

    @contextmanager
    def placed(self) -> Iterator[Path]:
        """A checkpoint folder that holds exactly `teacher`: an existing one, or a temporary copy until one is kept."""
        if self._kept_folder is not None or (self.trimming is None and self.task.speech is None):
            yield self.folder
            return
        with tempfile.TemporaryDirectory(prefix="nash-search-dense-") as folder:
            pruner.save(self.teacher, folder, tokenizer=self.task.tokenizer, extractor=self.task.extractor)
            yield Path(folder)

    @property
    def folder(self) -> Path:
        """The checkpoint folder: the given one, or the study's own once `keep_dense` has written it."""
        return self._kept_folder or self.found.folder

    @cached_property
    def trimming(self) -> Trimming | None:
        """The smaller vocabulary, where one was asked for."""
        return Trimming(self.found, self.config.task, self._generation) if self.config.trim_vocab else None

    @property
    def _generation(self) -> dict[str, Any]:
        """The model's own decoding settings, with the beams that the workload asks for: what is timed is scored."""
        return models.generation_settings(self.found, self.config.workload.beams)

    @cached_property
    def task(self) -> Task:
        """Data, metric and tokenizer."""
        if self.trimming is None:
            found = task_of_model(self.found, self.config.task, self.config.workload.beams)
        else:
            found = load_task(self.config.task, self.trimming.tokenizer, self._generation)
        return_memory()
        return replace(found, notes=(*found.notes, *exported.generation_notes(self.found, found)))

    @cached_property
    def teacher(self) -> Any:
        """The model, in eval mode; with a trimmed vocabulary where that was asked for."""
        found = pruner.load(self.folder) if self.trimming is None else self.trimming.teacher
        if self.task.speech is not None:
            found = pruner.cut_window(found, self.task.speech.settings.positions)
            if max(self.config.search_space.sparsities_pct) == 0:  # its depth alone is searched
                found.get_encoder().requires_grad_(False)
        exported.complete(found, self.task.tokenizer)
        exported.carry(found, self.task)
        self._check_sparsity(found)
        return found

    def _check_sparsity(self, teacher: Any) -> None:
        """Refuse a sparsity that this encoder cannot reach (heads that stay, uniform widths): trials would fail."""
        asked, recipe = max(self.config.search_space.sparsities_pct), self.config.recipe
        stay = FAMILIES[self.found.model_type].heads_stay
        largest = (
            pruner.largest_sparsity_pct(teacher, recipe) if asked > 0 and (recipe.widths == "uniform" or stay) else 100
        )
        if asked > largest:
            why = "whose heads stay" if stay else "with widths uniform"
            rule = f"encoder_sparsity_pct must be at most {largest} (this encoder {why})"
            raise InvalidInput(
                f"{rule}, but got {asked}",
                where="search_space",
                fix=f"set encoder_sparsity_pct: [0, {largest // 10 * 10}, 10] in --config",
            )

    @cached_property
    def digest(self) -> str:
        """Identity of its weights, its config and its vocabulary."""
        seen, folder = hashlib.sha256(), self.found.folder
        for path in sorted(folder.glob("*.safetensors")) + [folder / "config.json"]:
            seen.update(path.name.encode() + artifacts.sha256(path).encode())
        if self.trimming is not None:
            seen.update(self.trimming.digest.encode())
        return seen.hexdigest()[:16]

    @cached_property
    def digests(self) -> dict[str, str]:
        """Identity of the model, and of how it reads and writes (`BESIDE_WEIGHTS`)."""
        folder, seen = self.found.folder, hashlib.sha256()
        for path in sorted({path for pattern in BESIDE_WEIGHTS for path in folder.glob(pattern)}):
            seen.update(path.name.encode() + artifacts.sha256(path).encode())
        return {"model": self.digest, "model_files": seen.hexdigest()[:16]}

    def keep_dense(
        self, study: Path, weigh: Weigh, quality: Callable[[], Quality], *, opened: bool
    ) -> dict[str, Any] | None:
        """Keep a teacher that is not as it was given in the study's folder and use it from there.

        That is a trimmed one, and one that hears: fresh processes must find its window, and a language without which
        it would listen for one at every call. Returns what trimming gained and cost; what a shorter window gained is
        `window.read`'s.
        """
        if self.trimming is None:
            if self.task.speech is not None:
                settings, files = self.task.speech.settings, {"tokenizer": self.task.tokenizer}
                told = {"model": self.digest, "positions": settings.positions, "prompt": list(settings.prompt)}
                self._kept_folder = keep_teacher(study, self.teacher, told, extractor=self.task.extractor, **files)
                window.weigh(study, settings, self.task, self.digest, lambda given: weigh(given, None)[0])
            return None
        self._kept_folder = self.trimming.keep(study, self.teacher)
        found = self.trimming.report(study, weigh, quality, self.task.validation)
        return self.trimming.report_test(study, self.task.open_sealed_test) if opened else found


def return_memory() -> None:
    """Give freed memory back to the system: tokenizing leaves 200 MB of holes, in every worker."""
    gc.collect()
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)
