"""The real bench: the only module of this room that loads models and data.

It joins the three rooms below for one trial and keeps what they know apart: the pruner trains on the task's
batches, the latency room times the result next to the dense model with the device to itself, the task scores it.

    pruner.run -> latency.measure -> quality.score -> weights, tokens, TrialRecord

Training steps and scored batches hold the device's guard in shared mode, so they wait while anybody times.
This module refuses to know studies, proposals and processes.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import os
import time
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from nash_search import device, latency, pruner
from nash_search.config import Architecture, LatencyBudget, SearchConfig, Workload
from nash_search.errors import InvalidInput
from nash_search.latency import fresh, identity, runtimes
from nash_search.latency import workload as workloads
from nash_search.records import Latency, Quality, TrialRecord
from nash_search.search import manifest
from nash_search.search.curve import Curve
from nash_search.search.trial import TEACHER_OUTPUTS, WEIGHTS, Hooks, Job
from nash_search.tasks import models
from nash_search.tasks.g2p import teacher_folder
from nash_search.tasks.known import check_finetuned
from nash_search.tasks.loading import EMBEDDED, load_task
from nash_search.tasks.quality import score
from nash_search.tasks.task import Task

PROTOCOL = 2
"""Raise when a trial's way of training, timing or scoring changes: records of before do not compare."""
TOKENS = "tokens.json"
PROBE_PAIRS = 10
TRIAL_PAIRS = 16
"""Timed pairs of a probed shape and of a trained model; certification takes its own number."""
TRIAL_LIMIT_S = 120.0
RUNG_EXAMPLES = 512
"""Validation examples scored at a rung; the result is scored on all of them."""
TOP_TOKENS = 16
"""Of the teacher's distribution per position, remembered for the trials that come later."""
TOGETHER_BYTES = 2**30
"""Weights held side by side while shapes are probed."""


