"""Where rows come from: a file or folder (`layout.py`), or a hub dataset; nothing is ever executed or unpickled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nash_search.config import TaskConfig
from nash_search.errors import InvalidInput, shown, shown_path
from nash_search.tasks import hub, layout
from nash_search.tasks.tables import Table
from nash_search.tasks.typed_tables import Typed, root_cause


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where rows come from: the tables of each split that exists."""

    name: str
    """The file, folder or hub id, as the user gave it."""
    is_hub: bool
    splits: Mapping[str, tuple[Table, ...]]
    """`train`, `validation`, `test` (those that exist) to what is read one after the other."""
    notes: tuple[str, ...] = ()
    """What was put together and what was left alone."""


def open_source(config: TaskConfig) -> Source:
    """Find the splits of `config.data` without reading rows.

    Raises:
        InvalidInput: when nothing readable is there, or the hub cannot be reached.
    """
    name = config.data or ""
    wanted = {"train": config.train_split, "validation": config.validation_split, "test": config.test_split}
    if len(set(wanted.values())) < len(wanted):
        fix = "name three splits, or leave out the ones to be carved from train"
        raise InvalidInput(f"splits must differ, but got {', '.join(wanted.values())}", where="task", fix=fix)
    if not hub.is_local(name):
        return _named(_hub_source(name, config, wanted), wanted)
    if not name.strip() or not hub.exists(name):
        raise InvalidInput(
            "data must exist, but got no such file or folder", where=shown_path(name), fix="check --data"
        )
    found = layout.look(Path(name), wanted)
    return _named(Source(name=name, is_hub=False, splits=found.tables, notes=found.notes), wanted)


def _named(source: Source, wanted: Mapping[str, str]) -> Source:
    """Refuse to carve a split that was named: a slip of the pen must not replace the user's test set."""
    for split, name in wanted.items():
        if name != split and split not in source.splits:
            what = f"{split} split must be in the data when it is named, but got {shown(name)}"
            fix = "check the name; left out, it is carved from train"
            raise InvalidInput(what, where=f"--{split}-split, {shown_path(source.name)}", fix=fix)
    return source


def _hub_source(name: str, config: TaskConfig, wanted: Mapping[str, str]) -> Source:
    there = hub.reachable()
    import datasets

    fix = "check the name, or give a local file or folder to --data"
    try:
        known = datasets.get_dataset_split_names(name, config.data_config)
    except Exception as error:
        what = f"hub dataset must be readable, but got {root_cause(error)}"
        if not there:
            what = "data must be a local path or a hub dataset that can be reached, but got neither"
        raise InvalidInput(what, where=shown_path(name), fix=fix) from None
    if wanted["train"] not in known:
        what = f"train split must be one of {', '.join(known)}, but got {wanted['train']}"
        raise InvalidInput(what, where=shown_path(name), fix="give --train-split")

    def table(split: str) -> Typed:
        def opened(names: Sequence[str] | None) -> Any:
            try:
                found = datasets.load_dataset(name, config.data_config, split=split)
            except Exception as error:
                what = f"hub dataset must be readable, but got {root_cause(error)}"
                raise InvalidInput(what, where=shown_path(name), fix=fix) from None
            return found.features if names is None else found

        return Typed(f"{split} split of {name}", opened)

    splits = {split: (table(asked),) for split, asked in wanted.items() if asked in known}
    return Source(name=name, is_hub=True, splits=splits)
