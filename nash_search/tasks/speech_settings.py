"""How a speech model hears, read from its folder without torch: its window, its rate, how its outputs begin.

window    the seconds that one pass of the encoder takes, whatever a clip's length; `--audio-seconds` shortens it
prompt    start, language, task, no time stamps: what `generate` begins with, and so what labels begin with
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nash_search.config import TaskConfig
from nash_search.errors import InvalidInput, shown, shown_path
from nash_search.families import FAMILIES, FRAMES_PER_POSITION
from nash_search.generation import prompt_of
from nash_search.plain_json import read_object
from nash_search.tasks.clips import Clips
from nash_search.tasks.data import Texts, read_texts
from nash_search.tasks.models import ModelFolder

EXTRACTOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"
TRANSLATE = "translate"
"""The task whose name lets the model write English whatever is spoken; by any other name it transcribes."""
TEXT_ONLY = ("prefix", "max_input_tokens")
"""Settings of a task that say something about texts as inputs."""
SPEECH_ONLY = ("language", "audio_seconds")


@dataclass(frozen=True, kw_only=True)
class SpeechSettings:
    """How a speech model takes its input under a task: audio window, sampling rate, language, decoder prompt."""

    folder: Path
    seconds: float
    """Of the window."""
    own_seconds: float
    """Of the window that the folder's model has."""
    positions: int
    """Of the encoder, in one window."""
    rate: int
    """Samples a second."""
    language: str | None
    """Code, e.g. `en`; None: the model has one language only."""
    task: str | None
    prompt: tuple[int, ...]
    """Token ids, the decoder's start first."""
    longest_output: int
    """Tokens that the decoder has positions for after the prompt."""

    @property
    def generation(self) -> dict[str, Any]:
        """What `generate` is told besides the features."""
        return {} if self.language is None else {"language": self.language, "task": self.task}

    @property
    def english(self) -> bool:
        """What it writes is English."""
        return self.language in (None, "en") or self.task == TRANSLATE


def speech_settings_of(found: ModelFolder, config: TaskConfig) -> SpeechSettings | None:
    """A model folder's speech input settings under this task; None for a model that reads text.

    Raises:
        InvalidInput: a setting that does not go with such a model, a language it does not know, a window it has not.
    """
    speech = not FAMILIES[found.model_type].reads_text
    for name in TEXT_ONLY if speech else SPEECH_ONLY:
        if getattr(config, name) not in (None, ""):
            kind = "speech" if speech else "text"
            what = f"{name} must be left out for a model of {kind}, but got {shown(getattr(config, name))}"
            raise InvalidInput(what, where=f"--{name.replace('_', '-')}")
    if not speech:
        return None
    where, extractor, model = shown_path(found.folder), _extractor(found.folder), found.config
    rate, hop = int(extractor.get("sampling_rate", 16_000)), int(extractor.get("hop_length", 160))
    if extractor.get("feature_size") != model.get("num_mel_bins"):
        bins = f"{shown(model.get('num_mel_bins'))} features that config.json says"
        what = f"feature extractor must make the {bins}, but got {shown(extractor.get('feature_size'))}"
        raise InvalidInput(what, where=where)
    own_s = int(model["max_source_positions"]) * FRAMES_PER_POSITION * hop / rate
    seconds = config.audio_seconds or own_s
    if seconds > own_s:
        what = f"audio_seconds must be at most {own_s:g} (the model's window), but got {seconds:g}"
        raise InvalidInput(what, where="--audio-seconds")
    settings = found.generation.settings
    language, task = _spoken(settings, config)
    prompt = prompt_of(settings, language, task)
    return SpeechSettings(
        folder=found.folder,
        seconds=seconds,
        own_seconds=own_s,
        positions=round(seconds * rate / hop / FRAMES_PER_POSITION),
        rate=rate,
        language=language,
        task=task,
        prompt=prompt,
        longest_output=int(model["max_target_positions"]) - len(prompt),
    )


def clips_of(settings: SpeechSettings, config: TaskConfig) -> Clips:
    """The recordings beside the data: in its folder, or in the folder of a split."""
    data = Path(config.data or "")
    base = data if data.is_dir() else data.parent
    splits = (config.train_split, config.validation_split, config.test_split)
    folders = (base, base / "data", *(base / split for split in splits))
    return Clips(folders=folders, seconds=settings.seconds, rate=settings.rate)


def texts_of(settings: SpeechSettings, config: TaskConfig) -> Texts:
    """The data's rows, each of whose recordings is there and fits the window.

    Raises:
        InvalidInput: one line naming the row that breaks a rule.
    """
    clips = clips_of(settings, config)
    found = read_texts(config, clips)
    unnamed = clips.unnamed(found.rows_of_clips)
    note = f"{unnamed:,} recordings beside the data are named by no row and are left out"
    return replace(found, notes=(*found.notes, note)) if unnamed else found


def _extractor(folder: Path) -> Mapping[str, Any]:
    """The feature extractor's settings, alone or in a processor's file."""
    if (folder / EXTRACTOR).is_file():
        return read_object(folder / EXTRACTOR)
    stored = read_object(folder / PROCESSOR) if (folder / PROCESSOR).is_file() else {}
    if not isinstance(stored.get("feature_extractor"), dict):
        fix = "save it beside the weights: feature_extractor.save_pretrained(folder)"
        what = f"model folder must hold a feature extractor ({EXTRACTOR}), but got none"
        raise InvalidInput(what, where=shown_path(folder), fix=fix)
    extractor: dict[str, Any] = stored["feature_extractor"]
    return extractor


def _spoken(settings: Mapping[str, Any], config: TaskConfig) -> tuple[str | None, str | None]:
    """Language and task of a model that has several."""
    ids = settings.get("lang_to_id")
    known = [token.strip("<|>") for token in ids] if isinstance(ids, dict) else []
    if not settings.get("is_multilingual", bool(known)) or not known:
        translates = config.name == TRANSLATE
        if config.language not in (None, "en") or translates:
            got = config.name if translates else shown(config.language)
            what = f"model must know several languages to be asked for one, but got {got} of one that knows English"
            raise InvalidInput(what, where="--task" if translates else "--language")
        return None, None
    asked = config.language or settings.get("language")
    if asked is None:
        what = f"language must be given for a model of {len(known)} languages, but got none"
        raise InvalidInput(what, where="--language", fix="e.g. --language en")
    language = str(asked).strip("<|>").lower()
    if language not in known:
        nearest = difflib.get_close_matches(language, known, 1) or ["en"]
        what = f"language must be one of the model's {len(known)} ({', '.join(known[:5])}, …), but got {shown(asked)}"
        raise InvalidInput(what, where="--language", fix=f"give a code, like {nearest[0]}")
    return language, TRANSLATE if config.name == TRANSLATE else "transcribe"
