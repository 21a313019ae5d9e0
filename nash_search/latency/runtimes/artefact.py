"""The folder that an engine loads by itself, and the record that says what lies in it.

    checkpoint/ config.json, model.safetensors, ...
                ctranslate2/ artefact.json, and the engine's own files

`found` answers only for the precision that was asked for: a quantised artefact must never be timed as
a full one, nor the other way round.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from nash_search.config import Workload
from nash_search.errors import InvalidInput
from nash_search.files import staged_folder
from nash_search.records import Artefact

FILE = "artefact.json"


def found(folder: str | Path, runtime: str, workload: Workload) -> tuple[Path, Artefact] | None:
    """The engine's folder and its record, where there is one of this runtime, dtype and quantisation.

    Raises:
        InvalidInput: its record cannot be read.
    """
    place = Path(folder) / runtime
    if not (place / FILE).is_file():
        return None
    try:
        record = Artefact.model_validate_json((place / FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise InvalidInput(f"{FILE} must be a record of ours, but {place} has another one") from error
    asked = runtime, workload.dtype, workload.quantize
    return (place, record) if (record.runtime, record.dtype, record.quantize) == asked else None


@contextmanager
def written(folder: str | Path, record: Artefact) -> Iterator[Path]:
    """A staging folder to fill; becomes `folder / record.runtime` whole, with its record, or not at all."""
    target = Path(folder) / record.runtime
    with staged_folder(target, durable=False) as staging:
        yield staging
        (staging / FILE).write_text(record.model_dump_json(indent=1), "utf-8")
        staging.chmod(0o755)
