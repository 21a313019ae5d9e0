"""The table of model families: one row for everything that differs between T5, BART, T5Gemma and the others.

A family is a `config.model_type`; a model of type `nash_*` (already narrowed) belongs to the family after the prefix.
Preflight, generation settings, the pruner, fine-tuning from scratch and the engines ask the row; a family that is not
in the table is refused by name. Reading the table imports no torch.

To add a family: its row here; its narrow class in `modeling_nash`; where it shares no `Layout` with another one, one
in `layouts`, `modeling_nash.block_parts`, and a conversion in each engine (`latency/runtimes`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nash_search.errors import InvalidInput, shown
from nash_search.layouts import BART_LAYOUT, GEMMA_LAYOUT, MERGED_GEMMA_LAYOUT, T5_LAYOUT, Layout, setting
from nash_search.runtimes import ENGINES

FRAMES_PER_POSITION = 2
"""Frames of features that speech encoders' convolutions make one position of."""
PREFIX = "nash_"
"""Of the model types of `modeling_nash`."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family: how its models are built, started and cut."""

    model_type: str
    """Of its config."""
    title: str
    """What people call its models."""
    narrow: str
    """Class of `modeling_nash` whose encoder blocks may differ in size."""
    layout: Layout
    positions: Literal["relative", "rotary", "learned", "sinusoidal", "growing_sinusoidal"]
    """How a token's position is told. Learned and sinusoidal tables end."""
    positions_keys: tuple[str, str] = ("max_position_embeddings", "max_position_embeddings")
    """Config fields that say where, for inputs and for outputs."""
    outputs_begin_with: Literal["named", "padding", "beginning", "last_label"] = "named"
    """The decoder's first token where the config leaves it open: the padding token; the beginning of a sentence; the
    labels' last token, moved to the front (mBART; `generate` takes the beginning of a sentence instead); or it must be
    named."""
    first_block_has_bias: bool = False
    """The first block computes the relative position bias of all blocks."""
    post_norm: bool = False
    """A sublayer's sum is normalised, not its input: trains at a tenth of the others' rates."""
    normalises_tokens_alone: bool = False
    """The decoder normalises embeddings before positions are added, not their sum."""
    says_tied: bool = False
    """transformers 5 sets `tie_word_embeddings` True whatever the file says (4 obeys the file)."""
    scaled_states_key: str | None = None
    """Config flag under which decoder states are divided by the square root of their width before the head."""
    reads_text: bool = True
    """Its batches hold token ids; False: features of a window of `max_source_positions`, and `generate` gives what
    comes between the decoder's prompt and the end, not the start token first."""
    engines: tuple[str, ...] = ENGINES
    """Engines that can represent its models; all of them where a row names none."""
    misread: str = ""
    """Which server misreads a stock folder whose encoder is narrower in its FFN, and what serves it, in words."""
    heads_stay: bool = False
    """The encoder's attention heads cannot be pruned; only its FFN neurons are."""
    static_cache: bool = True
    """transformers generates the same tokens with a cache of fixed size (static) as with a growing one."""
    requires: tuple[tuple[str, tuple[object, ...], str], ...] = ()
    """Config fields without which a cut is not exact: name, values that do (None: it may be missing), why."""

    @property
    def narrow_class(self) -> type[Any]:
        """The class whose encoder blocks may differ in size."""
        from nash_search import modeling_nash

        found: type[Any] = getattr(modeling_nash, self.narrow)
        return found

    @property
    def stock_class(self) -> type[Any]:
        """The library's class that `narrow_class` extends."""
        return self.narrow_class.__bases__[1]

    def longest(self, config: Any) -> tuple[int, int] | None:
        """Longest input and output that a model (its config) has positions for, tokens; None: any length."""
        found = [setting(config, key) for key in self.positions_keys]
        ends = self.positions in ("learned", "sinusoidal") and all(isinstance(limit, int) for limit in found)
        return (found[0], found[1]) if ends else None

    @property
    def positions_are_sinusoidal(self) -> bool:
        """Fixed positions of size 1, which drown embeddings as small as they start out unless these are scaled."""
        return self.positions in ("sinusoidal", "growing_sinusoidal")

    @property
    def answers_are_labels(self) -> bool:
        """What `generate` returns can be fed back as labels, behind the start token or the labels' own prompt."""
        return self.outputs_begin_with != "last_label"

    def check_settings(self, settings: Mapping[str, Any], where: str = "") -> None:
        """Refuse a config (its fields) under which a cut is not exact.

        Raises:
            InvalidInput: naming the field and the reason.
        """
        for name, values, why in self.requires:
            if setting(settings, name) not in values:
                rule = f"{name} of {self.model_type} must be {shown(values[0])} in config.json ({why})"
                raise InvalidInput(f"{rule}, but got {shown(setting(settings, name))}", where=where)

    def check_engine(self, runtime: str) -> None:
        """Refuse a runtime that cannot represent this family's models.

        Raises:
            InvalidInput: naming both.
        """
        if runtime not in self.engines:
            known = ", ".join(served_by(runtime))
            raise InvalidInput(f"model must be one of {known} for runtime {runtime}, but got {self.model_type}")

    def decoder_blocks(self, model: Any) -> Any:
        """The decoder's blocks, in order (an `nn.ModuleList`)."""
        return getattr(model.get_decoder(), self.layout.blocks)

    def use_decoder_blocks(self, model: Any, blocks: Any) -> None:
        """Let the decoder run with these blocks (an `nn.ModuleList`)."""
        decoder = model.get_decoder()
        setattr(decoder, self.layout.blocks, blocks)
        if getattr(decoder.config, "layer_types", None):  # a block's mask is chosen by its place
            decoder.config.layer_types = [block.attention_type for block in blocks]

    def decoder_attentions(self, block: Any) -> tuple[Any, Any]:
        """Self- and cross-attention of one decoder block."""
        return block.get_submodule(self.layout.self_attention), block.get_submodule(self.layout.cross_attention)


