"""The one way in which a PyTorch model is asked to write: `generate`, and of a speech model text, never time stamps.

Whisper's `generate` takes two time stamps in a row for the end of a segment, drops what follows and listens again from
the time that the first one names. A model that few steps have taught may write such a pair where it was told to leave
times out: its call is then several calls, or never ends (two stamps of 0 s).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from nash_search.encoder_rows import on_device


class NoTimeStamps(LogitsProcessor):
    """Scores, (rows, vocabulary), without the tokens from `first` on.

    A slice, for a list of `suppress_tokens` costs 3 ms a token (1,501 of 51,865 ids, one core).
    """

    def __init__(self, first: int) -> None:
        self.first = first

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores, changed in place."""
        scores[:, self.first :] = -torch.inf
        return scores


def written(model: Any, batch: Mapping[str, torch.Tensor], **settings: Any) -> torch.Tensor:
    """Ids that `model.generate` gives for a batch from the host, (rows, tokens), on the host.

    Args:
        model: on any device.
        batch: `EncoderRows.batch`.
        settings: of generation, instead of the model's own.
    """
    last = getattr(model.generation_config, "no_timestamps_token_id", None)  # time stamps are the ids behind it
    if last is not None:
        settings["logits_processor"] = LogitsProcessorList([NoTimeStamps(last + 1)])
    found: torch.Tensor = model.generate(**on_device(batch, model), **settings)
    return found.cpu()
