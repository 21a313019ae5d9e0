"""`nash-search init`: a commented search space for a given model, to edit and keep.

The model is vetted; its depth and family choose the defaults.
"""

from __future__ import annotations

import json

from nash_search.config import DATA_FORMATS
from nash_search.errors import either
from nash_search.families import FAMILIES
from nash_search.tasks import models

TEXTS = (
    f"  data: ./data               # yours: a file or folder of {either(DATA_FORMATS)}, or a hub dataset id",
    "  # source_column: source    # text in; guessed where it has a usual name",
    "  # target_column: target    # text out",
    '  prefix: ""                 # put before every source, e.g. "summarize: "',
    "  metric: rougeL             # or bleu, chrf, exact_match, accuracy, f1, per, wer, module:Class, …",
    "  # max_input_tokens: 512    # longer sources are cut; the data's own lengths by default",
)
RECORDINGS = (
    "  data: ./data               # yours: a folder of recordings with a table of file and text",
    "  # source_column: file      # recording in; guessed where it has a usual name",
    "  # target_column: text      # transcript out",
    "  # language: en             # of a model of several languages; name: translate writes English",
    "  # audio_seconds: 5         # window of the encoder; finetune the model at a short one first",
    "  metric: wer                # or cer; after the model's own normaliser",
)
"""Lines about inputs, for a model that reads and for one that hears."""


def search_space_text(model: str) -> str:
    """YAML that `load_config` accepts, one comment per field.

    Raises:
        InvalidInput: when the model cannot be searched.
    """
    found = models.find_model(model)
    rate = "5e-5" if FAMILIES[found.model_type].post_norm else "3e-4"
    layers = ", ".join(str(n) for n in _depths(found.decoder_layers))
    name = json.dumps(model)  # a JSON string is a YAML string
    lines = (
        f"# A search space for {ascii(model)[1:-1]} ({found.model_type}, {found.encoder_layers} encoder and "
        f"{found.decoder_layers} decoder blocks).",
        "# Not yet run by us. Written by `nash-search init`; edit it, then: nash-search --config FILE --budget-ms 50%",
        f"model: {name}",
        "",
        "task:",
        "  name: mine                 # the name the study goes by",
        *(TEXTS if FAMILIES[found.model_type].reads_text else RECORDINGS),
        "  # max_output_tokens: 128   # the cap of generation",
        "  # validation_examples: 500 # scored for every trial; all of them by default",
        "",
        "search_space:",
        "  encoder_sparsity_pct: [0, 60, 10]   # low, high, step: percent of encoder attention + FFN weights removed",
        f"  decoder_layers: [{layers}]".ljust(38) + f"# decoder blocks kept, of {found.decoder_layers}",
        "",
        "recipe:",
        "  calibrate: true            # short trainings first find both rates and the labels (a quarter of the time)",
        "  narrow_steps: 2000         # optimizer steps with gates and distillation",
        "  tune_steps: 2000           # optimizer steps on the cut model, still distilling",
        "  batch_size: 16             # sequences per step",
        f"  learning_rate: {rate}        # weights while gates train: where the calibration begins",
        f"  tune_learning_rate: {rate}   # weights after the cut: the same",
        "  gate_learning_rate: 0.05   # the paper's 0.01 is for ten times the steps",
        "  precision: auto            # bf16 by autocast where that trains faster, else fp32",
        "",
        "workload:                    # the one generate call whose wall time is the latency",
        "  batch_size: 1              # requests served at once",
        "  # input_tokens: 128        # the data's median by default",
        "  # output_tokens: 32        # forced exactly; the references' median by default",
        "  # threads: 1               # CPU threads of the timed process",
        "",
        "trials: 12                   # trained trials",
        "",
    )
    return "\n".join(lines)


def _depths(total: int) -> list[int]:
    """Few decoder depths that tell: all up to 4, then every second, and the model's own."""
    return sorted({*range(1, min(4, total) + 1), *range(6, total + 1, 2), total})
