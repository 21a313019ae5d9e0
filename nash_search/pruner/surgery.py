"""Make a model physically smaller: fewer decoder blocks, narrower encoder blocks.

    shorten: keep some decoder blocks, renumber their caches, carry block 0's position bias along
    cut:     keep some heads and FFN neurons of every encoder block; the kept gates' soft values are
             folded into the output projections:  W_out[:, kept] * z

Every function returns a new model and leaves its input as it was. The config records what is left
under `nash_shapes`. What is kept is chosen elsewhere (`layer_selection`, `sparsity`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch

from nash_search import loading, modeling_nash
from nash_search.config import Architecture
from nash_search.errors import InvalidInput
from nash_search.families import Family, family_of
from nash_search.layouts import use_setting
from nash_search.modeling_nash import block_parts, encoder_blocks
from nash_search.pruner.layer_selection import DecoderScore, selected_blocks
from nash_search.records import Shapes

Kept = Sequence[Sequence[int]]
"""One list of kept indices per encoder block, increasing."""


def shorten(
    model: Any,
    decoder_layers: int,
    selection: str = "uniform",
    data: Callable[[int], dict[str, torch.Tensor]] | None = None,
) -> Any:
    """A copy with `decoder_layers` of the model's decoder blocks.

    Args:
        model: any supported model; not changed.
        decoder_layers: decoder blocks to keep.
        selection: which ones (`layer_selection.SELECTIONS`).
        data: step -> batch, for a selection that looks at data.
    """
    total = len(family_of(model).decoder_blocks(model))
    score = DecoderScore(model, data, model.device) if selection == "scored" and data is not None else None
    return keep_decoder_blocks(model, selected_blocks(total, decoder_layers, selection, score))


def keep_decoder_blocks(model: Any, kept: Sequence[int]) -> Any:
    """A copy with exactly these decoder blocks, given in increasing order."""
    family = family_of(model)
    total = len(family.decoder_blocks(model))
    if not kept or list(kept) != sorted(set(kept)) or not 0 <= kept[0] <= kept[-1] < total:
        raise InvalidInput(f"decoder blocks must be increasing indices below {total}, but got {list(kept)}")
    student = loading.copied(model)
    decoder, blocks = student.get_decoder(), family.decoder_blocks(student)
    first_attention, _ = family.decoder_attentions(blocks[0])
    for index in reversed(range(total)):
        if index not in kept:
            del blocks[index]
    for index, block in enumerate(blocks):
        for attention in family.decoder_attentions(block):
            attention.layer_idx = index
    if family.first_block_has_bias and kept[0] != 0:
        attention, _ = family.decoder_attentions(blocks[0])
        attention.relative_attention_bias = first_attention.relative_attention_bias
        attention.has_relative_attention_bias = True
    family.use_decoder_blocks(student, blocks)
    use_setting(student.config, family.layout.decoder_depth_key, len(kept))
    if hasattr(decoder.config, "num_layers"):  # T5's decoder has a copy in which `num_layers` is its own depth
        setattr(decoder.config, family.layout.decoder_depth_key, len(kept))
        decoder.config.num_layers = len(kept)
    _keep_timing(student.generation_config, kept)
    _note_shapes(student.config, decoder_blocks=list(kept))
    return student


def writing_like(model: Any, teacher: Any) -> Any:
    """The teacher's generation settings, for a model with some of its decoder blocks."""
    settings = copy.deepcopy(teacher.generation_config)
    _keep_timing(settings, shapes_of(model).decoder_blocks)
    return settings


def _keep_timing(settings: Any, kept: Sequence[int]) -> None:
    """Renumber Whisper's `alignment_heads`, (block, head) pairs that time words, for the kept blocks, in place.

    Pairs of dropped blocks go; the setting itself goes where no pair is left.
    """
    timing = getattr(settings, "alignment_heads", None)
    if timing:
        settings.alignment_heads = [[list(kept).index(b), head] for b, head in timing if b in kept]
        if not settings.alignment_heads:  # without any, it says so itself when it is asked for them
            del settings.alignment_heads


