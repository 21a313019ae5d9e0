"""The teacher's states before its head and its answers, computed once per study instead of once per trial.

Trials of a study see the same batches in the same order. Where a stage needs only the teacher's distribution
(stage 4), the first trial's forward serves all: what the head is given at every label that counts is kept, in
half precision (2 x width bytes a token), and the head is applied to it again. That is the whole distribution,
for any vocabulary and temperature.

A file is named by a hash of the batch's content, so no batch reads another's file, whatever the seed. Hit or miss, the
student is taught the numbers as stored, so a trial does not depend on which trial came first. Answers and encoder
outputs are computed in whichever batch brings an example first, so they are the same up to rounding only.
Shapes: N labels that count, D width, T target, S positions of an encoder, B rows.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from nash_search.files import staged_file
from nash_search.pruner.placing import Batch, on_host

STATES, ANSWERS, HEARD = "states", "answers", "heard"
"""First words of the files' names."""
LEFT_FREE_BYTES = 2 * 2**30
"""Free disk that the folder never uses: trials need it for their weights, and the cache only saves time."""


@dataclass(frozen=True, kw_only=True)
class TeacherCache:
    """A folder with the teacher's states and answers, a small file per batch; any number of processes share it."""

    folder: Path
    """One per teacher and study."""
    limit_bytes: int = 4 * 2**30
    """Most bytes of each kind of file (states, answers, encoder outputs); each trial computes what does not fit."""

    def states(self, batch: Batch, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The teacher's states before its head for this batch, (N,D): from the folder, else from `make()` and kept."""
        return self._remembered(STATES, batch, lambda: {"states": _halved(make())})["states"]

    def heard(self, batch: Batch, make: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Outputs of the frozen encoder for a batch of features, (B,S,D), looked up row by row.

        Args:
            batch: with `input_features`, (B,bins,frames).
            make: runs the encoder on the rows that no file holds yet; they are then kept.
        """
        features = batch["input_features"]
        paths = [self._path(HEARD, {"input": one}) for one in on_host(batch)["input_features"]]
        found = {path: tensors["states"] for path in set(paths) if (tensors := self._read(path, features.device))}
        missing = {path: row for row, path in enumerate(paths) if path not in found}
        if missing:
            for path, states in zip(missing, _halved(make(features[list(missing.values())])), strict=True):
                found[path] = states
                self._put(path, {"states": states})
        return torch.stack([found[path].float() for path in paths])

    def answers(self, keys: torch.Tensor, generate: Callable[[], torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the teacher says to these examples, from the folder or from `generate()`.

        Args:
            keys: identities of the examples, (N,16) bytes.
            generate: gives their answers, (N,T).

        Returns:
            `keys` and `answers`, as `all_answers` gives them again.
        """

        def made() -> dict[str, torch.Tensor]:
            return {"keys": keys, "answers": generate().to(torch.int32)}

        return self._remembered(ANSWERS, {"keys": keys}, made)

    def all_answers(self) -> Iterator[dict[str, torch.Tensor]]:
        """Whatever `answers` has kept so far, in the order of the file names."""
        for path in sorted(self.folder.glob(f"{ANSWERS}-*.safetensors")):
            with suppress(FileNotFoundError, SafetensorError):
                yield load_file(path)

    def _remembered(
        self, what: str, batch: Batch, make: Callable[[], dict[str, torch.Tensor]]
    ) -> dict[str, torch.Tensor]:
        path = self._path(what, on_host(batch))
        tensors = self._read(path, next(iter(batch.values())).device)
        if tensors is None:
            tensors = make()
            self._put(path, tensors)
        return tensors

    def _path(self, what: str, batch: Mapping[str, torch.Tensor]) -> Path:
        name = hashlib.blake2b(what.encode(), digest_size=16)
        for key in sorted(batch):
            name.update(repr(tuple(batch[key].shape)).encode())
            name.update(batch[key].cpu().numpy().tobytes())  # the host's copy: nothing comes back from a GPU
        return self.folder / f"{what}-{name.hexdigest()}.safetensors"

    def _read(self, path: Path, device: torch.device) -> dict[str, torch.Tensor] | None:
        try:
            return load_file(path, device=str(device))
        except (FileNotFoundError, SafetensorError):
            return None

    def _put(self, path: Path, tensors: dict[str, torch.Tensor]) -> None:
        size = sum(tensor.nbytes for tensor in tensors.values())
        with suppress(OSError, SafetensorError):  # a full disk: the others compute it themselves
            self.folder.mkdir(parents=True, exist_ok=True)
            if self._held_bytes(path.name.partition("-")[0]) + size > self.limit_bytes:
                return
            if shutil.disk_usage(self.folder).free < size + LEFT_FREE_BYTES:
                return
            with staged_file(path, durable=False) as staging:
                save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, staging)

    def _held_bytes(self, kind: str) -> int:
        """Size of the files of this kind, whoever wrote them."""
        held = 0
        with os.scandir(self.folder) as files:
            for file in files:
                if file.name.startswith(kind):
                    with suppress(FileNotFoundError):
                        held += file.stat().st_size
        return held


def _halved(states: torch.Tensor) -> torch.Tensor:
    """In half precision; as they are where a value is too large for it (beyond 65,504)."""
    half = states.to(torch.float16)
    return half if bool(half.isfinite().all()) else states.float()  # read once: what follows writes it to the disk
