"""What users will run: how one workload's runtime takes a model over, writes with it and is scored.

    PyTorch serves        the model itself in the workload's precision, which is what the task scores
    an engine serves      export -> load; its own outputs are scored, so a quantised quality is never assumed

What is served quantised, or with a beam search of the engine's own, is compared with its float twin by quality
(`fidelity`), for its tokens may differ. One object per evaluator.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from nash_search.config import Workload
from nash_search.encoder_rows import EncoderRows
from nash_search.errors import InvalidInput, NashSearchWarning
from nash_search.fidelity import KEPT_SHARE, Fidelity
from nash_search.latency import fresh, runtimes, written_tokens
from nash_search.latency.runtimes.eager import RUNTIME as EAGER
from nash_search.records import Quality
from nash_search.tasks.scoring import score
from nash_search.tasks.task import Examples, Task

TOKENS = "tokens.json"
ENGINE_TOKENS = "engine-tokens.json"
"""What a trained model wrote at the end of its trial: in PyTorch, and in the serving engine."""
FEWEST, MOST = 200, 512
"""Examples on which a served model is compared with its float twin; train fills up a smaller validation split."""


class Deployment:
    """One task's models on one workload's runtime."""

    def __init__(self, workload: Workload, task: Task, guard: Callable[[], AbstractContextManager[Any]]) -> None:
        self.workload, self.task, self._guard = workload, task, guard
        self.beams = int(task.generation.get("num_beams", 1))
        self.longest = int(task.generation.get("max_new_tokens", task.max_output_tokens))

    @cached_property
    def runtime(self) -> runtimes.Runtime:
        """The runtime that the workload names."""
        return runtimes.runtime_of(self.workload)

    @property
    def by_engine(self) -> bool:
        """Whether something else than PyTorch serves."""
        return self.runtime.artefact is not None

    @property
    def rows(self) -> EncoderRows:
        """Real inputs on which models are compared."""
        return self.task.validation.first(written_tokens.INPUTS).inputs

    @property
    def plain(self) -> Workload:
        """The workload as PyTorch runs it from the exported weights."""
        return self.workload.in_pytorch(self.workload.weights_dtype)

    @property
    def _float(self) -> Workload:
        """The workload in PyTorch's float32, whatever was asked for."""
        return self.workload.in_pytorch()

    def served(self, model: Any, *, own_rows: bool = True) -> Any:
        """What the runtime serves for a PyTorch model in memory; without `own_rows` it is compared on random ones."""
        if not self.by_engine:
            return EAGER.placed(model, self.plain)
        with tempfile.TemporaryDirectory(prefix="nash-search-served-") as folder:
            return self.taken_over(model, Path(folder), own_rows=own_rows)

    def taken_over(self, model: Any, folder: Path, *, own_rows: bool = True) -> Any:
        """What the runtime serves for a PyTorch model saved in `folder`; an engine's artefact is left there."""
        with self._guard():
            self.runtime.export(model, str(folder), self.workload, self.rows if own_rows else None)
            return self.runtime.load(str(folder), self.workload)

    @contextmanager
    def place(self, model: Any, own: Path) -> Iterator[Path]:
        """A folder that fresh processes load a PyTorch model from: its own, or an engine's artefact made once."""
        if not self.by_engine:
            yield own
            return
        with tempfile.TemporaryDirectory(prefix="nash-search-dense-") as folder:
            self.taken_over(model, Path(folder))
            yield Path(folder)

    def written(self, model: Any, served: Any, folder: Path) -> None:
        """Store in `folder` the token ids that model and engine generate for `rows`, for `write_again` to compare."""
        with self._guard():
            own = written_tokens.tokens_of(model, self.rows, self.plain, max_new_tokens=self.longest)
            (folder / TOKENS).write_text(json.dumps(own), "utf-8")
            if self.by_engine:
                (folder / ENGINE_TOKENS).write_text(json.dumps(self._write(served, self.rows)), "utf-8")

    def write_again(self, exports: Mapping[str, Path], kept: Mapping[str, Path]) -> dict[str, bool]:
        """By name, True if the export generates in a fresh process the tokens that `written` stored.

        Where an engine serves, both the checkpoint and the engine's artefact are compared.
        """
        asked = {TOKENS: self.plain}
        if self.by_engine:
            asked[ENGINE_TOKENS] = self.workload.model_copy(update={"beams": self.beams})
        found = dict.fromkeys(exports, True)
        for file, workload in asked.items():
            now = fresh.fresh_tokens(exports, self.rows, workload, max_new_tokens=self.longest)
            for name, folder in kept.items():
                before = json.loads((folder / file).read_text("utf-8"))
                found[name] &= written_tokens.differing(before, now[name]) == 0
        return found

    def score(self, served: Any, split: Literal["validation", "test"], examples: Examples | None = None) -> Quality:
        """The quality of what the runtime serves on a split, or on examples of it; an engine's, of its own outputs."""
        given: dict[str, Any] = {"guard": self._guard, "examples": examples}
        if not self.by_engine:
            dtype = self.workload.dtype
            given |= {} if dtype == "float32" else {"served": dtype}
            return score(EAGER.placed(served, self.workload), self.task, split, **given)
        how = f"{self.workload.runtime} {self.workload.dtype} quantize={self.workload.quantize}"
        return score(lambda rows: self._write(served, rows), self.task, split, served=how, **given)

    @property
    def quantised(self) -> bool:
        """Whether the weights are served in fewer bits than the dtype says."""
        return self.workload.quantize != "none"

    def differs(self, served: Any) -> bool:
        """Whether what is served may write something else than the model in float32: then its quality must agree."""
        compared = served.told.get("compared", {}) if self.by_engine else {}
        return self.quantised or bool(compared.get("differing"))

    @property
    def lossy(self) -> bool:
        """Whether the model is served in less than float32, weights or arithmetic."""
        return self.quantised or self.workload.dtype != "float32"

    @property
    def _compared(self) -> Examples:
        """What a served model and its float twin are both scored on."""
        found = self.task.validation.first(MOST)
        return found if len(found) >= FEWEST else found.followed_by(self.task.train.first(FEWEST - len(found)))

    def fidelity(self, model: Any, served: Any) -> Fidelity:
        """How much of its quality a model keeps as it is served.

        Args:
            model: the PyTorch model.
            served: the same as the runtime serves it (`taken_over`, or the runtime's `load`).
        """
        examples = self._compared
        return Fidelity(
            served=self.score(served, "validation", examples), twin=self.score_float(model, "validation", examples)
        )

    def fidelities(self, folders: Mapping[str, Path]) -> dict[str, Fidelity]:
        """`fidelity` of those checkpoint folders whose artefacts may write something else than float32."""
        if not self.by_engine:
            return {}
        found = {}
        for name, folder in folders.items():
            served = self.runtime.load(str(folder), self.workload)
            if self.differs(served):
                found[name] = self.fidelity(EAGER.load(str(folder), self._float), served)
        return found

    def yardstick(
        self, model: Any, served: Any, split: Literal["validation", "test"], examples: Examples | None = None
    ) -> Quality:
        """The dense model's quality, which every other is a share of: the float model's where the runtime quantises."""
        if self.quantised:
            return self.score_float(model, split, examples)
        return self.score(served, split, examples)

    def score_float(
        self, model: Any, split: Literal["validation", "test"], examples: Examples | None = None
    ) -> Quality:
        """The quality of a PyTorch model in float32, whatever the workload's precision."""
        return score(EAGER.placed(model, self._float), self.task, split, guard=self._guard, examples=examples)

    def check(self, found: Fidelity) -> None:
        """Refuse an engine or a precision that costs a model too much.

        Half precision loses quality by overflow (float16 ends at 65,504), which ruins a model, or hardly any: what
        may be chance is only said.

        Raises:
            InvalidInput: the served model keeps less than 97 % of its float twin's quality.
        """
        if found.holds:
            return
        asked = f"{self.workload.runtime} {self.workload.dtype} quantize={self.workload.quantize}, {self.beams} beams,"
        what = f"{asked} must keep {KEPT_SHARE:.0%} of the quality of float32, but got {found.words}"
        if self.lossy and not self.quantised and found.by_chance:
            warnings.warn(f"{what}; that may be chance", NashSearchWarning, stacklevel=2)
            return
        other = "another --runtime or --beams 1"
        flag, fix = ("--quantize", f"none or {other}") if self.quantised else ("--runtime", other)
        if self.lossy and not self.quantised:
            flag, fix = "--dtype", "bfloat16 or float32" if self.workload.dtype == "float16" else "float32"
        raise InvalidInput(what, where=flag, fix=f"use {fix}")

    def check_dense(self, model: Any, served: Any) -> None:
        """Refuse, before anything is spent, an engine or a precision that the dense model does not survive."""
        if self.lossy or self.differs(served):
            self.check(self.fidelity(model, served))

    def _write(self, served: Any, rows: EncoderRows) -> list[list[int]]:
        return self.runtime.tokens(served, rows, beams=self.beams, max_new_tokens=self.longest)