def cut_window(model: Any, positions: int) -> Any:
    """A copy of a speech model whose encoder takes the first `positions` positions only; the model if it has no more.

    The table of positions is cut and no weight changes, but neither encoder nor decoder was trained on recordings
    that end so soon (`docs/speech.md`).

    Raises:
        InvalidInput: the model has fewer.
    """
    own = int(model.config.max_source_positions)
    if not 0 < positions <= own:
        raise InvalidInput(f"window must be of 1 to {own} positions (the model's), but got {positions}")
    if positions == own:
        return model
    student = loading.copied(model)
    encoder = student.get_encoder()
    table = encoder.embed_positions
    table.weight = torch.nn.Parameter(table.weight.detach()[:positions].clone(), requires_grad=False)
    table.num_embeddings = encoder.max_source_positions = positions
    for config in (student.config, encoder.config):
        config.max_source_positions = positions
    return student


def undisturbed(model: Any) -> Any:
    """Switch LayerDrop and SpecAugment off in place, so that teacher and student see the same input; the model."""
    for stack in (model.get_encoder(), model.get_decoder()):
        if hasattr(stack, "layerdrop"):  # skipping blocks at random would hide them from the hidden-state loss
            stack.layerdrop = 0.0
    if getattr(model.config, "apply_spec_augment", False):  # the teacher hears every frame; not seeded by torch
        model.config.apply_spec_augment = False
    return model


def cut(
    model: Any,
    kept_heads: Kept,
    kept_neurons: Kept,
    *,
    head_gates: Sequence[torch.Tensor] | None = None,
    neuron_gates: Sequence[torch.Tensor] | None = None,
) -> Any:
    """A copy whose encoder blocks keep only these heads and FFN neurons.

    Args:
        model: any supported model; not changed.
        kept_heads: per encoder block, the indices of the heads kept (increasing, at least one).
        kept_neurons: the same for FFN neurons.
        head_gates: per encoder block, the soft values of the *kept* heads, folded into the output
            projection (None: all 1).
        neuron_gates: the same for the kept neurons.
    """
    student = loading.copied(model)
    _cut(student, kept_heads, kept_neurons, head_gates, neuron_gates)
    return student


@torch.no_grad()
def _cut(
    student: Any,
    kept_heads: Kept,
    kept_neurons: Kept,
    head_gates: Sequence[torch.Tensor] | None = None,
    neuron_gates: Sequence[torch.Tensor] | None = None,
) -> None:
    """`cut`, in place."""
    family, blocks = family_of(student), encoder_blocks(student)
    heads = [block_parts(block).heads for block in blocks]
    _check_kept("kept_heads", kept_heads, heads)
    if family.heads_stay and heads != [len(kept) for kept in kept_heads]:
        raise InvalidInput(f"kept_heads must be every head of {family.model_type}, but got {kept_heads}")
    _check_kept("kept_neurons", kept_neurons, [block_parts(block).neurons for block in blocks])
    if heads != [len(kept) for kept in kept_heads] or not _stock_width(family, student, kept_neurons):
        _become_narrow(student, family)
    for index, block in enumerate(blocks):
        modeling_nash.narrow_block(block, list(kept_heads[index]), list(kept_neurons[index]))
        parts = block_parts(block)
        if head_gates is not None:
            out = parts.attention.get_submodule(parts.attention_out)
            out.weight *= head_gates[index].to(out.weight).repeat_interleave(parts.head_width)
        if neuron_gates is not None:
            out = getattr(parts.ffn, parts.ffn_out)
            out.weight *= neuron_gates[index].to(out.weight)
    sizes = [{"heads": len(h), "ffn": len(n)} for h, n in zip(kept_heads, kept_neurons, strict=True)]
    if is_narrow(student):
        _note_shapes(student.config, encoder=sizes)
    elif family.layout.encoder_ffn_key is not None:
        use_setting(student.config, family.layout.encoder_ffn_key, sizes[0]["ffn"])


def _check_kept(name: str, kept: Kept, totals: Sequence[int]) -> None:
    if len(kept) != len(totals):
        raise InvalidInput(f"{name} must list {len(totals)} encoder blocks, but got {len(kept)}")
    for indices, total in zip(kept, totals, strict=True):
        if not indices or list(indices) != sorted(set(indices)) or not 0 <= indices[0] <= indices[-1] < total:
            raise InvalidInput(
                f"{name} must be one or more increasing indices below {total} per block, but got {list(indices)}"
            )


