"""The NASH pruner: structured pruning of encoder-decoder models, a library on its own.

    student = prune(teacher, architecture, recipe, batches)      # shorten, narrow, cut, tune
    save(student, "student"); student = load("student")

A smaller decoder by depth, a smaller encoder by width (Ko et al. 2023, arXiv 2310.10054). Names are
imported when first used, so that `import nash_search.pruner` stays free of torch. It is handed its batches
and a guard around each step, and needs no task, clock or search.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nash_search.lazy import names_of

if TYPE_CHECKING:
    from nash_search.pruner.checkpoint import check_export, load, save, save_tokenizer
    from nash_search.pruner.distillation import encoder_is_frozen
    from nash_search.pruner.layer_selection import selected_blocks
    from nash_search.pruner.pruning import largest_sparsity_pct, prune, run
    from nash_search.pruner.sequence_distillation import answered, labelled
    from nash_search.pruner.stages import Pruned
    from nash_search.pruner.supernet import Supernet, train_supernet
    from nash_search.pruner.surgery import cut, cut_window, random_cut, shapes_of, shorten, writing_like
    from nash_search.pruner.teacher_cache import TeacherCache
    from nash_search.pruner.training import Optimization, TrainingContext, Watch, in_bf16, train
    from nash_search.pruner.vocabulary import trim_vocabulary

_HOME = {
    "answered": "sequence_distillation",
    "check_export": "checkpoint",
    "encoder_is_frozen": "distillation",
    "labelled": "sequence_distillation",
    "load": "checkpoint",
    "save": "checkpoint",
    "save_tokenizer": "checkpoint",
    "selected_blocks": "layer_selection",
    "Pruned": "stages",
    "Supernet": "supernet",
    "largest_sparsity_pct": "pruning",
    "prune": "pruning",
    "run": "pruning",
    "TeacherCache": "teacher_cache",
    "Optimization": "training",
    "TrainingContext": "training",
    "Watch": "training",
    "train": "training",
    "train_supernet": "supernet",
    "cut": "surgery",
    "cut_window": "surgery",
    "in_bf16": "training",
    "random_cut": "surgery",
    "shapes_of": "surgery",
    "shorten": "surgery",
    "trim_vocabulary": "vocabulary",
    "writing_like": "surgery",
}

__all__ = [
    "Optimization",
    "Pruned",
    "Supernet",
    "TeacherCache",
    "TrainingContext",
    "Watch",
    "answered",
    "check_export",
    "cut",
    "cut_window",
    "encoder_is_frozen",
    "in_bf16",
    "labelled",
    "largest_sparsity_pct",
    "load",
    "prune",
    "random_cut",
    "run",
    "save",
    "save_tokenizer",
    "selected_blocks",
    "shapes_of",
    "shorten",
    "train",
    "train_supernet",
    "trim_vocabulary",
    "writing_like",
]


__getattr__ = names_of(__name__, _HOME)
