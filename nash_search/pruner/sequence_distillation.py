"""The teacher's own answers as targets: sequence-level distillation (Kim & Rush 2016, arXiv 1606.07947).

    data: step -> {inputs, labels}     answered(teacher, data): step -> {inputs, what the teacher generates}

An answer is what `generate` returns with the teacher's own decoding settings, without the start token and
with -100 after its end, so that everything that takes batches takes these. An example is answered once, however
often it comes back in other batches, and where `TeacherCache` are given once for all trials of a study: greedy
or with beams, an answer depends on its example alone (up to rounding, for padding differs from batch to batch).
Shapes: N rows, B batch, T target.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

from nash_search.errors import InvalidInput
from nash_search.families import family_of
from nash_search.pruner.distillation import source_of
from nash_search.pruner.placing import IGNORED, Batch
from nash_search.pruner.teacher_cache import TeacherCache
from nash_search.recipes import Labels
from nash_search.writing import written

Batches = Callable[[int], Batch]
Agrees = Callable[[list[int], list[int]], bool]
LONGER = 2
"""An answer has at most this many times the tokens of its example's own label: a teacher may repeat itself for ever."""


def labelled(teacher: Any, data: Batches, labels: Labels, outputs: TeacherCache | None = None) -> Batches:
    """The batches as a recipe wants them labelled: as they are, by the teacher, or by both in turn."""
    if labels == "data":
        return data
    return answered(teacher, data, outputs, every=1 if labels == "teacher" else 2)


def answered(teacher: Any, data: Batches, outputs: TeacherCache | None = None, *, every: int = 1) -> Batches:
    """The same batches with the teacher's answers as labels.

    Args:
        teacher: the dense model, in eval mode; not changed.
        data: step -> batch.
        outputs: where answers are kept from trial to trial (None: in memory only).
        every: 1 answers all rows; 2 every second one, the even rows of even steps and the odd rows of odd steps, and
            the others keep the data's labels.

    Where `data` has a function `agrees(answer, label)` on token ids and it returns False, the row keeps its own label.

    Raises:
        InvalidInput: for a family whose labels are not what it generates (mBART wraps its last label
            around to the front).
    """
    family = family_of(teacher)
    if not family.answers_are_labels:
        raise InvalidInput(f"answers must be labels as they are generated, but got {family.model_type}'s")
    known: dict[bytes, torch.Tensor] = {}
    agrees: Agrees | None = getattr(data, "agrees", None)
    agreed: dict[bytes, bool] = {}

    def learn(kept: dict[str, torch.Tensor]) -> None:
        for key, row in zip(kept["keys"], kept["answers"], strict=True):
            known.setdefault(key.numpy().tobytes(), row[row != IGNORED])

    for kept in outputs.all_answers() if outputs is not None else ():
        learn(kept)

    def batch_at(step: int) -> Batch:
        batch = data(step)
        keys = {row: _key(batch, row) for row in range(len(batch["labels"])) if (row - step) % every == 0}
        new = [row for row, key in keys.items() if key not in known]
        if new:
            keys_N16 = torch.frombuffer(bytearray(b"".join(keys[row] for row in new)), dtype=torch.uint8).view(-1, 16)
            asked = {name: tensor[new] for name, tensor in batch.items()}
            learn(
                {"keys": keys_N16, "answers": _answer(teacher, asked)}
                if outputs is None
                else outputs.answers(keys_N16, lambda: _answer(teacher, asked))
            )
        given = [own[own != IGNORED] for own in batch["labels"].cpu()]
        for row, key in keys.items() if agrees is not None else ():
            if key not in agreed:
                agreed[key] = agrees(known[key].tolist(), given[row].tolist())  # type: ignore[misc]
        taken = {row: known[key].long() for row, key in keys.items() if agreed.get(key, True)}
        labels_BT = _padded([taken.get(row, own) for row, own in enumerate(given)])
        return {**batch, "labels": labels_BT.to(batch["labels"].device)}

    return batch_at


def _key(batch: Batch, row: int) -> bytes:
    """Cache key of one row, 16 bytes: a hash of its input (tokens without padding, or features) and label length.

    The label's length is in it because it bounds the answer's (`LONGER`).
    """
    if "input_ids" in batch:
        read = batch["input_ids"][row].long()
        if "attention_mask" in batch:
            read = read[batch["attention_mask"][row].bool()]
    else:
        read = batch["input_features"][row]
    name = hashlib.blake2b(read.cpu().numpy().tobytes(), digest_size=16)
    name.update(str(int((batch["labels"][row] != IGNORED).sum())).encode())
    return name.digest()


def _padded(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=IGNORED)


def _answer(teacher: Any, batch: Batch) -> torch.Tensor:
    """`_generate`, in halves where the device has no room for all rows at once."""
    count = len(batch["labels"])
    try:
        return _generate(teacher, batch)
    except torch.OutOfMemoryError:
        if count == 1:
            raise
    halves = [
        {name: tensor[part] for name, tensor in batch.items()} for part in (slice(count // 2), slice(count // 2, None))
    ]
    return _padded([row for half in halves for row in _answer(teacher, half)])


@torch.no_grad()
def _generate(teacher: Any, batch: Batch) -> torch.Tensor:
    """Labels (N,T), each row up to its own end or limit."""
    if not family_of(teacher).reads_text:
        return _written(teacher, batch)
    limits_N = LONGER * (batch["labels"] != IGNORED).sum(1)
    positions = family_of(teacher).longest(teacher.config)
    if positions is not None:
        limits_N = limits_N.clamp(max=positions[1] - 1)
    settings = {"max_new_tokens": int(limits_N.max()), "do_sample": False, "forced_eos_token_id": None}
    tokens_NT = written(teacher, source_of(batch), **settings)[:, 1:]
    ended_NT = torch.isin(tokens_NT, torch.tensor(teacher.generation_config.eos_token_id))
    over_NT = ended_NT.cumsum(1) - ended_NT.long() > 0
    late_NT = torch.arange(tokens_NT.shape[1]) >= limits_N.cpu()[:, None]
    return tokens_NT.masked_fill(over_NT | late_NT, IGNORED)


def _written(teacher: Any, batch: Batch) -> torch.Tensor:
    """The same of a model that hears: `generate` gives what comes between the prompt of the labels and the end."""
    settings, labels_NT = teacher.generation_config, batch["labels"].cpu()
    last = getattr(settings, "no_timestamps_token_id", None)
    prompt = 0 if last is None else int((labels_NT[0] == last).nonzero()[0]) + 1
    limits_N = LONGER * ((labels_NT != IGNORED).sum(1) - prompt)
    limits_N = limits_N.clamp(max=teacher.config.max_target_positions - prompt - 1)
    most = int(limits_N.max())
    tokens_NT = written(teacher, source_of(batch), max_new_tokens=most, do_sample=False).long()
    rows = []
    for own, tokens, limit in zip(labels_NT, tokens_NT.tolist(), limits_N.tolist(), strict=True):
        while tokens and tokens[-1] == settings.pad_token_id:
            tokens.pop()
        ended = len(tokens) < limit
        rows.append(torch.tensor([*own[:prompt].tolist(), *tokens[:limit], *([settings.eos_token_id] * ended)]))
    return _padded(rows)