class NashBench:
    """A task, its dense model and a device."""

    def __init__(self, config: SearchConfig) -> None:
        self.config = config
        self._dense: Quality | None = None

    @cached_property
    def device(self) -> Any:
        """Where training and timing happen."""
        return device.resolve(self.config.workload.device)

    @cached_property
    def found(self) -> models.ModelFolder:
        """The dense model's folder, vetted: the one asked for, or the teacher shipped with the task."""
        if self.config.model is not None:
            return models.find_model(self.config.model, self.config.revision)
        if self.config.task.name not in EMBEDDED:
            raise InvalidInput("your own data needs your own model, but got none", where="--model", fix="give --model")
        return models.vet(teacher_folder())

    @property
    def folder(self) -> Path:
        """Where the dense model lies."""
        return self.found.folder

    @cached_property
    def teacher(self) -> Any:
        """The dense model, in eval mode on the device."""
        found = pruner.load(self.folder).to(self.device.name).eval()
        found.generation_config.update(**self.task.generation)  # exports say how they were scored
        return found

    @cached_property
    def task(self) -> Task:
        """Data, metric and tokenizer."""
        tokenizer = models.load_tokenizer(self.found)
        found = load_task(self.config.task, tokenizer, models.generation_settings(self.found))
        return_memory()
        return found

    # -- the question ----------------------------------------------------------------------------

    @cached_property
    def _facts(self) -> dict[str, Any]:
        seen = hashlib.sha256()
        for path in sorted(self.folder.glob("*.safetensors")) + [self.folder / "config.json"]:
            seen.update(path.name.encode() + manifest.sha256(path).encode())
        return {
            "model": seen.hexdigest()[:16],
            "data": {"train": self.task.train.fingerprint, "validation": self.task.validation.fingerprint},
            "protocol": {"trial": PROTOCOL, "latency": workloads.PROTOCOL},
        }

    def facts(self) -> dict[str, Any]:
        """Digests of model and data, versions of protocols."""
        return self._facts

    def decoder_layers(self) -> int:
        """Decoder depth of the dense model."""
        return self.found.decoder_layers

    @cached_property
    def _workload(self) -> Workload:
        return workloads.resolve(
            self.config.workload,
            input_tokens=self.task.input_tokens,
            output_tokens=self.task.output_tokens,
            batch_size=self.task.batch_size,
            beams=int(self.task.generation.get("num_beams", 1)),
            device=self.device.name,
        )

    def workload(self) -> Workload:
        """The resolved call that is timed."""
        return self._workload

    @cached_property
    def _fingerprint(self) -> dict[str, Any]:
        return runtimes.fingerprint(self.device, self._workload)

    def fingerprint_hash(self) -> str:
        """Identity of device and software."""
        return str(self._fingerprint["hash"])

    def _guard(self) -> AbstractContextManager[Any]:
        return device.training_guard(self.device.name)

    # -- before training -------------------------------------------------------------------------

    def probe(self, shapes: list[Architecture], limit_s: float) -> dict[Architecture, Latency]:
        """Random-weight models of these shapes, as many side by side as memory allows."""
        weights_bytes = sum(p.numel() * p.element_size() for p in self.teacher.parameters())
        together = max(1, min(len(shapes), TOGETHER_BYTES // max(1, weights_bytes)))
        began = time.monotonic()
        found: dict[Architecture, Latency] = {}
        for start in range(0, len(shapes), together):
            group = shapes[start : start + together]
            left_s = limit_s - (time.monotonic() - began)
            groups_left = -(-(len(shapes) - start) // together)
            models = {a.slug: pruner.random_cut(self.teacher, a, seed=0) for a in group}
            taken = latency.measure_many(
                models, self.teacher, self._workload, pairs=PROBE_PAIRS, limit_s=left_s / groups_left, details=False
            )
            found |= {a: taken[a.slug] for a in group}
        return found

    def dense_quality(self) -> Quality:
        """The dense model on the validation split; a model of the user's must know the data."""
        if self._dense is None:
            if self.config.model is not None:
                fix = f"nash-search finetune --model {self.config.model} --output DIR with the same data, then DIR"
                check_finetuned(self.teacher, self.task, fix=fix, guard=self._guard)
            self._dense = score(self.teacher, self.task, "validation", guard=self._guard)
        return self._dense

    # -- a trial ---------------------------------------------------------------------------------

    def train(self, job: Job, scratch: Path, hooks: Hooks) -> TrialRecord:
        """Train, cut, time and score one architecture."""
        torch.set_num_threads(job.train_threads)
        recipe, steps = job.config.recipe, job.config.recipe.narrow_steps + job.config.recipe.tune_steps
        curve, quality = Curve(job, hooks), list[Quality]()

        def on_rung(step: int, model: Any) -> bool:
            last = step >= steps
            found = score(model, self.task, "validation", limit=None if last else RUNG_EXAMPLES, guard=self._guard)
            if last:
                quality.append(found)
            return curve.add(step, found, last=last)

        job.work.mkdir(parents=True, exist_ok=True)
        try:
            pruned = pruner.run(
                self.teacher,
                job.architecture,
                recipe,
                self.task.train_batches(recipe.batch_size, job.seed),
                seed=job.seed,
                device=self.device.name,
                step_guard=self._guard,
                on_progress=lambda stage, step, total, loss: hooks.progress(job, stage, step, total, loss),
                on_rung=on_rung,
                folder=job.work,
                teacher_outputs=pruner.TeacherOutputs(folder=Path(job.folder) / TEACHER_OUTPUTS, k=TOP_TOKENS),
            )
        except pruner.Stopped as end:
            return TrialRecord(
                number=job.number, architecture=job.architecture, seed=job.seed, curve=curve.points,
                stages=end.stages, stopped=curve.stopped,
            )  # fmt: skip
        model = pruned.model.eval()
        hooks.progress(job, "timing", steps, steps, 0.0)
        taken = latency.measure(model, self.teacher, self._workload, pairs=TRIAL_PAIRS, limit_s=TRIAL_LIMIT_S)
        if not quality:  # the last rung was passed before an interruption
            quality.append(score(model, self.task, "validation", guard=self._guard))
        self._save(model, scratch)
        return TrialRecord(
            number=job.number,
            architecture=job.architecture,
            seed=job.seed,
            shapes=pruned.shapes,
            latency=taken,
            quality=quality[-1],
            curve=curve.points,
            parameters=sum(p.numel() for p in model.parameters()),
            sparsity_expected=pruned.sparsity_expected,
            sparsity_counted=pruned.sparsity_counted,
            pruning=pruned.pruning,
            checkpoint=WEIGHTS,
            stages=pruned.stages,
        )

    def take_dense(self, job: Job, scratch: Path) -> TrialRecord:
        """The dense model as it is, timed next to itself."""
        taken = latency.measure(self.teacher, self.teacher, self._workload, pairs=TRIAL_PAIRS, limit_s=TRIAL_LIMIT_S)
        self._save(self.teacher, scratch)
        return TrialRecord(
            number=job.number,
            architecture=job.architecture,
            seed=job.seed,
            shapes=pruner.shapes_of(self.teacher),
            latency=taken,
            quality=self.dense_quality(),
            parameters=sum(p.numel() for p in self.teacher.parameters()),
            sparsity_expected=0.0,
            sparsity_counted=0.0,
            checkpoint=WEIGHTS,
        )

    def _save(self, model: Any, scratch: Path) -> None:
        model.generation_config = self.teacher.generation_config
        pruner.save(model, scratch / WEIGHTS, tokenizer=self.task.tokenizer)
        (scratch / TOKENS).write_text(json.dumps(self._tokens(model)), "utf-8")

    def _tokens(self, model: Any) -> list[list[int]]:
        """What a model writes on the first validation inputs, token for token."""
        with self._guard():
            return identity.tokens_of(model, self._rows, self._plain, max_new_tokens=self._longest)

    @property
    def _rows(self) -> list[list[int]]:
        return self.task.validation.first(identity.INPUTS).input_ids

    @property
    def _longest(self) -> int:
        return int(self.task.generation.get("max_new_tokens", self.task.max_output_tokens))

    @property
    def _plain(self) -> Workload:
        """The workload in the precision and runtime that models are trained and scored in."""
        plain = {"dtype": "float32", "runtime": "eager", "quantize": "none"}
        return Workload(**(self._workload.model_dump() | plain))

    # -- certification ---------------------------------------------------------------------------

    def dense_folder(self) -> Path:
        """The teacher's own folder."""
        return self.folder

    def time_fresh(
        self,
        folders: dict[str, Path],
        budgets: dict[str, list[LatencyBudget]],
        *,
        rounds: int,
        pairs: int,
        limit_s: float,
    ) -> dict[str, Latency]:
        """Exports timed in fresh processes."""
        timing: dict[str, Any] = {"rounds": rounds, "pairs": pairs, "limit_s": limit_s, "budgets": budgets}
        return fresh.measure_fresh(folders, self.folder, self._workload, **timing)

    def same_tokens(self, exports: dict[str, Path], trials: dict[str, Path]) -> dict[str, bool]:
        """Let the exports write in a fresh process and compare with what was written when they were trained."""
        written = fresh.fresh_tokens(exports, self._rows, self._plain, max_new_tokens=self._longest)
        before = {name: json.loads((trial / TOKENS).read_text("utf-8")) for name, trial in trials.items()}
        return {name: identity.differing(before[name], written[name]) == 0 for name in exports}

    def test_quality(self, folder: Path) -> Quality:
        """A folder on the sealed test split."""
        model = pruner.load(folder).to(self.device.name)
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        return score(model, self.task, "test", guard=self._guard)


def return_memory() -> None:
    """Give freed memory back to the system: tokenizing leaves 200 MB of holes, in every worker."""
    gc.collect()
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)