def is_narrow(model: Any) -> bool:
    """Whether the model needs a class of `modeling_nash` (a stock config cannot say its shape)."""
    return isinstance(model, modeling_nash.Narrow)


def _stock_width(family: Family, model: Any, kept_neurons: Kept) -> bool:
    """Whether the family's own config can say these FFN widths."""
    if is_narrow(model):
        return False
    widths = {len(kept) for kept in kept_neurons}
    full = {block_parts(block).neurons for block in encoder_blocks(model)}
    return widths == full or (family.layout.encoder_ffn_key is not None and len(widths) == 1)


def _become_narrow(model: Any, family: Family) -> None:
    """Turn a stock model into the narrow class of its family, in place; nothing is cut yet."""
    if is_narrow(model):
        return
    model.__class__ = family.narrow_class
    model.config.__class__ = family.narrow_class.config_class
    modeling_nash.own_position_bias(model)


def _note_shapes(config: Any, **parts: Any) -> None:
    shapes = {"version": 1, **(getattr(config, "nash_shapes", None) or {}), **parts}
    config.nash_shapes = shapes


def random_cut(model: Any, architecture: Architecture, seed: int = 0, *, width_multiple: int = 1) -> Any:
    """A copy with the architecture's *shapes*, untrained: uniform widths, randomly chosen.

    Latency depends on nothing else, so the probe times this before anything is trained. A sparsity
    beyond what one head and one neuron (or `width_multiple` of them) per block allow ends there.
    """
    student = shorten(model, architecture.decoder_layers, "uniform")
    if architecture.encoder_sparsity_pct == 0:
        return student
    generator = torch.Generator().manual_seed(seed)
    keep, stay = 1 - architecture.encoder_sparsity_pct / 100, family_of(model).heads_stay
    kept_heads, kept_neurons = [], []
    for block in encoder_blocks(student):
        parts = block_parts(block)
        per_head, per_neuron = head_parameters(block), neuron_parameters(block)
        wanted = keep * (per_head * parts.heads + per_neuron * parts.neurons)
        heads = parts.heads if stay else min(max(1, round(keep * parts.heads)), parts.heads)
        steps = round((wanted - heads * per_head) / (per_neuron * width_multiple))
        neurons = min(max(1, steps) * width_multiple, parts.neurons)
        kept_heads.append(sorted(torch.randperm(parts.heads, generator=generator)[:heads].tolist()))
        kept_neurons.append(sorted(torch.randperm(parts.neurons, generator=generator)[:neurons].tolist()))
    _cut(student, kept_heads, kept_neurons)
    return student


def head_parameters(block: Any) -> int:
    """Weights that one head of this encoder block owns in the attention matrices."""
    parts = block_parts(block)
    names = (*parts.attention_in, parts.attention_out)
    return sum(parts.attention.get_submodule(name).weight.numel() for name in names) // parts.heads


def neuron_parameters(block: Any) -> int:
    """Weights that one FFN neuron of this encoder block owns."""
    parts = block_parts(block)
    return sum(getattr(parts.ffn, name).weight.numel() for name in (*parts.ffn_in, parts.ffn_out)) // parts.neurons


def encoder_parameters(model: Any) -> int:
    """Attention and FFN matrix weights of the encoder: what sparsity counts."""
    total = 0
    for block in encoder_blocks(model):
        parts = block_parts(block)
        total += head_parameters(block) * parts.heads + neuron_parameters(block) * parts.neurons
    return total


def shapes_of(model: Any) -> Shapes:
    """The physical size of a model, block by block."""
    family = family_of(model)
    parts = [block_parts(block) for block in encoder_blocks(model)]
    depth = len(family.decoder_blocks(model))
    noted = (getattr(model.config, "nash_shapes", None) or {}).get("decoder_blocks")
    return Shapes(
        encoder_heads=tuple(part.heads for part in parts),
        encoder_neurons=tuple(part.neurons for part in parts),
        decoder_blocks=tuple(noted) if noted is not None else tuple(range(depth)),
    )
