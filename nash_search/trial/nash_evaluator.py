"""The real evaluator: the only module of this room that loads models and data.

It joins the three rooms below for one trial and keeps what they know apart: the pruner trains on the task's
batches, the latency room times the result next to the dense model with the device to itself, the task scores it.

    pruner.run -> weights, an engine's artefact -> latency.measure -> quality -> TrialRecord

Training steps and scored batches hold the device's guard in shared mode, so they wait while anybody times.
"""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from nash_search import device, latency, loading, pruner
from nash_search.config import Architecture, LatencyBudget, SearchConfig, Workload
from nash_search.families import FAMILIES
from nash_search.fidelity import Fidelity
from nash_search.latency import fresh, runtimes
from nash_search.latency import workload as workloads
from nash_search.latency.cache import LatencyCache
from nash_search.latency_record import Latency
from nash_search.pruner import memory
from nash_search.records import Quality, TrialRecord
from nash_search.storage.artifacts import WEIGHTS
from nash_search.summary_rows import DataFacts
from nash_search.tasks import traffic
from nash_search.tasks.dense_check import check_finetuned
from nash_search.tasks.scoring import score
from nash_search.tasks.task import Task
from nash_search.trial import dense_engines, probing, shared_training, short_training
from nash_search.trial.cost import TrialCost
from nash_search.trial.curve import Curve
from nash_search.trial.dense import Dense
from nash_search.trial.deployment import Deployment
from nash_search.trial.engines import Engines
from nash_search.trial.job import Hooks, Job, Say, check_free

PROTOCOL = 4
"""Raise when a trial's way of training, timing or scoring changes: records of before do not compare."""
PAIRS, REQUESTS = (10, 16), (32, 48)
"""Timed pairs of a probed shape and of a trained model, or requests of a traffic; certification has its own number."""
TRIAL_LIMIT_S = 120.0
RUNG_EXAMPLES = 512
"""Validation examples scored at a rung; the result is scored on all of them."""


