"""Recordings: found by the name that a row has, looked at by their headers, decoded to one channel at a model's rate.

Decoded by soundfile (WAV, FLAC, OGG, MP3, …), resampled by soxr; both come with `nash-search[speech]`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nash_search.errors import InvalidInput, shown
from nash_search.files import cache_folder, replace

if TYPE_CHECKING:
    import numpy as np

SILENT = 1e-4
"""Loudest sample of a clip in which nothing can be heard (1 is full scale; 16 bits end at 3e-5)."""
MOST_SAMPLES = 10**8
"""Of a clip, all channels together: 400 MB when it is decoded, ten channels of 30 s at 192 kHz and more."""
RECORDINGS = "recordings"
"""Folder of sounds that lay in a table, in `cache_folder`."""
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
"""Of files that are recordings."""
Sound: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"


@dataclass(frozen=True, kw_only=True)
class Clips:
    """The recordings of a task."""

    folders: tuple[Path, ...]
    """Where a name is looked for, one after the other."""
    seconds: float
    """The window that a clip must fit."""
    rate: int
    """Samples a second of the model."""

    def named(self, cell: Any) -> Any:
        """A row's cell as the name of a recording: one that holds the sound itself is kept as a file by its content."""
        if not isinstance(cell, Mapping) or not {"bytes", "path"} & cell.keys():
            return cell
        sound = cell.get("bytes")
        if not isinstance(sound, bytes):
            return cell.get("path")
        name = f"{hashlib.sha256(sound).hexdigest()[:32]}{Path(str(cell.get('path') or '')).suffix}"
        folder = cache_folder() / RECORDINGS
        if not (folder / name).is_file():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace(folder / name, sound)
        return name

    def place(self, name: str) -> Path:
        """The file behind a row's name.

        Raises:
            InvalidInput: there is none.
        """
        try:
            folders = (*self.folders, cache_folder() / RECORDINGS)
            found = next((path for path in (f / name for f in folders) if path.is_file()), None)
        except (OSError, ValueError):
            found = None
        if found is None:
            raise InvalidInput(f"row must name a recording that is there, but got {shown(name, 80)}")
        return found

    def unnamed(self, names: Iterable[str]) -> int:
        """Recordings that lie where names are looked for and that none of these names."""
        there = {
            file.resolve()
            for folder in self.folders
            for file in (folder.rglob("*") if folder.is_dir() else ())
            if file.suffix.lower() in SUFFIXES
        }
        return len(there - {self.place(name).resolve() for name in names})

    def check(self, name: str) -> float:
        """Seconds of a clip, by its header.

        Raises:
            InvalidInput: it is no recording, is empty, or does not fit the window.
        """
        file = self.place(name)
        soundfile = _soundfile()
        try:
            header = soundfile.info(file)
        except (soundfile.SoundFileError, OSError, RuntimeError) as error:
            raise _unreadable(name, error) from None
        seconds = float(header.frames / header.samplerate)
        if not header.frames:
            raise InvalidInput(f"recording must hold sound, but got no samples in {shown(name, 80)}")
        if seconds > self.seconds:
            what = f"recording must fit the window of {self.seconds:g} s, but got {seconds:,.2f} s in {shown(name, 80)}"
            raise InvalidInput(what, fix="give a longer --audio-seconds where the model has it, or cut the recording")
        if header.frames * header.channels > MOST_SAMPLES:
            what = f"recording must hold at most {MOST_SAMPLES:,} samples, but got"
            raise InvalidInput(f"{what} {header.frames * header.channels:,} in {shown(name, 80)}")
        return seconds

    def sound(self, name: str) -> tuple[Sound, int, int]:
        """A clip as the model hears it, between -1 and 1; and the rate and channels that it had.

        Raises:
            InvalidInput: it cannot be decoded, holds what is no number, or is silent.
        """
        import numpy as np  # a tenth of a second that `--help` need not wait

        soundfile = _soundfile()
        try:
            sound_TC, rate = soundfile.read(self.place(name), dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, OSError, RuntimeError) as error:
            raise _unreadable(name, error) from None
        if not np.isfinite(sound_TC).all():
            raise InvalidInput(f"recording must hold numbers only, but got NaN or infinity in {shown(name, 80)}")
        sound_T = sound_TC.mean(axis=1)
        if not len(sound_T) or float(np.abs(sound_T).max()) < SILENT:
            raise InvalidInput(f"recording must hold sound, but got silence in {shown(name, 80)}")
        if rate != self.rate:
            import soxr

            sound_T = soxr.resample(sound_T, rate, self.rate)[: int(self.seconds * self.rate)]
        return sound_T.astype(np.float32), int(rate), sound_TC.shape[1]


def _soundfile() -> Any:
    try:
        import soundfile
        import soxr  # noqa: F401  asked for together
    except (ImportError, OSError) as error:
        name = getattr(error, "name", None) or "libsndfile"
        what = f"speech needs {name}, which is not installed: pip install nash-search[speech]"
        raise InvalidInput(what, where="--data") from None
    return soundfile


def _unreadable(name: str, error: Exception) -> InvalidInput:
    reason = str(error).rpartition(": ")[2].strip().rstrip(".") or type(error).__name__
    return InvalidInput(f"recording must be readable sound, but got {shown(reason, 60)} for {shown(name, 80)}")
