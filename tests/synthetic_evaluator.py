"""An analytic evaluator: the whole machinery in seconds, without a model.

Quality and latency are closed forms of the architecture, so crash tests can compare a killed and resumed study with an
undisturbed one bit by bit. In an environment with `HERE` a search asks this one, and so do Ray's workers. Its numbers
say `rehearsal` in metric and fingerprint and mean nothing. `NASH_SEARCH_REHEARSAL` orders mishaps, e.g.
`trial_s=0.2,nan=enc30-dec3,die=enc0-dec2` (nan, error, oom, disk, hang, die; `die` kills the process once;
`engine=0.3` serves the dense model on an engine in that share of its latency).
"""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from nash_search.config import Architecture, LatencyBudget, SearchConfig, Workload, digest
from nash_search.fidelity import Fidelity
from nash_search.latency_record import Latency, Round, pooled
from nash_search.records import CurvePoint, Quality, Shapes, TrialRecord
from nash_search.storage.artifacts import WEIGHTS
from nash_search.summary_rows import DataFacts
from nash_search.traffic import Request, Traffic
from nash_search.trial.cost import TrialCost, certified_pairs
from nash_search.trial.dense_engines import Say
from nash_search.trial.engines import DenseOnEngine, Engines
from nash_search.trial.evaluator import NAMED_BY
from nash_search.trial.job import Failed, Hooks, Job, check_free

LAYERS = 6
DENSE_MS = 100.0
GAIN = 3.0
"""What a training of endless length brings above one of 600 steps."""
ORDERS = "NASH_SEARCH_REHEARSAL"
_PATH = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
HERE = {NAMED_BY: f"{__name__}:SyntheticEvaluator", "PYTHONPATH": os.pathsep.join(_PATH)}
"""Environment of a process whose searches are synthetic; PYTHONPATH, because children have no working folder on it."""


def answer_here(patch: Any, orders: str = "") -> None:
    """Searches of this process are synthetic for as long as pytest's `patch` lasts."""
    for name, value in (HERE | {ORDERS: orders}).items():
        patch.setenv(name, value)


TRAFFIC = Traffic.counted(Counter(Request(3 + i * 7 % 11, 1 + i % 29) for i in range(638)), "rehearsal")
"""Every input length with every output length, twice."""


def part_of(architecture: Architecture, call: Workload) -> float:
    """Latency over the dense model's at 8 tokens in and out: a constant, the encoder's width, the decoder's depth."""
    encoder = 0.28 * (1 - architecture.encoder_sparsity_pct / 100) * call.input_tokens / 8
    return 0.12 + encoder + 0.60 * architecture.decoder_layers / LAYERS * call.output_tokens / 8


def share_of(architecture: Architecture) -> float:
    """Latency over dense latency."""
    return part_of(architecture, Workload(input_tokens=8, output_tokens=8))


def quality_of(architecture: Architecture) -> float:
    """Percent: falls off steeply at the last decoder blocks and at high encoder sparsity."""
    depth, sparsity = architecture.decoder_layers / LAYERS, architecture.encoder_sparsity_pct / 100
    bumps = math.sin(7 * depth + 11 * sparsity)  # so that the surface is not monotone
    return 92 - 14 * (1 - depth) ** 2 - 30 * sparsity**2.5 + 0.3 * bumps


def _noise(*key: object) -> float:
    """Deterministic, in [-1, 1)."""
    return int(digest(list(map(str, key)))[:8], 16) / 2**31 - 1


