"""What a trial is asked, as a value that travels to any process, and what it tells while it runs.

Job         one architecture with everything its training needs
JobSource   whoever has jobs: the calibration, the search's scheduler and, after it, the finalists
Hooks       what a running trial tells the outside
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from nash_search.config import Architecture, Frozen, SearchConfig, Workload, digest
from nash_search.files import ask_free
from nash_search.records import FailureReason, TrialRecord
from nash_search.storage.artifacts import CALIBRATION, FINALISTS, folder_key

Say = Callable[[str, dict[str, Any]], None]
"""Called with a stage's name and its details, for whoever shows how the search goes on."""
TEACHER_OUTPUTS = ".teacher-outputs"
"""In the study's folder: the `TeacherCache` that its trials share, removed when the search ends."""


COPIES = 7
"""Most disk that a trial takes, in multiples of its weights: training state (weights, two moments) twice while it is
replaced, and the export."""


class Job(Frozen):
    """Everything one trial needs, as a value that travels to any process."""

    number: int
    architecture: Architecture
    seed: int
    question: str
    """Digest of the resolved question of the study."""
    config: SearchConfig
    workload: Workload
    share: float
    """Probed latency as a fraction of the dense model's, known before training."""
    folder: str
    """The study's folder."""
    device: str = ""
    """Identity of the device the study is about (`device_id`); only equal ones share a front."""
    train_threads: int = 1
    """CPU threads of training; fixed per study, for sums depend on it."""
    finalist: bool = False
    """A decided architecture trained once more: at length, or with a seed that is not the search's."""
    finish_steps: int = 0
    """Optimizer steps of a training at length; 0: as a trial is trained."""
    short: bool = False
    """A calibration's training: scored, but neither timed nor exported."""

    @property
    def key(self) -> str:
        """Name of the trial's folder."""
        key = folder_key(self.question, self.architecture)
        if self.short:
            return f"{key}-{digest(self.config.recipe.model_dump(mode='json'))[:8]}"
        length = f"-{self.finish_steps}" if self.finish_steps else ""
        return f"{key}-{self.seed}{length}" if self.finalist else key

    @property
    def home(self) -> Path:
        """Where jobs of this kind lie."""
        return Path(self.folder) / (CALIBRATION if self.short else FINALISTS if self.finalist else "trials")

    @property
    def final(self) -> Path:
        """Where the finished trial lies."""
        return self.home / self.key

    @property
    def work(self) -> Path:
        """Where unfinished training keeps its state."""
        return self.home / f".work-{self.key}"

    @property
    def scratch(self) -> Path:
        """Where artefacts are written before the rename."""
        return self.home / f".tmp-{self.key}"


def device_id(fingerprint: dict[str, Any]) -> str:
    """Identity of device and software, whatever the environment's switches."""
    return digest({name: value for name, value in fingerprint.items() if name not in ("environment", "hash")})


class Failed(Exception):
    """A trial that ends with a reason of its own choosing."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Hooks:
    """What a running trial tells the outside; the default tells nobody."""

    def progress(self, job: Job, stage: str, step: int, steps: int, loss: float) -> None:
        """Training went on."""


class Nothing(Enum):
    """Answers of `ask` that are no job."""

    WAIT = "wait"
    DONE = "done"


class JobSource(Protocol):
    """Work for a runner."""

    config: SearchConfig
    workload: Workload
    workers: int

    def exhausted(self) -> bool:
        """Is there nothing to do at all? (Asked before anything is started for it.)"""

    def ask(self) -> Job | Nothing:
        """The next job, WAIT while others may still make one necessary, or DONE."""

    def tell(self, job: Job, record: TrialRecord, wall_s: float = 0.0) -> None:
        """Take a job's record."""

    def progress(self, number: int, stage: str, step: int, steps: int, loss: float) -> None:
        """A running job went on."""


def check_free(folder: Path, weights_bytes: int) -> None:
    """Ask for the room that a trial of these weights takes at most; `folder` exists.

    Raises:
        OSError: ENOSPC, when the disk has less.
    """
    ask_free(folder, COPIES * weights_bytes, "a trial")
