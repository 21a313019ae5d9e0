"""An encoder-decoder as two ONNX graphs, by the names that optimum and transformers.js load it by.

    encoder_model.onnx          input_ids (B, S), attention_mask (B, S) -> last_hidden_state (B, S, E)
    decoder_model_merged.onnx   input_ids (B, T), encoder_attention_mask (B, S), encoder_hidden_states (B, S, E),
                                past_key_values.i.{decoder,encoder}.{key,value} (B, H, P or S, D), use_cache_branch (1,)
                                -> logits (B, T, V), present.i.{decoder,encoder}.{key,value}

The decoder is one `If`: without a past it reads T tokens and says the keys and values of the encoder's states as well;
with a past it reads one token more, and what it says of the encoder is empty. Both branches share every weight.

The family's own modules run under the trace, so that cut shapes need nothing here. Traced and written by PyTorch's
older exporter: half a second per graph, where torch.export (which `transformers.exporters` wraps) takes 16 to 20 s for
the same tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch import nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from nash_search.errors import InvalidInput

ENCODER, DECODER = "encoder_model.onnx", "decoder_model_merged.onnx"
FIRST, NEXT = "decoder_model.onnx", "decoder_with_past_model.onnx"
"""The branches of the decoder, each a graph of its own."""
OPSET = 17
LARGEST_BYTES = 2**31 - 2**24
"""Of one ONNX file, which is one protobuf message."""
BRANCH = "use_cache_branch"
STATES, MASK = "encoder_hidden_states", "encoder_attention_mask"
OWN, CROSS = "decoder", "encoder"
"""Whose keys and values: the tokens written so far, or the encoder's states."""


def names_of(kind: str, blocks: int, whose: Sequence[str] = (OWN, CROSS)) -> list[str]:
    """Names of the keys and values of so many decoder blocks, `past_key_values.0.decoder.key` the first."""
    return [f"{kind}.{i}.{one}.{part}" for i in range(blocks) for one in whose for part in ("key", "value")]


class _Encoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """What the decoder looks at."""
        mask_B1SS = _added(attention_mask, input_ids.shape[1])
        found: torch.Tensor = self.model.get_encoder()(input_ids=input_ids, attention_mask=mask_B1SS)[0]
        return found