class SyntheticEvaluator:
    """The `Evaluator` without torch."""

    def __init__(self, config: SearchConfig) -> None:
        self.config = config
        entries = [part.partition("=") for part in os.environ.get(ORDERS, "").split(",") if part]
        self.orders = {name: value for name, _, value in entries}

    def facts(self) -> dict[str, Any]:
        """Nothing but the name."""
        return {"model": "rehearsal", "data": "rehearsal", "protocol": 1}

    def notes(self) -> tuple[str, ...]:
        """There is no data."""
        return ()

    def data(self) -> DataFacts | None:
        """There is none."""
        return None

    def inputs(self) -> dict[str, Any]:
        """There are none."""
        return {"prefix": "", "max_tokens": None}

    def decoder_layers(self) -> int:
        """Six."""
        return LAYERS

    def answers_are_labels(self) -> bool:
        """They would be."""
        return True

    def workload(self) -> Workload:
        """A call nobody makes, or requests that nobody sends."""
        if not self.config.of_requests:
            return Workload(batch_size=64, input_tokens=8, output_tokens=8)
        return Workload(input_tokens=8, output_tokens=8, traffic=TRAFFIC)

    def fingerprint(self) -> dict[str, Any]:
        """No device."""
        return {"device": "rehearsal", "hash": "rehearsal", "memory_gib": 16.0}

    def _latency(self, architecture: Architecture, *key: object, rounds: int = 1, fresh: bool = False) -> Latency:
        workload = self.workload()

        def one(r: int) -> Round:
            calls = workload.calls(certified_pairs(self.config) if fresh else 48, r)
            calls = calls * 8 if workload.traffic is None else calls
            noise = [(_noise("dense", *key, r, i), _noise(architecture.slug, *key, r, i)) for i in range(len(calls))]
            pairs = list(zip(calls, noise, strict=True))
            dense = [DENSE_MS * part_of(self._dense(), call) * (1 + 0.002 * own) for call, (own, _) in pairs]
            runs = [DENSE_MS * part_of(architecture, call) * (1 + 0.002 * own) for call, (_, own) in pairs]
            return Round(runs_ms=tuple(runs), dense_runs_ms=tuple(dense), contended=(False,) * len(runs))

        made = tuple(one(r) for r in range(rounds))
        found = Latency(rounds=made, workload=workload, fingerprint=self.fingerprint(), fresh=fresh)
        return found.at(self.config.percentile)

    def probe(
        self, shapes: list[Architecture], limit_s: float, known: Path, *, again: bool = False
    ) -> dict[Architecture, Latency]:
        """The closed form with a little noise."""
        return {a: self._latency(a, "probe") for a in shapes}

    def _quality(self, architecture: Architecture, split: str, seed: int, finish_steps: int = 0) -> Quality:
        value = quality_of(architecture) + 0.1 * _noise(split, architecture.slug, seed)
        value += GAIN * (1 - 600 / finish_steps) if finish_steps else 0.0
        n = 500
        return Quality(metric="rehearsal", value=value, standard_error=0.2, n=n, split=split)  # type: ignore[arg-type]

    def _dense(self) -> Architecture:
        return Architecture(encoder_sparsity_pct=0, decoder_layers=LAYERS)

    def dense_quality(self) -> Quality:
        """The closed form at no pruning."""
        return self._quality(self._dense(), "validation", self.config.seed)

    def check_export(self, beside: Path) -> None:
        """There is nothing to write."""

    def dense_on_engines(self, dense_ms: float, known: Path, say: Say) -> Engines:
        """None, or one of the ordered share of the dense latency."""
        if "engine" not in self.orders:
            return Engines()
        share = float(self.orders["engine"])
        say("engines", {"runtimes": ["ctranslate2"], "limit_s": 1.0})
        runs = Round(runs_ms=(share * DENSE_MS,) * 8, dense_runs_ms=(DENSE_MS,) * 8)
        workload = self.workload().model_copy(update={"runtime": "ctranslate2", "quantize": "int8"})
        quality, latency = self.dense_quality(), Latency(rounds=(runs,), workload=workload)
        found = DenseOnEngine(workload=workload, latency=latency, quality=quality, kept=0.998)
        return Engines(tried=(found,), reference=quality)

    def trial_cost(self, config: SearchConfig, architecture: Architecture, threads: int, limit_s: float) -> TrialCost:
        """As long as a trial was ordered to take, or to be said to take."""
        seconds = float(self.orders.get("cost_s", self.orders.get("trial_s", "0")))
        held = {"memory_bytes": int(float(self.orders["gib"]) * 2**30)} if "gib" in self.orders else {}
        return TrialCost(train_s=seconds, score_s=0.0, pairs=8, how="as ordered", **held)

    def _record(self, job: Job, scratch: Path) -> TrialRecord:
        architecture = job.architecture
        (scratch / WEIGHTS).mkdir()
        (scratch / WEIGHTS / "model.json").write_text(json.dumps(architecture.model_dump(mode="json")), "utf-8")
        (scratch / WEIGHTS / "seed").write_text(str(job.seed), "utf-8")
        (scratch / WEIGHTS / "steps").write_text(str(job.finish_steps), "utf-8")
        keep = 1 - architecture.encoder_sparsity_pct / 100
        return TrialRecord(
            number=job.number,
            architecture=architecture,
            seed=job.seed,
            shapes=Shapes(
                encoder_heads=(max(1, round(4 * keep)),) * LAYERS,
                encoder_neurons=(max(1, round(256 * keep)),) * LAYERS,
                decoder_blocks=tuple(range(architecture.decoder_layers)),
            ),
            latency=self._latency(architecture, "trial"),
            quality=self._quality(architecture, "validation", job.seed, job.finish_steps),
            parameters=round(1e6 * (0.5 + 0.2 * keep + 0.3 * architecture.decoder_layers / LAYERS)),
            sparsity_expected=1 - keep,
            sparsity_counted=1 - keep,
            checkpoint=WEIGHTS,
        )

    def take_dense(self, job: Job, scratch: Path) -> TrialRecord:
        """The closed form, free of charge."""
        return self._record(job, scratch)

    def train(self, job: Job, scratch: Path, hooks: Hooks) -> TrialRecord:
        """Sleep, follow an exponential learning curve, obey the ordered mishaps."""
        slug = job.architecture.slug
        rungs, steps = job.config.recipe.rungs, job.config.recipe.narrow_steps + job.config.recipe.tune_steps
        seconds = float(self.orders.get("trial_s", "0"))
        if self.orders.get("oom") == slug:
            raise MemoryError("ordered")
        if self.orders.get("error") == slug:
            raise RuntimeError("ordered")
        if self.orders.get("disk") == slug:
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.orders.get("hang") == slug:
            time.sleep(3600)
        job.work.mkdir(parents=True, exist_ok=True)
        check_free(job.work, 0)
        if self.orders.get("die") == slug and not (job.work / "died").exists():
            (job.work / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        final = quality_of(job.architecture) + 0.1 * _noise("validation", slug, job.seed)
        curve: list[CurvePoint] = []
        for rung in range(1, rungs + 1):
            time.sleep(seconds / rungs)
            step = steps * rung // rungs
            value = final - 40 * (math.exp(-4 * rung / rungs) - math.exp(-4))
            curve.append(CurvePoint(step=step, value=value, train_s=seconds * rung / rungs))
            hooks.progress(job, "tune", step, steps, 1 / rung)
        if self.orders.get("nan") == slug:
            raise Failed("nan", "ordered")
        stages = {"tune": {"steps": float(curve[-1].step), "seconds": curve[-1].train_s}}
        return self._record(job, scratch).model_copy(update={"curve": tuple(curve), "stages": stages})

    def train_short(self, job: Job, hooks: Hooks) -> TrialRecord:
        """Best at rates of 1e-3, a point better on mixed labels; rates from the ordered `diverge` on end in NaN."""
        recipe = job.config.recipe
        rates = recipe.learning_rate, recipe.tune_learning_rate
        if max(rates) >= float(self.orders.get("diverge", "inf")):
            raise Failed("nan", "ordered")
        if self.orders.get("die") == "short" and not (job.home / "died").exists():
            (job.home / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        off = sum(math.log10(rate / 1e-3) ** 2 for rate in rates)
        better = {"data": 0.0, "teacher": 0.5, "mixed": 1.0}[recipe.labels]
        value = 0.0 if "flat" in self.orders else 80 - 5 * off + better + math.log(recipe.trial_steps)
        return TrialRecord(
            number=job.number,
            architecture=job.architecture,
            seed=job.seed,
            quality=self._quality(job.architecture, "validation", 0).model_copy(update={"value": value}),
            pruning={"validation_loss": 1 + off - better / 10},
            stages={"tune": {"steps": recipe.trial_steps, "seconds": 0.1 * recipe.trial_steps}},
        )

    def keep_dense(self, study: Path, *, opened: bool = False) -> dict[str, Any] | None:
        """No vocabulary."""
        return None

    def dense_folder(self) -> Path:
        """Nowhere: nothing is loaded."""
        return Path("rehearsal")

    def _loaded(self, folder: Path) -> Architecture:
        if folder == self.dense_folder():
            return self._dense()
        return Architecture.model_validate_json((folder / "model.json").read_bytes())

    def time_fresh(
        self, folders: dict[str, Path], budgets: dict[str, list[LatencyBudget]], **settings: Any
    ) -> dict[str, Latency]:
        """The closed form again, other noise."""
        rounds, effect, before = settings["rounds"], settings["effect"], settings["before"]
        loaded = {name: self._loaded(folder) for name, folder in folders.items()}
        taken = {name: self._latency(a, "fresh", rounds=rounds, fresh=True) for name, a in loaded.items()}
        found = {name: latency.model_copy(update={"effect": effect}) for name, latency in taken.items()}
        both = {name: pooled(before.get(name), latency) for name, latency in found.items()}
        return {name: latency.at(self.config.percentile) for name, latency in both.items()}

    def same_tokens(self, exports: dict[str, Path], trials: dict[str, Path]) -> dict[str, bool]:
        """Is it the same architecture?"""
        return {name: self._loaded(exports[name]) == self._loaded(trials[name] / WEIGHTS) for name in exports}

    def fidelity(self, folders: dict[str, Path]) -> dict[str, Fidelity]:
        """Nothing is quantised."""
        return {}

    def release(self) -> None:
        """There is no memory."""

    def test_quality(self, folders: dict[str, Path]) -> dict[str, Quality]:
        """The closed form on another split."""
        return {name: self._quality(self._loaded(f), "test", *self._trained(f)) for name, f in folders.items()}

    def _trained(self, folder: Path) -> tuple[int, int]:
        """Seed and steps at length."""
        if folder == self.dense_folder():
            return self.config.seed, 0
        return int((folder / "seed").read_text("utf-8")), int((folder / "steps").read_text("utf-8"))
