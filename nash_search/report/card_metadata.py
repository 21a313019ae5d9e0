"""A model card's YAML between the `---` lines, written by `huggingface_hub` so that it is valid by construction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from nash_search.records import Quality
from nash_search.report import escape
from nash_search.report.view import StudyView


@dataclass(frozen=True, kw_only=True)
class Source:
    """What the model was made of, in the words of who publishes it."""

    teacher: str = ""
    """The dense model's Hub id, or words (an existing path must not be handed in as `a/b`)."""
    data: str = ""
    """The data set's Hub id, or words."""
    license: str = ""
    """Its Hub id; empty: none is claimed."""


SPEECH = "automatic-speech-recognition"
GENERATION = "text2text-generation"
"""What no better tag is known for; the Hub shows it, transformers 5 has no pipeline of that name."""
TASKS = {"translat": "translation", "summar": "summarization"}
"""Beginning of a word of the prefix -> the Hub's tag."""
BY_METRIC = {"bleu": "translation", "chrf": "translation", "rouge": "summarization"}
"""Beginning of the metric's name -> the tag that it is mostly used for, where the prefix names no task."""


def task_tag(metric: str, prefix: str) -> str:
    """The Hub's tag of what a model does, as its prefix says, else as its metric suggests."""
    words = prefix.casefold().split()
    said = [tag for beginning, tag in TASKS.items() if any(word.startswith(beginning) for word in words)]
    likely = [tag for beginning, tag in BY_METRIC.items() if metric.casefold().startswith(beginning)]
    return next(iter(said + likely), GENERATION)


def metadata(view: StudyView, name: str, quality: Quality | None, source: Source) -> str:
    """The YAML between the `---` lines."""
    data = source.data
    tag = task_tag(quality.metric if quality is not None else "", view.inputs.prefix if view.inputs is not None else "")
    tag = SPEECH if view.is_speech else tag
    fields: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": tag,
        "tags": ["nash-search", "pruning", "distillation", "encoder-decoder"],
    }
    if source.license:
        fields["license"] = escape.plain(source.license, 60)
    if hub_id(source.teacher):
        fields["base_model"] = source.teacher
        fields["base_model_relation"] = "finetune"
    if hub_id(data):
        fields["datasets"] = [data]
    if quality is not None:
        metric = escape.plain(quality.metric, 60)
        fields["metrics"] = [metric]
        fields["model_name"] = name
        fields["eval_results"] = [
            EvalResult(
                task_type=tag,
                dataset_type=escape.plain(data or view.task or "custom", 100),
                dataset_name=escape.plain(data or view.task or "custom", 100),
                dataset_split=quality.split,
                metric_type=metric,
                metric_name=metric,
                metric_value=round(quality.value, 4),
            )
        ]
    return str(ModelCardData(**fields).to_yaml()) + "\n"


def hub_id(name: str) -> bool:
    """Whether a name reads as a Hub repository `owner/name`; words like `g2p` stay out of the metadata's links."""
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(name)
    except ValueError:
        return False
    return "/" in name and not name.startswith(".")
