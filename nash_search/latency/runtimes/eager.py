"""Plain PyTorch: `model.generate` as a user calls it, with the output length forced.

The model's own generation settings stay (a repetition penalty costs time, so it is timed), except
what the workload says: length, beams, cache, no sampling.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from nash_search import generation, loading
from nash_search.config import Workload
from nash_search.encoder_rows import Given, on_device, rows_of
from nash_search.errors import InvalidInput
from nash_search.families import FRAMES_PER_POSITION, find_family
from nash_search.latency.workload import Inputs, random_features, random_inputs, task_inputs
from nash_search.writing import written

NATURAL_LIMIT = 4
"""A model that never ends by itself is stopped after this multiple of the workload's output."""
DEFAULT_ATTENTION = "sdpa"
PROMPT = 8
"""Positions that are left to the decoder's prompt, where a model has one (4 tokens at most)."""
ZERO_SHARE = 0.02
"""Encoder rows and columns that may be all zero before a model counts as masked instead of cut."""


class EagerSession:
    """One torch model on one workload."""

    def __init__(self, model: Any, workload: Workload, inputs: Inputs, given: Any = None) -> None:
        self.model, self.workload, self.inputs = model, workload, inputs
        self.given = model if given is None else given  # gates and hooks do not survive a change of precision
        family = find_family(str(getattr(model.config, "model_type", "")))
        self._before = 0 if family is not None and not family.reads_text else 1
        self._was_training = model.training
        self._own_config = model.generation_config
        self._own_attention = getattr(model.config, "_attn_implementation", workload.attention)
        _use_attention(model, workload.attention)
        model.eval()
        self.forced = forced_config(model, workload)
        self.free = copy.deepcopy(self.forced)
        own = self._own_config.max_new_tokens or self._own_config.max_length or 2 * workload.output_tokens
        own = min(own, RUNTIME.longest(model) or own)
        self.free.update(min_new_tokens=None, max_new_tokens=max(1, min(own, NATURAL_LIMIT * workload.output_tokens)))

    def generate(self) -> torch.Tensor:
        """Ids to the device, encoder, exactly N steps, ids back."""
        return self._run(self.forced)

    def generated_tokens(self, output: torch.Tensor) -> int:
        """Columns after the decoder's start token, where it is given."""
        return int(output.shape[1]) - self._before

    def encode(self) -> object:
        """The encoder alone, from inputs on the host."""
        with torch.no_grad():
            return self.model.get_encoder()(**on_device(self.inputs.batch, self.model))

    def natural(self) -> int:
        """Generate until the model ends by itself (at most its own limit)."""
        return self.generated_tokens(self._run(self.free))

    def weight_bytes(self) -> int:
        """Parameters and buffers."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return sum(t.numel() * t.element_size() for t in tensors)

    def facts(self) -> dict[str, Any]:
        """Where the inputs come from, and the attention that really runs."""
        return {"inputs": self.inputs.kind, "attention": getattr(self.model.config, "_attn_implementation", None)}

    def warnings(self) -> list[str]:
        """Gates and masks that are still there."""
        return not_cut(self.given)

    def close(self) -> None:
        """Give the model back as it was."""
        self.model.generation_config = self._own_config
        _use_attention(self.model, self._own_attention)
        self.model.train(self._was_training)

    def _run(self, config: Any) -> torch.Tensor:
        self.model.generation_config = config  # as an argument, its Nones would be filled from the model's own
        return written(self.model, self.inputs.batch)


class Eager:
    """PyTorch without a compiler."""

    artefact = None
    outside_torch = False

    def precisions(self, device: str) -> tuple[tuple[str, str], ...]:
        """float32, and on a GPU both halves (most CPUs emulate them)."""
        halves = ("bfloat16", "float16") if device.startswith("cuda") else ()
        return tuple((dtype, "none") for dtype in ("float32", *halves))

    def export(self, model: Any, folder: str, workload: Workload, rows: Given | None = None) -> None:
        """Nothing: the checkpoint itself is served."""

    def load(self, folder: str, workload: Workload) -> Any:
        """As its card loads it (`loading.load`), on the workload's device."""
        model = loading.load(folder, workload.dtype)
        _use_attention(model, workload.attention)
        return model.to(workload.device)

    def build(self, model: Any, workload: Workload, inputs: Given | None) -> EagerSession:
        """The model itself where device and precision fit, else a converted copy."""
        placed = self.placed(model, workload)
        return EagerSession(placed, workload, self.inputs(placed, workload, inputs), given=model)

    def placed(self, model: Any, workload: Workload) -> Any:
        """The model on the workload's device in its precision: what `load` gives for the folder it is saved in."""
        if workload.quantize != "none":
            raise InvalidInput(f"quantize must be none for runtime {workload.runtime}, but got {workload.quantize}")
        found = loading.in_precision(model, workload.dtype)
        if next(model.parameters()).device == torch.device(workload.device):
            return found
        return (loading.copied(found) if found is model else found).to(workload.device)

    def inputs(self, model: Any, workload: Workload, rows: Given | None) -> Inputs:
        """Real inputs, or random ones: ordinary tokens of this model, or features of its window."""
        config = model.config
        pad = config.pad_token_id or 0
        if rows is not None:
            return task_inputs(workload, rows, pad=pad)
        if self.is_speech(model):
            return random_features(workload, config.num_mel_bins, FRAMES_PER_POSITION * config.max_source_positions)
        return random_inputs(workload, vocabulary=config.vocab_size, pad=pad, special=self.special(config))

    def longest(self, model: Any) -> int | None:
        """New tokens that the model has positions for (None: any number)."""
        if not hasattr(model.get_encoder(), "embed_positions"):
            return None
        if self.is_speech(model):
            return int(model.config.max_target_positions) - PROMPT
        family = find_family(str(model.config.model_type))
        key = "max_position_embeddings" if family is None else family.positions_keys[1]
        found: int | None = getattr(model.config, key, None)
        return found

    def is_speech(self, model: Any) -> bool:
        """Features go into the model, not token ids."""
        return str(model.main_input_name) == "input_features"

    def prompt(self, model: Any) -> tuple[int, ...]:
        """Token ids that outputs are written behind: the start; where the model hears, language and task too.

        Raises:
            InvalidInput: it knows several languages and is told none, so it would listen for one at every call.
        """
        own = model.generation_config
        if not self.is_speech(model):
            return (own.decoder_start_token_id,)
        settings, language = own.to_dict(), getattr(own, "language", None)
        if language is None and settings.get("lang_to_id"):
            fix = 'add "language": "en" there'
            raise InvalidInput("language must stand in generation_config.json, but got none", fix=fix)
        return generation.prompt_of(settings, language, getattr(own, "task", None) or "transcribe")

    def special(self, config: Any) -> set[int]:
        """Tokens that no ordinary input is made of."""
        names = ("pad_token_id", "eos_token_id", "bos_token_id", "decoder_start_token_id", "forced_eos_token_id")
        found: set[int] = set()
        for name in names:
            value = getattr(config, name, None)
            found |= set(value if isinstance(value, list) else [] if value is None else [value])
        return found

    def tokens(self, model: Any, rows: Given, *, beams: int, max_new_tokens: int) -> list[list[int]]:
        """Generate freely from padded rows, in one batch; settings besides these are the model's own."""
        batch = rows_of(rows).batch(model.config.pad_token_id or 0)
        own, was_training = model.generation_config, model.training
        config = _without_sampling(own)
        config.update(max_new_tokens=max_new_tokens, max_length=None, num_beams=beams)
        model.generation_config = config
        model.eval()
        try:
            output: list[list[int]] = written(model, batch).tolist()
        finally:
            model.generation_config = own
            model.train(was_training)
        return output

    def fingerprint(self, workload: Workload) -> dict[str, Any]:
        """Torch's version is the host's; float16 says that it is loaded as a user loads it (older times were not)."""
        return {"weights": "as from_pretrained loads them"} if workload.dtype == "float16" else {}