class NashEvaluator:
    """A task, its dense model and a device."""

    def __init__(self, config: SearchConfig) -> None:
        recipe = config.recipe.on(device.resolve(config.workload.device).name)
        self.config = config = config.model_copy(update={"recipe": recipe})
        self._quality: Quality | None = None
        self._scored_s = 0.0
        self.dense = Dense(config)
        self._probe_pairs, self._trial_pairs = REQUESTS if config.of_requests else PAIRS

    @cached_property
    def device(self) -> Any:
        """Where training and timing happen."""
        return device.resolve(self.config.workload.device)

    @cached_property
    def teacher(self) -> Any:
        """The dense model, in eval mode on the device."""
        return self.dense.teacher.to(self.device.name).eval()

    @property
    def task(self) -> Task:
        """Data, metric and tokenizer."""
        return self.dense.task

    @cached_property
    def _facts(self) -> dict[str, Any]:
        return {
            **self.dense.digests,
            "data": {"train": self.task.train.fingerprint, "validation": self.task.validation.fingerprint},
            "protocol": {"trial": PROTOCOL, "latency": workloads.PROTOCOL},
        }

    def facts(self) -> dict[str, Any]:
        """Digests of model and data, versions of protocols."""
        return self._facts

    def notes(self) -> tuple[str, ...]:
        """What to say before anything is spent: what the task decided, training's precision, misread stock exports."""
        found, precision = list(self.task.notes), self.config.recipe.precision
        if precision == "auto" and pruner.in_bf16(precision, self.dense.teacher, torch.device(self.device.name)):
            found.append("training multiplies in bfloat16, which is faster here; weights stay whole")
        misread = FAMILIES[self.dense.found.model_type].misread
        if self.config.format == "stock" and misread and max(self.config.search_space.sparsities_pct) > 0:
            found.append(misread)
        return tuple(found)

    def data(self) -> DataFacts | None:
        """Rows of the user's splits, and what was dropped from them."""
        return self.task.data

    def inputs(self) -> dict[str, Any]:
        """How the task makes an input of a text, or of a recording."""
        if self.task.speech is None:
            return {"prefix": self.task.prefix, "max_tokens": self.task.max_input_tokens}
        settings = self.task.speech.settings
        return {"audio_seconds": settings.seconds, "rate": settings.rate, "clip_seconds": self.task.clip_seconds}

    def decoder_layers(self) -> int:
        """Decoder depth of the dense model."""
        return self.dense.found.decoder_layers

    def answers_are_labels(self) -> bool:
        """A property of the family."""
        return FAMILIES[self.dense.found.model_type].answers_are_labels

    @cached_property
    def _workload(self) -> Workload:
        task, beams = self.task, int(self.task.generation.get("num_beams", 1))
        sizes = {"input_tokens": task.input_tokens, "output_tokens": task.output_tokens, "batch_size": task.batch_size}
        call = workloads.resolve(self.config.workload, **sizes, beams=beams, device=self.device.name)
        return workloads.of_traffic(call, traffic.of_search(self.config, task, self.dense.found.config))

    def workload(self) -> Workload:
        """The resolved call that is timed."""
        return self._workload

    @cached_property
    def _fingerprint(self) -> dict[str, Any]:
        return runtimes.fingerprint(self.device, self._workload)

    def fingerprint(self) -> dict[str, Any]:
        """Device and software, `hash` their identity."""
        return self._fingerprint

    def _guard(self) -> AbstractContextManager[Any]:
        return device.training_guard(self.device.name)

    @cached_property
    def _deployment(self) -> Deployment:
        return Deployment(self._workload, self.task, self._guard)

    @cached_property
    def _dense_served(self) -> Any:
        """The dense model as the runtime serves it."""
        return self._deployment.served(self.teacher)

    def probe(
        self, shapes: list[Architecture], limit_s: float, known: Path, *, again: bool = False
    ) -> dict[Architecture, Latency]:
        """Time random-weight models of these shapes, as many side by side as fit; known ones only if `again`."""
        call, multiple = self._workload, self.config.recipe.width_multiple
        timing = {"pairs": self._probe_pairs, "again": again}
        return probing.probed(
            self.teacher, self._dense_served, call, shapes, LatencyCache(known), limit_s, multiple, timing
        )

    def dense_quality(self) -> Quality:
        """The dense model on the validation split; the user's must know the data, and survive its precision."""
        if self._quality is None:
            if self.config.model is not None:
                fix = f"nash-search finetune --model {self.config.model} --output DIR with the same data, then DIR"
                check_finetuned(self.teacher, self.task, fix=fix, guard=self._guard)
            self._deployment.check_dense(self.teacher, self._dense_served)
            began = time.monotonic()
            self._quality = self._deployment.yardstick(self.teacher, self._dense_served, "validation")
            self._scored_s = time.monotonic() - began
        return self._quality

    def check_export(self, beside: Path) -> None:
        """Write the dense model as an export and read it back."""
        pruner.check_export(self.teacher, beside, self.config.format, self.task.tokenizer, self.task.extractor)

    def dense_on_engines(self, dense_ms: float, known: Path, say: Say) -> Engines:
        """The dense model on every other engine installed here."""
        facts = (self.facts(), self.fingerprint())
        return dense_engines.tried_or_known(self.dense, self._workload, facts, dense_ms, known, say, self._guard)

    def keep_dense(self, study: Path, *, opened: bool = False) -> dict[str, Any] | None:
        """Keep a trimmed teacher or a shorter window in the study; what trimming gained and cost."""
        return self.dense.keep_dense(study, self._weigh, self.dense_quality, opened=opened)

    def _weigh(self, given: Any, whole: Task | None) -> tuple[Latency, Quality | None]:
        """The dense model timed next to the one it was made of, and that one's quality where its task is given."""
        deployment = Deployment(self._workload, whole or self.task, self._guard)
        served = deployment.served(given.to(self.device.name), own_rows=whole is not None)
        return self._timed(self._dense_served, served), deployment.score(served, "validation") if whole else None

    def trial_cost(self, config: SearchConfig, architecture: Architecture, threads: int, limit_s: float) -> TrialCost:
        """From a step or more of each stage, under the guard, and from how long the dense model's scoring took."""
        torch.set_num_threads(threads)
        scorings = (config.recipe.rungs - 1) * min(1.0, RUNG_EXAMPLES / max(1, len(self.task.validation))) + 1
        teacher, half = self._taught_by(architecture)
        context = pruner.TrainingContext(device=self.device.name, step_guard=self._guard, half_teacher=half)
        given = (teacher, self.task, architecture, config, context, limit_s)
        (train_s, how), held = self.device.most_bytes(lambda: shared_training.training_s(*given))
        self.device.release()
        known = {"pairs": self._trial_pairs, "how": how, "memory_bytes": held}
        return TrialCost(train_s=train_s, score_s=scorings * self._scored_s, **known)

    def _taught_by(self, architecture: Architecture) -> tuple[Any, bool]:
        """The dense model, and whether training copies it in half precision: then it waits on the host."""
        alone = self.config.recipe.narrowing != "shared"
        if not alone or not memory.must_halve(self.dense.teacher, architecture.decoder_layers, self.device):
            return self.teacher, False
        self.release()
        return self.dense.teacher, True

    def train(self, job: Job, scratch: Path, hooks: Hooks) -> TrialRecord:
        """Train, cut, time and score one architecture."""
        torch.set_num_threads(job.train_threads)
        recipe, steps = job.config.recipe, job.config.recipe.trial_steps
        curve, quality = Curve(job), list[Quality]()

        def on_rung(step: int, model: Any) -> None:
            if step >= steps and not self._deployment.by_engine:  # an engine's own outputs are scored at the end
                quality.append(self._deployment.score(model, "validation"))
            curve.add(step, quality[-1] if quality else self._at_rung(model))

        job.work.mkdir(parents=True, exist_ok=True)
        check_free(job.work, sum(p.numel() * p.element_size() for p in self.teacher.parameters()))
        data = self.task.train_batches(recipe.batch_size, job.seed)
        context = short_training.training_context(job, hooks, self.device.name, self._guard, on_rung)
        teacher, half = self._taught_by(job.architecture)
        context = replace(context, half_teacher=half)
        start = shared_training.start(job, teacher, self.decoder_layers(), data, context, self._at_rung)
        pruned = pruner.run(teacher, job.architecture, recipe, data, context, shared=start.shared)
        model = pruned.model.eval()
        self.device.release()  # the optimizer's, before models are timed side by side
        hooks.progress(job, "timing", steps, steps, 0.0)
        served = self._save(model, scratch)
        taken = self._timed(served, self._dense_served)
        if not quality:  # an engine's, or the last rung was passed before an interruption
            quality.append(self._deployment.score(served, "validation"))
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
            pruning=pruned.pruning | start.pruning,
            checkpoint=WEIGHTS,
            stages=start.stages | pruned.stages,
        )

    def train_short(self, job: Job, hooks: Hooks) -> TrialRecord:
        """For a calibration."""
        return short_training.trained(job, hooks, self.teacher, self.task, self.device.name, self._guard)

    def _at_rung(self, model: Any) -> Quality:
        return score(model, self.task, "validation", limit=RUNG_EXAMPLES, guard=self._guard)

    def _timed(self, served: Any, reference: Any) -> Latency:
        """One model next to another, in this process, with the device to itself."""
        found = latency.measure(served, reference, self._workload, pairs=self._trial_pairs, limit_s=TRIAL_LIMIT_S)
        return found.at(self.config.percentile)

    def take_dense(self, job: Job, scratch: Path) -> TrialRecord:
        """The dense model as it is, timed next to itself."""
        served = self._save(self.teacher, scratch)
        taken = self._timed(served, self._dense_served)
        own = self._deployment.score(served, "validation") if self._deployment.quantised else self.dense_quality()
        return TrialRecord(
            number=job.number, architecture=job.architecture, seed=job.seed, shapes=pruner.shapes_of(self.teacher),
            latency=taken, quality=own,
            parameters=sum(p.numel() for p in self.teacher.parameters()),
            sparsity_expected=0.0, sparsity_counted=0.0, checkpoint=WEIGHTS,
        )  # fmt: skip

    def _save(self, model: Any, scratch: Path) -> Any:
        """Weights in their served precision, an engine's artefact beside them, and what both write.

        Returns what the runtime serves from there: that is timed and, unless it was before, scored.
        """
        model = loading.in_precision(model, self._workload.weights_dtype)
        model.generation_config = pruner.writing_like(model, self.teacher)
        files = {"tokenizer": self.task.tokenizer, "extractor": self.task.extractor}
        pruner.save(model, scratch / WEIGHTS, format=self.config.format, **files)
        served = self._deployment.taken_over(model, scratch / WEIGHTS)
        self._deployment.written(model, served, scratch)
        return served

    def release(self) -> None:
        """Move the dense model to the host, so that nothing of ours stays on the GPU."""
        if self.device.name == "cpu":
            return
        for name in ("teacher", "_dense_served"):
            vars(self).pop(name, None)
        self.dense.teacher.to("cpu")
        self.device.release()

    def dense_folder(self) -> Path:
        """The teacher's own folder, so named that it is found from anywhere."""
        return self.dense.folder.resolve()

    def time_fresh(
        self, folders: dict[str, Path], budgets: dict[str, list[LatencyBudget]], **settings: Any
    ) -> dict[str, Latency]:
        """Exports timed in fresh processes, which have a GPU's memory to themselves."""
        with self._deployment.place(self.teacher, self.dense.folder) as dense:
            self.release()
            return fresh.measure_fresh(folders, dense, self._workload, budgets=budgets, **settings)

    def same_tokens(self, exports: dict[str, Path], trials: dict[str, Path]) -> dict[str, bool]:
        """Let the exports write in a fresh process and compare with what was written when they were trained."""
        return self._deployment.write_again(exports, trials)

    def fidelity(self, folders: dict[str, Path]) -> dict[str, Fidelity]:
        """Exports that may write something else than their float twins, against these, by quality."""
        return self._deployment.fidelities(folders)

    def test_quality(self, folders: dict[str, Path]) -> dict[str, Quality]:
        """Score these folders on the sealed test split, opened once; the dense model as it was scored on validation."""
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        examples, dense, load = self.task.open_sealed_test(), self.dense_folder(), self._deployment.runtime.load
        served = ((name, load(str(f), self._workload)) for name, f in folders.items() if f != dense)
        found = {name: self._deployment.score(model, "test", examples) for name, model in served}
        own = [name for name, folder in folders.items() if folder == dense]
        return found | {n: self._deployment.yardstick(self.teacher, self._dense_served, "test", examples) for n in own}