def _t5(model_type: str, title: str, narrow: str, **differs: Any) -> Family:
    row: dict[str, Any] = {"positions": "relative", "outputs_begin_with": "padding", "says_tied": True}
    row |= {"first_block_has_bias": True, **differs}
    return Family(model_type=model_type, title=title, narrow=narrow, layout=T5_LAYOUT, **row)


def _bart(model_type: str, title: str, narrow: str, **differs: Any) -> Family:
    row: dict[str, Any] = {"positions": "learned", **differs}
    return Family(model_type=model_type, title=title, narrow=narrow, layout=BART_LAYOUT, **row)


def _gemma(model_type: str, title: str, narrow: str, **differs: Any) -> Family:
    row: dict[str, Any] = {"layout": GEMMA_LAYOUT, "positions": "rotary", "outputs_begin_with": "beginning"}
    row |= {"engines": (), **differs}
    return Family(model_type=model_type, title=title, narrow=narrow, **row)


FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        _t5(
            "t5",
            "T5, T5 v1.1, Flan-T5, ByT5",
            "NashT5ForConditionalGeneration",
            scaled_states_key="scale_decoder_outputs",
        ),
        _t5("mt5", "mT5", "NashMT5ForConditionalGeneration"),
        _t5(
            "umt5",
            "UMT5",
            "NashUMT5ForConditionalGeneration",
            first_block_has_bias=False,
            scaled_states_key="tie_word_embeddings",
        ),
        _bart(
            "bart",
            "BART",
            "NashBartForConditionalGeneration",
            post_norm=True,
            misread="vLLM's bart-plugin sizes the decoder's FFN by encoder_ffn_dim and misreads an encoder whose FFN "
            "is narrower than the decoder's; TensorRT-LLM reads both widths",
        ),
        _bart(
            "plbart", "PLBart", "NashPLBartForConditionalGeneration", post_norm=True, outputs_begin_with="last_label"
        ),
        _bart(
            "mvp",
            "MVP",
            "NashMvpForConditionalGeneration",
            post_norm=True,
            requires=(("use_prompt", (False, None), "its prompts are made for every head of every block"),),
        ),
        _bart("blenderbot", "Blenderbot", "NashBlenderbotForConditionalGeneration"),
        _bart(
            "blenderbot-small",
            "Blenderbot-small",
            "NashBlenderbotSmallForConditionalGeneration",
            post_norm=True,
            normalises_tokens_alone=True,
        ),
        _bart("mbart", "mBART", "NashMBartForConditionalGeneration", outputs_begin_with="last_label"),
        _bart("pegasus", "Pegasus", "NashPegasusForConditionalGeneration", positions="sinusoidal"),
        _bart(
            "pegasus_x", "PegasusX", "NashPegasusXForConditionalGeneration", positions="growing_sinusoidal", engines=()
        ),
        _bart(
            "bigbird_pegasus",
            "BigBirdPegasus",
            "NashBigBirdPegasusForConditionalGeneration",
            engines=(),
            requires=(("attention_type", ("original_full",), "block_sparse turns full at the first short input"),),
        ),
        _bart(
            "led",
            "LED",
            "NashLEDForConditionalGeneration",
            post_norm=True,
            positions_keys=("max_encoder_position_embeddings", "max_decoder_position_embeddings"),
            heads_stay=True,
            static_cache=False,
            engines=(),
        ),
        _bart("marian", "Marian (OPUS-MT)", "NashMarianMTModel", positions="sinusoidal", post_norm=True),
        _bart("m2m_100", "M2M100, NLLB", "NashM2M100ForConditionalGeneration", positions="growing_sinusoidal"),
        _gemma("t5gemma", "T5Gemma", "NashT5GemmaForConditionalGeneration"),
        _gemma("t5gemma2", "T5Gemma 2", "NashT5Gemma2ForConditionalGeneration", layout=MERGED_GEMMA_LAYOUT),
        _bart("whisper", "Whisper", "NashWhisperForConditionalGeneration", reads_text=False, engines=("ctranslate2",)),
    )
}


