"""All that a timer needs of a device, so that a fake one can stand in for the real ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One timed call."""

    wall_ms: float
    cpu_ms: float | None = None
    """CPU time of the calling thread, or of the process of an engine (None where it means nothing)."""
    device_ms: float | None = None
    """Time between two events on the device itself."""
    disturbed: tuple[str, ...] = ()
    """Why this sample may say more about the neighbours than about the call."""
    notes: dict[str, float] = field(default_factory=dict)


class Device(Protocol):
    """All that a timer needs of a device; tests stand in for it with a fake."""

    name: str
    lock_id: str
    """What its locks are named after: `cpu`, or the GPU's UUID."""
    retries: int
    """How often a disturbed sample is thrown away and timed again (CPU: never, it would flatter)."""

    def time(self, call: Callable[[], T]) -> tuple[Sample, T]:
        """Time one call, device work included."""

    def now_s(self) -> float:
        """Monotonic seconds, for limits."""

    def synchronize(self) -> None:
        """Wait for the device."""

    def surroundings(self) -> dict[str, float]:
        """Counters of what else goes on; read before and after a round."""

    def peak_bytes(self, call: Callable[[], object]) -> int | None:
        """Most memory that tensors took during one call, beyond what was there before."""

    def most_bytes(self, call: Callable[[], T]) -> tuple[T, int | None]:
        """What a call returns, and the most memory that this process held on the device meanwhile (None: unknown)."""

    def total_bytes(self) -> int:
        """All of its memory."""

    def free_bytes(self) -> int:
        """Memory that models can be loaded into."""

    def release(self) -> None:
        """Give memory that no tensor holds back, so that other processes can have it."""

    def fingerprint(self) -> dict[str, Any]:
        """What the device and its software are, readable; equal where latencies compare."""
