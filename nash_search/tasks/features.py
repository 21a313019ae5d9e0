"""Log-mel features of a split's recordings, made once by the model's own extractor and kept as a memory map.

    names -> features-KEY.npy, (rows, bins, frames) in float16, and features-KEY.json: what was found on the way

They lie in the user's cache folder (`$XDG_CACHE_HOME/nash-search`), shared by every process and study; a file that
changed is decoded anew. Half precision is finer than the features are known (16-bit sound).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from filelock import FileLock

from nash_search.config import Frozen, digest
from nash_search.encoder_rows import FeatureRows
from nash_search.errors import InvalidInput, message_of, shown_path
from nash_search.files import ask_free, cache_folder, forget_unused, mark_used, staged_file, write_atomic
from nash_search.tasks.clips import Clips
from nash_search.tasks.speech_settings import SpeechSettings

VERSION = 1
"""Raise when recordings are decoded otherwise: what was kept of before is then not used."""
AT_ONCE = 8
"""Clips whose features are made together."""


class Index(Frozen):
    """What was made of a list of recordings."""

    content: str
    """Digest of the files' bytes."""
    seconds: tuple[float, ...]
    """Of each clip, before it is filled up to the window."""
    resampled: dict[int, int] = {}
    """By rate, clips that had another than the model's."""
    mixed: int = 0
    """Clips of several channels."""


class SpeechFeatures:
    """Makes a speech task's input features: the model's extractor at the window's length, and the recordings."""

    def __init__(
        self, settings: SpeechSettings, clips: Clips, where: str, rows: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """`where` names the data in errors; `rows` maps a recording's name to the data's row that names it."""
        from transformers import AutoFeatureExtractor

        self.settings, self._clips, self._where, self._rows = settings, clips, where, rows
        length = int(settings.seconds) if settings.seconds == int(settings.seconds) else settings.seconds
        try:
            self.extractor: Any = AutoFeatureExtractor.from_pretrained(
                settings.folder, local_files_only=True, trust_remote_code=False, chunk_length=length
            )
        except Exception as error:
            reason = message_of(error, 120)
            what = f"feature extractor must be readable, but got {reason}"
            raise InvalidInput(what, where=shown_path(settings.folder)) from None

    def rows(self, names: Sequence[str]) -> tuple[FeatureRows, Index]:
        """Features of these recordings, mapped from the cache folder (made now where missing), and their `Index`."""
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        stated = [[name, *_stat(self._clips.place(name))] for name in names]
        settings = {k: v for k, v in self.extractor.to_dict().items() if not k.startswith("_")}
        key = digest([VERSION, settings, self.settings.positions, stated])[:32]
        features, known = folder / f"features-{key}.npy", folder / f"features-{key}.json"
        with FileLock(folder / ".lock"):
            index = _stored(known) if features.is_file() else None
            if index is None:
                forget_unused(folder)
                index = self._made(names, folder, features.name)
                write_atomic(known, index.model_dump_json())
            mark_used(features, known)  # under the lock: whoever forgets holds it too
        return FeatureRows(features, range(len(names)), self.settings.positions), index

    def _made(self, names: Sequence[str], folder: Path, name: str) -> Index:
        bins, frames = int(self.extractor.feature_size), int(self.extractor.nb_max_frames)
        ask_free(folder, 2 * len(names) * bins * frames, "the features of recordings")
        content = hashlib.sha256()
        seconds, resampled, mixed = list[float](), Counter[int](), 0
        with staged_file(folder / name, durable=False) as staging, staging.open("wb") as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": (len(names), bins, frames)}
            np.lib.format.write_array_header_2_0(file, header)
            for start in range(0, len(names), AT_ONCE):
                sounds = []
                for one in names[start : start + AT_ONCE]:
                    content.update(hashlib.sha256(self._clips.place(one).read_bytes()).digest())
                    sound, rate, channels = self._heard(one)
                    sounds.append(sound)
                    seconds.append(len(sound) / self.settings.rate)
                    resampled.update([rate] if rate != self.settings.rate else [])
                    mixed += channels > 1
                made = self.extractor(sounds, sampling_rate=self.settings.rate, return_tensors="np")
                file.write(np.asarray(made["input_features"], dtype="<f2").tobytes())
        return Index(content=content.hexdigest()[:32], seconds=tuple(seconds), resampled=dict(resampled), mixed=mixed)

    def _heard(self, name: str) -> tuple[Any, int, int]:
        try:
            return self._clips.sound(name)
        except InvalidInput as error:
            raise InvalidInput(str(error), where=self._rows.get(name, self._where)) from None


def _stored(known: Path) -> Index | None:
    try:
        return Index.model_validate_json(known.read_bytes())
    except (OSError, ValueError):
        return None


def _stat(file: Path) -> tuple[str, int, int]:
    found = file.stat()
    return str(file.resolve()), found.st_size, found.st_mtime_ns