NOT_YET = {
    "fsmt": "its tokenizer gives every text the ids of source words, and references need those of target words",
}
"""Encoder-decoders that are refused, and why."""


def family_type(config: Mapping[str, Any]) -> str:
    """The `model_type` of a config.json without our prefix, in the table or not."""
    return str(config.get("model_type")).removeprefix(PREFIX)


def find_family(model_type: str) -> Family | None:
    """The row of a `model_type`, with or without our prefix; None: not in the table."""
    return FAMILIES.get(model_type.removeprefix(PREFIX))


def served_by(runtime: str) -> list[str]:
    """Families whose models an engine outside PyTorch can represent."""
    return [name for name, family in FAMILIES.items() if runtime in family.engines]


def family_of(model_or_config: Any) -> Family:
    """The row of a model or of its config.

    Raises:
        InvalidInput: its `model_type` is not in the table, or it has no decoder to shorten.
    """
    config = getattr(model_or_config, "config", model_or_config)
    model_type = str(getattr(config, "model_type", "") or type(config).__name__)
    family = find_family(model_type)
    if family is None:
        known = ", ".join(sorted(FAMILIES))
        raise InvalidInput(f"model must be one of {known}, but got {model_type}", fix=NOT_YET.get(model_type, ""))
    if hasattr(config, "to_dict"):  # a whole config, not a stored file's type alone
        family.check_settings(vars(config))
    if model_or_config is not config and not isinstance(model_or_config, family.stock_class):
        raise InvalidInput(f"model must be a {family.stock_class.__name__}, but got {type(model_or_config).__name__}")
    return family
