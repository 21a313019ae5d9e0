"""What the student is taught: labels, the teacher's distribution, the teacher's hidden states.

    L = a*CE + b*T^2*KL(teacher || student)/N_tokens + c*[mean_l MSE_enc(l) + mean_i MSE_dec(i)]

CE and KL are over the whole vocabulary in every stage. Where the teacher's states before its head are kept
(`TeacherCache`), its distribution is its head applied to them; nothing is truncated.
Pads are masked everywhere: labels of -100 in CE, KL and the decoder's MSE, the attention mask in the
encoder's. MSE is divided by the teacher's variance, so that c does not depend on the model's width.
Encoder block l is matched with the teacher's l, decoder block i with the block it was copied from, and
the last one with the teacher's last (its output goes straight to the head).
Shapes: B batch, S source, T target, D width, L blocks, N labels that count (not -100), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from nash_search.config import PruningRecipe
from nash_search.families import family_of
from nash_search.modeling_nash import encoder_blocks
from nash_search.pruner.placing import Batch, Placed, counted, on_host
from nash_search.pruner.teacher_cache import TeacherCache

CACHED = 2**18
"""Logits that the divergence takes at a time on a CPU: a few megabytes of scratch stay in its cache."""


HEARD = "encoder_states"
"""Batch key of precomputed encoder outputs, (B,S,D), which replace the inputs where the encoder is frozen."""


def encoder_is_frozen(model: Any) -> bool:
    """True if no parameter of the encoder requires a gradient, as in a speech search over decoder depth alone."""
    return not any(parameter.requires_grad for parameter in model.get_encoder().parameters())


def source_of(batch: Batch) -> Batch:
    """What the encoder is given."""
    return {name: tensor for name, tensor in batch.items() if name not in ("labels", HEARD)}


def forward(model: Any, batch: Batch, **given: Any) -> torch.Tensor:
    """Logits (B,T,V) under teacher forcing; no cache is built and no loss computed twice."""
    labels = batch["labels"]
    if hasattr(model, "prepare_decoder_input_ids_from_labels"):
        decoder_input_ids = model.prepare_decoder_input_ids_from_labels(labels)
    else:  # M2M100 and Whisper shift inside their forward only
        start = torch.full_like(labels[:, :1], model.config.decoder_start_token_id)
        shifted = torch.cat([start, labels[:, :-1]], dim=1)
        decoder_input_ids = shifted.masked_fill(shifted == -100, model.config.pad_token_id)
    if HEARD in batch:
        given["encoder_outputs"] = (batch[HEARD],)
    logits: torch.Tensor = model(
        **source_of(batch), decoder_input_ids=decoder_input_ids, use_cache=False, **given
    ).logits
    return logits


def states_of(model: Any, batch: Batch) -> torch.Tensor:
    """Decoder states that enter the model's head under teacher forcing, (N,D); the head itself is not run.

    The decoder's final norm and T5's d_model^-0.5 are in these states already: `logits_of` needs no more than the head.
    """
    where_N = counted(batch)
    seen: list[torch.Tensor] = []

    def keep(head: nn.Module, given: tuple[torch.Tensor]) -> torch.Tensor:
        seen.append(given[0].flatten(0, 1).index_select(0, where_N))
        return seen[0][:0]  # an empty input: the head multiplies nothing

    hook = model.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        forward(model, batch)
    finally:
        hook.remove()
    return seen[0]


def logits_of(model: Any, states: torch.Tensor) -> torch.Tensor:
    """The model's head on what `states_of` gave: logits (N,V)."""
    head = model.get_output_embeddings()
    logits: torch.Tensor = head(states.to(head.weight.dtype))
    bias = getattr(model, "final_logits_bias", None)  # BART, mBART, Pegasus, Marian
    logits = logits if bias is None else logits + bias
    cap = getattr(model.get_decoder().config, "final_logit_softcapping", None)  # T5Gemma
    return logits if cap is None else cap * torch.tanh(logits / cap)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Mean over the labels that are not -100; logits (B,T,V) or (N,V)."""
    return F.cross_entropy(
        logits.float().flatten(0, -2), labels.flatten(), ignore_index=-100, label_smoothing=label_smoothing
    )


def divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """KL(teacher || student) of logits (N,V) at a temperature, mean over N; the teacher gets no gradient."""
    value: torch.Tensor = _Divergence.apply(student, teacher, temperature)
    return value


class _Divergence(torch.autograd.Function):
    """KL and its gradient (q - p) / (T N) in one pass over slices: autograd's own takes half as long again."""

    @staticmethod
    def forward(ctx: Any, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        count, tokens = student.shape
        gradient = torch.empty_like(student)
        total = torch.zeros((), device=student.device)
        rows = max(1, CACHED // tokens) if student.device.type == "cpu" else count
        for s_RV, t_RV, g_RV in zip(student.split(rows), teacher.split(rows), gradient.split(rows), strict=True):
            log_p_RV = F.log_softmax(t_RV.float() / temperature, dim=-1)
            log_q_RV = F.log_softmax(s_RV.float() / temperature, dim=-1)
            p_RV = log_p_RV.exp()
            total += torch.linalg.vecdot(p_RV, log_p_RV.sub_(log_q_RV)).sum()
            g_RV.copy_(log_q_RV.exp_().sub_(p_RV).div_(temperature * count))
        ctx.save_for_backward(gradient)
        return total / count

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0], None, None


def hidden_distance(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over blocks of MSE / teacher's variance, on the positions of the mask.

    Args:
        student: block outputs, (L,B,T,D).
        teacher: the blocks they are matched with, (L,B,T,D).
        mask: positions that count, (B,T).
    """
    weight_BT1 = mask.to(teacher.dtype).unsqueeze(-1)
    count = weight_BT1.sum() * teacher.shape[-1]
    mean_L = (teacher * weight_BT1).sum((1, 2, 3)) / count
    variance_L = ((teacher - mean_L[:, None, None, None]).square() * weight_BT1).sum((1, 2, 3)) / count
    error_L = ((student - teacher).square() * weight_BT1).sum((1, 2, 3)) / count
    return (error_L / variance_L.clamp_min(1e-12)).mean()


class BlockOutputs:
    """The outputs of a model's blocks in its last forward, while `attached`."""

    def __init__(self, model: Any) -> None:
        family = family_of(model)
        self._blocks = [list(encoder_blocks(model)), list(family.decoder_blocks(model))]
        self.encoder: list[Any] = [None] * len(self._blocks[0])
        self.decoder: list[Any] = [None] * len(self._blocks[1])

    @contextmanager
    def attached(self) -> Iterator[BlockOutputs]:
        hooks = []
        for outputs, blocks in zip((self.encoder, self.decoder), self._blocks, strict=True):
            hooks += [b.register_forward_hook(partial(self._keep, outputs, i)) for i, b in enumerate(blocks)]
        try:
            yield self
        finally:
            for hook in hooks:
                hook.remove()
            self.forget()

    @staticmethod
    def _keep(outputs: list[Any], index: int, module: nn.Module, args: Any, output: Any) -> None:
        outputs[index] = output[0] if isinstance(output, tuple) else output

    def forget(self) -> None:
        """Let go of the tensors (they pin the last forward's graph)."""
        self.encoder[:] = [None] * len(self.encoder)
        self.decoder[:] = [None] * len(self.decoder)


class Distillation:
    """The loss of one stage; call it with a batch.

    Args:
        student: the model being trained.
        teacher: the dense model, in eval mode; never changed. None when neither KL nor hidden states count.
        decoder_blocks: the teacher's block that each student decoder block came from.
        recipe: weights and temperature.
        hidden: whether this stage matches hidden states (stage 2 only).
        outputs: where the teacher's states are kept, if they are (never with hidden states).
    """

    def __init__(
        self,
        student: Any,
        teacher: Any,
        decoder_blocks: Sequence[int],
        recipe: PruningRecipe,
        *,
        hidden: bool,
        outputs: TeacherCache | None = None,
    ) -> None:
        self.student, self.teacher, self.recipe = student, teacher, recipe
        self.hidden = hidden and recipe.hidden_weight > 0
        self.outputs = None if self.hidden else outputs
        self._shares_encoder = not self.hidden and teacher is not None and encoder_is_frozen(student)
        if recipe.kd_weight > 0 or self.hidden:
            last = len(family_of(teacher).decoder_blocks(teacher)) - 1
            self.matched = [*decoder_blocks[:-1], last]
        self._mine = BlockOutputs(student) if self.hidden else None
        self._theirs = BlockOutputs(teacher) if self.hidden else None

    @contextmanager
    def attached(self) -> Iterator[Callable[[Batch], torch.Tensor]]:
        """While open, hidden states are collected if this stage needs them; yields the loss."""
        if self._mine is None or self._theirs is None:
            yield self.loss
            return
        with self._mine.attached(), self._theirs.attached():
            yield self.loss

    def loss(self, batch: Batch) -> torch.Tensor:
        """L without the sparsity term."""
        try:
            return self._loss(batch)
        finally:  # also when memory ran out: what is kept would pin it
            for outputs in (self._mine, self._theirs):
                if outputs is not None:
                    outputs.forget()

    def _loss(self, batch: Batch) -> torch.Tensor:
        recipe, labels, temperature = self.recipe, batch["labels"], self.recipe.temperature
        if self._shares_encoder and "input_features" in batch:  # an encoder of texts leaves a mask to the decoder
            batch = self._heard(batch)
        teacher_NV = None
        if recipe.kd_weight > 0 or self.hidden:  # the blocks' outputs are collected on the way
            teacher_NV = self._teach(batch)
        logits_NV = logits_of(self.student, states_of(self.student, batch))
        total = torch.zeros((), device=logits_NV.device)
        if recipe.ce_weight > 0:
            total = total + recipe.ce_weight * cross_entropy(
                logits_NV, labels.flatten().index_select(0, counted(batch))
            )
        if recipe.kd_weight > 0 and teacher_NV is not None:
            total = total + recipe.kd_weight * temperature**2 * divergence(logits_NV, teacher_NV, temperature)
        if self._mine is not None and self._theirs is not None:
            theirs = torch.stack(self._theirs.encoder).float()
            heard = batch["attention_mask"] if "input_ids" in batch else theirs.new_ones(theirs.shape[1:3])
            heard = F.pad(heard, (0, theirs.shape[2] - heard.shape[1]))  # PegasusX works on whole blocks of tokens
            encoder = hidden_distance(torch.stack(self._mine.encoder).float(), theirs, heard)
            decoder = hidden_distance(
                torch.stack(self._mine.decoder).float(),
                torch.stack([self._theirs.decoder[block] for block in self.matched]).float(),
                labels != -100,
            )
            total = total + recipe.hidden_weight * (encoder + decoder)
        return total

    @torch.no_grad()
    def _heard(self, batch: Batch) -> Batch:
        """The batch with its features replaced by the teacher encoder's outputs, (B,S,D).

        A student whose encoder is frozen has the same encoder, so one pass serves both models.
        """

        def make(features: torch.Tensor) -> torch.Tensor:
            states: torch.Tensor = self.teacher.get_encoder()(input_features=features).last_hidden_state
            return states

        features = batch["input_features"]
        states = make(features) if self.outputs is None else self.outputs.heard(batch, make)
        weights = self.teacher.get_output_embeddings().weight
        found = Placed({HEARD: states.to(weights.dtype), "labels": batch["labels"]})
        found.host = on_host(batch)
        return found

    @torch.no_grad()
    def _teach(self, batch: Batch) -> torch.Tensor:
        """The teacher's logits (N,V)."""
        if self.outputs is None:
            return logits_of(self.teacher, states_of(self.teacher, batch))
        return logits_of(self.teacher, self.outputs.states(batch, lambda: states_of(self.teacher, batch)))