class _First(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, encoder_attention_mask: torch.Tensor, encoder_hidden_states: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Tokens from the start on: logits, then each block's keys and values of them and of the encoder's states."""
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        places_T = torch.arange(input_ids.shape[1])
        later_TT = (places_T[None, :] > places_T[:, None]).to(torch.float32) * torch.finfo(torch.float32).min
        logits_BTV = self.model(
            decoder_input_ids=input_ids,
            attention_mask=_added(encoder_attention_mask, input_ids.shape[1]),
            decoder_attention_mask=later_TT[None, None].expand(input_ids.shape[0], 1, -1, -1),
            encoder_outputs=(encoder_hidden_states,),
            past_key_values=cache,
            use_cache=True,
        ).logits
        layers: Any = zip(cache.self_attention_cache.layers, cache.cross_attention_cache.layers, strict=True)
        return (logits_BTV, *(tensor for pair in layers for own in pair for tensor in (own.keys, own.values)))


class _Next(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, encoder_attention_mask: torch.Tensor, past: list[torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        """One token more: logits, and each block's keys and values of all tokens so far."""
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        for block in range(len(past) // 4):
            own_key, own_value, cross_key, cross_value = past[4 * block : 4 * block + 4]
            cache.self_attention_cache.update(own_key, own_value, block)
            cache.cross_attention_cache.update(cross_key, cross_value, block)
            cache.is_updated[block] = True  # the encoder's states are not looked at again
        batch, source = encoder_attention_mask.shape
        logits_B1V = self.model(
            decoder_input_ids=input_ids,
            attention_mask=_added(encoder_attention_mask, 1),
            decoder_attention_mask=torch.zeros(batch, 1, 1, past[0].shape[2] + 1),
            encoder_outputs=(torch.zeros(batch, source, self.model.config.d_model),),
            past_key_values=cache,
            use_cache=True,
        ).logits
        layers: list[Any] = cache.self_attention_cache.layers
        return (logits_B1V, *(tensor for layer in layers for tensor in (layer.keys, layer.values)))


def export(model: Any, folder: Path) -> None:
    """Write the encoder, both branches and the decoder of a float32 model on the CPU, which is left as it was.

    Raises:
        InvalidInput: the decoder is too large for one ONNX file.
    """
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in model.get_decoder().parameters())
    if size_bytes > LARGEST_BYTES:
        raise InvalidInput(f"decoder must take at most {LARGEST_BYTES} bytes in ONNX, but got one of {size_bytes}")
    ids_BS, mask_BS = torch.full((2, 3), model.config.vocab_size - 1), torch.tensor([[1, 1, 1], [1, 1, 0]])
    rows, source = {0: "rows"}, {0: "rows", 1: "source"}
    with torch.no_grad(), _plain_attention(model), _quiet():
        encoder, first = _Encoder(model).eval(), _First(model).eval()
        states_BSE = encoder(ids_BS, mask_BS)
        present = list(first(ids_BS[:, :2], mask_BS, states_BSE))[1:]
        blocks = len(present) // 4
        said = {"logits": {0: "rows", 1: "tokens"}, **_axes(names_of("present", blocks, (OWN,)), "now")}
        cross = _axes(names_of("present", blocks, (CROSS,)), "source")
        _write(
            encoder,
            (ids_BS, mask_BS),
            folder / ENCODER,
            ["input_ids", "attention_mask"],
            ["last_hidden_state"],
            {"input_ids": source, "attention_mask": source, "last_hidden_state": source},
        )
        _write(
            first,
            (ids_BS[:, :2], mask_BS, states_BSE),
            folder / FIRST,
            ["input_ids", MASK, STATES],
            ["logits", *names_of("present", blocks)],
            {"input_ids": {0: "rows", 1: "tokens"}, MASK: source, STATES: source, **said, **cross},
        )
        _write(
            _Next(model).eval(),
            (ids_BS[:, :1], mask_BS, present),
            folder / NEXT,
            ["input_ids", MASK, *names_of("past_key_values", blocks)],
            ["logits", *names_of("present", blocks, (OWN,))],
            {
                "input_ids": rows, MASK: source, **said,
                **_axes(names_of("past_key_values", blocks, (OWN,)), "past"),
                **_axes(names_of("past_key_values", blocks, (CROSS,)), "source"),
            },
        )  # fmt: skip
    merge(folder, folder / DECODER)


def merge(folder: Path, target: Path) -> None:
    """The two branches of a folder as one graph that holds each weight once."""
    first, later = onnx.load(folder / FIRST), onnx.load(folder / NEXT)
    weights: dict[tuple[int, tuple[int, ...], bytes], TensorProto] = {}
    inputs = {value.name: value for model in (later, first) for value in model.graph.input}
    inputs["input_ids"] = next(value for value in first.graph.input if value.name == "input_ids")
    blocks = len(first.graph.output) // 4
    pairs = zip(first.graph.output[1:], names_of("past_key_values", blocks), strict=True)
    for said, asked in ((said, inputs[name]) for said, name in pairs):
        for at, dimension in ((1, "heads"), (3, "width")):  # the trace knows them of its inputs only
            own = asked.type.tensor_type.shape.dim[at]
            said.type.tensor_type.shape.dim[at].dim_value = own.dim_value
            own.dim_param = dimension  # for an empty past optimum guesses them, and T5's wrongly
    flag = helper.make_tensor_value_info(BRANCH, TensorProto.BOOL, [1])
    outputs = [value.name for value in first.graph.output]
    empty = {
        value.name: value for value in first.graph.output if value.name not in {o.name for o in later.graph.output}
    }
    chosen = helper.make_node(
        "If",
        [BRANCH],
        outputs,
        then_branch=_branch("next", later.graph, inputs, outputs, weights, empty),
        else_branch=_branch("first", first.graph, inputs, outputs, weights, {}),
    )
    order = ["input_ids", MASK, STATES, *names_of("past_key_values", blocks)]
    graph = helper.make_graph(
        [chosen], "decoder", [*(inputs[name] for name in order), flag], list(first.graph.output), [*weights.values()]
    )
    made = helper.make_model(graph, opset_imports=list(first.opset_import), ir_version=first.ir_version)
    target.write_bytes(made.SerializeToString())


def _branch(
    name: str,
    graph: Any,
    inputs: dict[str, Any],
    outputs: Sequence[str],
    weights: dict[tuple[int, tuple[int, ...], bytes], TensorProto],
    empty: dict[str, Any],
) -> Any:
    """A graph without inputs or weights of its own: names of its values begin with its own, weights are shared.

    Args:
        name: of the branch.
        graph: what it does.
        inputs: of the whole, by name.
        outputs: of the whole, in order.
        weights: of the whole so far, by content; added to.
        empty: outputs that this branch has nothing to say for.
    """
    shared = {}
    for tensor in graph.initializer:
        key = (tensor.data_type, tuple(tensor.dims), onnx.numpy_helper.to_array(tensor).tobytes())
        if key not in weights:
            weights[key] = TensorProto()
            weights[key].CopyFrom(tensor)
            weights[key].name = f"weight_{len(weights)}"
        shared[tensor.name] = weights[key].name

    def renamed(value: str) -> str:
        return value if not value or value in inputs else shared.get(value, f"{name}/{value}")

    nodes = []
    for node in graph.node:
        made = onnx.NodeProto()
        made.CopyFrom(node)
        assert not any(attribute.HasField("g") for attribute in node.attribute), "traced graphs have no branches"
        made.name = f"{name}/{node.name}"
        made.input[:] = [renamed(value) for value in node.input]
        made.output[:] = [renamed(value) for value in node.output]
        nodes.append(made)
    said = {value.name: value for value in graph.output} | empty
    for value in empty.values():
        heads, width = (value.type.tensor_type.shape.dim[i].dim_value for i in (1, 3))
        nothing = helper.make_tensor(f"{name}/{value.name}/nothing", TensorProto.FLOAT, [0, heads, 1, width], [])
        nodes.append(helper.make_node("Constant", [], [f"{name}/{value.name}"], value=nothing))
    made_outputs = []
    for output in outputs:
        value = onnx.ValueInfoProto()
        value.CopyFrom(said[output])
        value.name = renamed(output)
        if output in empty:
            value.type.tensor_type.ClearField("shape")
        made_outputs.append(value)
    return helper.make_graph(nodes, name, [], made_outputs)


def _write(
    module: nn.Module,
    arguments: tuple[Any, ...],
    target: Path,
    inputs: list[str],
    outputs: list[str],
    axes: dict[str, dict[int, str]],
) -> None:
    torch.onnx.export(
        module,
        arguments,
        str(target),
        input_names=inputs,
        output_names=outputs,
        dynamic_axes=axes,
        opset_version=OPSET,
        dynamo=False,
    )


def _added(mask_BS: torch.Tensor, queries: int) -> torch.Tensor:
    """A mask as families add it to their scores, so that none builds its own under the trace; MVP wants all of it."""
    lowest = torch.finfo(torch.float32).min
    return ((1.0 - mask_BS[:, None, None, :].to(torch.float32)) * lowest).expand(-1, 1, queries, -1)


def _axes(names: list[str], length: str) -> dict[str, dict[int, str]]:
    return {name: {0: "rows", 2: length} for name in names}


@contextmanager
def _plain_attention(model: Any) -> Iterator[None]:
    """Matrix products and a softmax, which every opset can say."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """The trace warns of every shape it takes for a constant; what it got wrong, the comparison finds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
