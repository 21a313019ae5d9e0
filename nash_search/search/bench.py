"""The real bench: the only module of this room that loads models and data.

It joins the three rooms below for one trial and keeps what they know apart: the pruner trains on the task's
batches, the latency room times the result next to the dense model with the device to itself, the task scores it.

    pruner.run -> latency.measure -> quality.score -> weights, tokens, TrialRecord

Training steps and scored batches hold the device's guard in shared mode, so they wait while anybody times.
This module refuses to know studies, proposals and processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from nash_search import device, latency, pruner
from nash_search.config import Architecture, SearchConfig, Workload
from nash_search.errors import InvalidInput
from nash_search.latency import runtimes
from nash_search.latency import workload as workloads
from nash_search.records import CurvePoint, Latency, Quality, TrialRecord
from nash_search.search import manifest
from nash_search.search.stopping import reason_to_stop
from nash_search.search.trial import WEIGHTS, Hooks, Job
from nash_search.tasks.loading import load_task
from nash_search.tasks.quality import score
from nash_search.tasks.task import Task

PROTOCOL = 1
"""Raise when a trial's way of training, timing or scoring changes: records of before do not compare."""
TOKENS = "tokens.json"
TOKEN_ROWS = 64
"""Inputs on which an export must write the trained model's tokens."""
PROBE_PAIRS = 10
TRIAL_PAIRS = 16
"""Timed pairs of a probed shape and of a trained model; certification takes its own number."""
TRIAL_LIMIT_S = 120.0
RUNG_EXAMPLES = 512
"""Validation examples scored at a rung; the result is scored on all of them."""
TOGETHER_BYTES = 2**30
"""Weights held side by side while shapes are probed."""
CURVE = "curve.json"


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
    def folder(self) -> Path:
        """The dense model's folder."""
        if self.config.model is not None:
            return Path(self.config.model)
        import nash_search.tasks

        assert nash_search.tasks.__file__ is not None
        return Path(nash_search.tasks.__file__).parent / f"{self.config.task.name}_teacher"

    @cached_property
    def teacher(self) -> Any:
        """The dense model, in eval mode on the device."""
        found = pruner.load(self.folder).to(self.device.name).eval()
        found.generation_config.update(**self.task.generation)  # exports say how they were scored
        return found

    @cached_property
    def task(self) -> Task:
        """Data, metric and tokenizer."""
        from transformers import AutoTokenizer

        if not self.folder.is_dir():
            raise InvalidInput(f"model must be a folder with a fine-tuned model, but got {self.folder}")
        return load_task(self.config.task, AutoTokenizer.from_pretrained(self.folder))

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
        return len(pruner.shapes_of(self.teacher).decoder_blocks)

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
        """The dense model on the validation split."""
        if self._dense is None:
            self._dense = score(self.teacher, self.task, "validation", guard=self._guard)
        return self._dense

    # -- a trial ---------------------------------------------------------------------------------

    def train(self, job: Job, scratch: Path, hooks: Hooks) -> TrialRecord:
        """Train, cut, time and score one architecture."""
        torch.set_num_threads(job.train_threads)
        recipe, steps = job.config.recipe, job.config.recipe.narrow_steps + job.config.recipe.tune_steps
        curve = _read_curve(job.work)
        began = time.monotonic() - (curve[-1].train_s if curve else 0.0)
        quality: list[Quality] = []
        stopped: list[str] = []

        def on_rung(step: int, model: Any) -> bool:
            last = step >= steps
            found = score(model, self.task, "validation", limit=None if last else RUNG_EXAMPLES, guard=self._guard)
            if last:
                quality.append(found)
            curve.append(CurvePoint(step=step, value=found.value, train_s=time.monotonic() - began))
            manifest.write_atomic(job.work / CURVE, json.dumps([p.model_dump() for p in curve]))
            hooks.rung(job, step, found.value)
            if not job.config.early_stopping:
                return False
            why = reason_to_stop(
                job.share, curve, job.peers,
                margin=2 * 2**0.5 * found.standard_error, last_rung=last, maximize=found.direction == "maximize",
            )  # fmt: skip
            stopped.extend([why] if why else [])
            return why is not None

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
            )
        except pruner.Stopped as end:
            return TrialRecord(
                number=job.number, architecture=job.architecture, seed=job.seed, curve=tuple(curve),
                stages=end.stages, stopped=stopped[-1],
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
            curve=tuple(curve),
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
        rows = self.task.validation.first(TOKEN_ROWS).input_ids
        generation = self.task.generation
        with self._guard():
            return runtimes.runtime_of(self._workload).tokens(
                model, rows, beams=int(generation.get("num_beams", 1)),
                max_new_tokens=int(generation.get("max_new_tokens", self.task.max_output_tokens)),
            )  # fmt: skip

    # -- certification ---------------------------------------------------------------------------

    def dense_folder(self) -> Path:
        """The teacher's own folder."""
        return self.folder

    def time_fresh(self, folders: dict[str, Path], *, rounds: int, pairs: int, limit_s: float) -> dict[str, Latency]:
        """Exports timed in fresh processes."""
        return latency.measure_fresh(folders, self.folder, self._workload, rounds=rounds, pairs=pairs, limit_s=limit_s)

    def same_tokens(self, export: Path, trial: Path) -> bool:
        """Load the export and compare its tokens with those written when it was trained."""
        before = json.loads((trial / TOKENS).read_text("utf-8"))
        return bool(self._tokens(pruner.load(export).to(self.device.name)) == before)

    def test_quality(self, folder: Path) -> Quality:
        """A folder on the sealed test split."""
        model = pruner.load(folder).to(self.device.name)
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        return score(model, self.task, "test", guard=self._guard)


def _read_curve(work: Path) -> list[CurvePoint]:
    """The rungs passed before an interruption."""
    try:
        return [CurvePoint.model_validate(p) for p in json.loads((work / CURVE).read_text("utf-8"))]
    except (OSError, ValueError):
        return []
