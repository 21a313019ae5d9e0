"""The teacher's distributions and answers, computed once per study instead of once per trial.

Trials of a study see the same batches in the same order. Where a stage needs only the teacher's logits
(stage 4), the first trial's forward serves all: the k largest log-probabilities of each token, at the
distillation temperature, and what is left as one more outcome:

    KL_k = sum_top p*(log p - log q) + p_rest*(log p_rest - log q_rest)   <= KL, equal when k is the vocabulary

A batch is known by its content, so a wrong hit is impossible and the seed does not matter. Hit or miss,
the student is taught the stored numbers: a trial does not depend on who came first (answers: up to rounding,
for an example is answered in whichever batch brings it first).
This module refuses to know the student and the optimizer. Shapes: B batch, T target, K largest tokens.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

Batch = dict[str, torch.Tensor]
ANSWERS = "answers"


@dataclass(frozen=True)
class TopTokens:
    """The k likeliest tokens of every position."""

    log_p_BTK: torch.Tensor
    """Log-probabilities at the temperature they were made for, half precision."""
    tokens_BTK: torch.Tensor

    @classmethod
    def of(cls, logits: torch.Tensor, k: int, temperature: float) -> TopTokens:
        """From logits (B,T,V)."""
        log_p = F.log_softmax(logits.float() / temperature, dim=-1)
        top = log_p.topk(min(k, log_p.shape[-1]), dim=-1)
        small = log_p.shape[-1] <= torch.iinfo(torch.int16).max
        return cls(top.values.half(), top.indices.to(torch.int16 if small else torch.int32))

    def divergence(self, student: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
        """KL_k(teacher || student), mean over the tokens that are not padding."""
        log_q = F.log_softmax(student.float() / temperature, dim=-1)
        log_q_BTK = log_q.gather(-1, self.tokens_BTK.long())
        log_p_BTK = self.log_p_BTK.float()
        kl_BT = (log_p_BTK.exp() * (log_p_BTK - log_q_BTK)).sum(-1)
        if log_p_BTK.shape[-1] < log_q.shape[-1]:
            rest_p = (1 - log_p_BTK.exp().sum(-1)).clamp_min(1e-6)
            rest_q = (1 - log_q_BTK.exp().sum(-1)).clamp_min(1e-6)
            kl_BT = kl_BT + rest_p * (rest_p.log() - rest_q.log())
        mask_BT = labels != -100
        return (kl_BT * mask_BT).sum() / mask_BT.sum()


@dataclass(frozen=True, kw_only=True)
class TeacherOutputs:
    """A folder with the teacher's top tokens and answers, a small file per batch; any number of processes share it."""

    folder: Path
    """One per teacher and study."""
    k: int = 64
    """Tokens kept per position."""
    limit_bytes: int = 2 * 2**30
    """The folder is not added to beyond this."""

    def get(self, batch: Batch, temperature: float, logits: Callable[[], torch.Tensor]) -> TopTokens:
        """From the folder, or from `logits()`, which is then remembered."""

        def top() -> dict[str, torch.Tensor]:
            made = TopTokens.of(logits(), self.k, temperature)
            return {"log_p": made.log_p_BTK, "tokens": made.tokens_BTK}

        found = self._remembered(f"top/{self.k}/{temperature}", batch, top)
        return TopTokens(found["log_p"], found["tokens"])

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
        name = hashlib.blake2b(what.encode(), digest_size=16)
        for key in sorted(batch):
            name.update(repr(tuple(batch[key].shape)).encode())
            name.update(batch[key].cpu().numpy().tobytes())
        path = self.folder / f"{what.partition('/')[0]}-{name.hexdigest()}.safetensors"
        try:
            return load_file(path, device=str(next(iter(batch.values())).device))
        except (FileNotFoundError, SafetensorError):
            tensors = make()
        with suppress(OSError, SafetensorError):  # a full disk: the others compute it themselves
            self._put(path, tensors)
        return tensors

    def _put(self, path: Path, tensors: dict[str, torch.Tensor]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        size = sum(tensor.nbytes for tensor in tensors.values())
        kind = path.name.partition("-")[0]
        held = sum(name.startswith(kind) for name in os.listdir(self.folder)) * size  # batches are about equally large
        if held + size > self.limit_bytes:
            return
        staging = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, staging)
            os.replace(staging, path)
        finally:
            staging.unlink(missing_ok=True)
