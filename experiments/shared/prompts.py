"""English telephone prompts of one voice with their transcripts, from Debian's packages (CC-BY-SA-3.0).

    asterisk-core-sounds-en-g722   recordings at 16 kHz, G.722: decoded by PyAV (`pip install av`)
    asterisk-core-sounds-en        core-sounds-en.txt.gz, the transcripts
    -> a folder of WAV files with train, validation and test as JSONL of file and text

Recordings that fit the window and have two words or more. A split is chosen by a hash of the sentence alone, so that no
sentence is in two.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from nash_search.errors import InvalidInput

PACKAGES = ("asterisk-core-sounds-en-g722", "asterisk-core-sounds-en")
RATE = 16_000
SPLITS = {0: "test", 1: "test", 2: "validation", 3: "validation"}
"""By the last digit of a sentence's hash; train has the others."""


def fetched(folder: Path) -> Path:
    """The packages' files, downloaded and unpacked once.

    Raises:
        InvalidInput: this is no Debian, or its archive cannot be reached.
    """
    root, begun = folder / "root", folder / ".root"
    if not root.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(["apt-get", "download", *PACKAGES], cwd=folder, capture_output=True, check=True)
            for package in folder.glob("*.deb"):
                subprocess.run(["dpkg-deb", "-x", str(package), str(begun)], capture_output=True, check=True)
            begun.rename(root)  # whole, or not there
        except (OSError, subprocess.CalledProcessError) as error:
            fix = "fetch them on a Debian, or give another folder by --data"
            raise InvalidInput(
                f"the packages {', '.join(PACKAGES)} must be reachable, but got {error}", fix=fix
            ) from None
    return root


def written(root: Path, out: Path, seconds: float) -> None:
    """The recordings of at most so many seconds, in splits.

    Raises:
        InvalidInput: PyAV is not installed.
    """
    import soundfile

    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    (out / "clips").mkdir(parents=True, exist_ok=True)
    for name, text in sorted(transcripts(root).items()):
        recording = root / "usr/share/asterisk/sounds/en_US_f_Allison" / f"{name}.g722"
        words = said(text)
        if len(words) < 2 or not recording.is_file():
            continue
        sound = decoded(recording)
        if len(sound) <= seconds * RATE:
            file = f"clips/{name.replace('/', '-')}.wav"
            soundfile.write(out / file, sound, RATE, subtype="PCM_16")
            rows[split_of(words)].append({"file": file, "text": text})
    for split in ("train", "validation", "test"):  # the last one says that all are there
        (out / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[split]), "utf-8")


def transcripts(root: Path) -> dict[str, str]:
    """Name of a recording -> what is said; sounds that are no speech are left out."""
    found, file = {}, root / "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
    for line in gzip.open(file, "rt", encoding="utf-8"):
        name, colon, text = line.partition(":")
        if colon and text.strip() and "[" not in text and not line.startswith(";"):
            found[name.strip()] = text.strip()
    return found


def said(text: str) -> list[str]:
    """A sentence's words, without case and punctuation."""
    return re.sub(r"[^a-z0-9' ]", " ", text.lower()).split()


def split_of(words: list[str]) -> str:
    """The split of a sentence, whoever says it and however often."""
    return SPLITS.get(hashlib.sha256(" ".join(words).encode()).digest()[0] % 10, "train")


def decoder() -> Any:
    """PyAV.

    Raises:
        InvalidInput: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise InvalidInput("G.722 needs PyAV, which is not installed", fix=".venv/bin/pip install av") from None
    return av


def decoded(recording: Path) -> np.ndarray[Any, np.dtype[np.int16]]:
    """A G.722 file's samples."""
    with decoder().open(str(recording), format="g722") as box:
        return np.concatenate([frame.to_ndarray().reshape(-1) for frame in box.decode(audio=0)]).astype(np.int16)