RUNTIME = Eager()


def forced_config(model: Any, workload: Workload) -> Any:
    """The model's generation settings with exactly N tokens, the asked beams, the cache, no sampling."""
    config = _without_sampling(model.generation_config)
    config.update(
        max_new_tokens=workload.output_tokens,
        min_new_tokens=workload.output_tokens,
        max_length=None,
        min_length=None,
        num_beams=workload.beams,
        use_cache=True,
        cache_implementation=None,
    )
    return config


def not_cut(model: Any) -> list[str]:
    """Signs that parts are gated or masked instead of cut, which saves no time at all."""
    found: list[str] = []
    gated = sum(1 for module in model.modules() if module is not model and _is_patched(module))
    if gated:
        found.append(f"{gated} modules are gated or hooked: a gated model runs at full size, cut it before timing")
    linears = [m for m in model.get_encoder().modules() if isinstance(m, nn.Linear)]
    zero = total = 0
    for linear in linears:
        alive = linear.weight != 0
        zero += int((~alive.any(0)).sum()) + int((~alive.any(1)).sum())
        total += sum(linear.weight.shape)
    if total and zero / total > ZERO_SHARE:
        share_pct = 100 * zero / total
        found.append(
            f"{share_pct:.0f} % of the encoder's rows and columns are zero: masked, not cut, and timed in full"
        )
    return found


def _is_patched(module: nn.Module) -> bool:
    return "forward" in vars(module) or bool(module._forward_hooks) or bool(module._forward_pre_hooks)


def _without_sampling(config: Any) -> Any:
    """The same text for the same input, each time, and nothing beside it."""
    config = copy.deepcopy(config)
    config.update(**{name: neutral[0] for name, neutral in generation.SET.items()})
    return config


def _use_attention(model: Any, attention: str | None) -> None:
    """Switch the attention implementation; a model without sdpa keeps its own (`facts` says which)."""
    if attention is None or getattr(model.config, "_attn_implementation", attention) == attention:
        return
    try:
        model.set_attn_implementation(attention)
    except ValueError as error:
        if attention != DEFAULT_ATTENTION:
            raise InvalidInput(f"attention must be one that {type(model).__name__} has, but got {attention}") from error
