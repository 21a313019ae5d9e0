"""The answer as text: the pick per budget and why, the front (ms, speed-up, quality, drop, size), the files written,
Python that loads and writes. The same sentences serve a terminal (rich) and a pipe (plain lines).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nash_search.plain_json import kept_object
from nash_search.report import columns, engines, escape
from nash_search.report.columns import Look, standing
from nash_search.report.picks import Pick
from nash_search.report.points import Dense
from nash_search.report.view import StudyView
from nash_search.report.words import (
    at_most,
    copied,
    format_ms,
    format_scored,
    is_share,
    named,
)
from nash_search.summary_rows import Inputs


def answer(view: StudyView, files: Sequence[str] = (), width: int = 120) -> RenderableType:
    """The picks, the leaderboard (as wide as `width` columns allow), the files, Python that writes."""
    parts: list[RenderableType] = [Text()]
    for pick in view.picks:
        parts.append(pick_text(pick, view))
    parts += [Text(f"    {words}", "dim") for words in view.clock_words]
    parts += [Text(line) for line in engines.reminders(view.summary.engines)]
    if view.front:
        title = f"The front of {escape.plain(view.study)}, fastest first"
        parts += [Text(), Text(title, "bold"), leaderboard(view, width)]
    if files:
        parts += [Text(), Text("Written", "bold"), *(copied(f"  {escape.plain(f)}") for f in files)]
    if lines := load_lines_of(view):
        parts += [Text(), Text("Load it", "bold"), *(copied(f"  {line}", "cyan") for line in lines)]
    return Group(*parts)


def is_stock(export: Path) -> bool:
    """Loads with transformers alone: its config, which is there, names no code of ours."""
    config = kept_object(export / "config.json")
    return config is not None and "auto_map" not in config


def load_lines_of(view: StudyView) -> list[str]:
    """Lines that load the last met budget's export, and where those of the other budgets are; empty: none is met."""
    if not (met := view.met):
        return []
    (loaded, own), *others = met.items()
    told = [
        f"# the answer to {escape.plain(own)}; to {escape.plain(asked)}: {escape.plain(folder)!r}"
        for folder, asked in others
    ]
    return [*load_lines(loaded, view.dtype, inputs=view.inputs), *told]


def load_lines(checkpoint: str, dtype: str, *, stock: bool | None = None, inputs: Inputs | None = None) -> list[str]:
    """Lines of Python that load an export in the precision that was timed, and let it write as it was scored.

    Args:
        checkpoint: its folder.
        dtype: named always: what `from_pretrained` does without differs between versions of transformers.
        stock: the folder loads without our classes (None: look there).
        inputs: how a text becomes an input (None: an older study, which does not say).
    """
    stock = is_stock(Path(checkpoint)) if stock is None else stock
    if inputs is not None and inputs.audio_seconds:
        return _heard(checkpoint, dtype, inputs, stock=stock)
    prefix = inputs.prefix if inputs is not None else ""
    cut = "truncation=True, "
    if inputs is not None:
        cut = "" if inputs.max_tokens is None else f"truncation=True, max_length={inputs.max_tokens}, "
    texts = f'[{prefix!r} + text for text in ["a text"]]' if prefix else '["a text"]'
    return [
        *([] if stock else ["import nash_search.modeling_nash"]),
        "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer",
        f"model = AutoModelForSeq2SeqLM.from_pretrained({escape.plain(checkpoint)!r}, dtype={dtype!r})",
        f"tokenizer = AutoTokenizer.from_pretrained({escape.plain(checkpoint)!r})",
        f"texts = {texts}",
        f'batch = tokenizer(texts, {cut}padding=True, return_tensors="pt")',
        "outputs = model.generate(batch.input_ids, attention_mask=batch.attention_mask)",
        "print(tokenizer.batch_decode(outputs, skip_special_tokens=True))",
    ]


def _heard(checkpoint: str, dtype: str, inputs: Inputs, *, stock: bool) -> list[str]:
    """`load_lines` of a model that hears; what is longer than its window is refused, not cut."""
    folder, seconds = repr(escape.plain(checkpoint)), f"{inputs.audio_seconds:g}"
    return [
        "import soundfile",
        *([] if stock else ["import nash_search.modeling_nash"]),
        "from transformers import AutoFeatureExtractor, AutoModelForSpeechSeq2Seq, AutoTokenizer",
        f"model = AutoModelForSpeechSeq2Seq.from_pretrained({folder}, dtype={dtype!r})",
        f"extractor, tokenizer = (of.from_pretrained({folder}) for of in (AutoFeatureExtractor, AutoTokenizer))",
        f'sound, rate = soundfile.read("clip.wav")  # one channel, {inputs.rate:,} samples a second',
        f'assert len(sound) <= {seconds} * rate, "it hears {seconds} s"',
        'features = extractor(sound, sampling_rate=rate, return_tensors="pt").input_features',
        "outputs = model.generate(features.to(model.dtype))",
        "print(tokenizer.batch_decode(outputs, skip_special_tokens=True))",
    ]


def leaderboard(view: StudyView, width: int = 120) -> Table:
    """The front as wide as a terminal's `width` columns allow, the dense model last."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    look = Look(view=view, width=width)
    shown = standing(columns.FRONT, look)
    for column in shown:
        if column.kind:
            table.add_column(column.named(look))
        else:
            table.add_column(Text(column.named(look)), justify="right", no_wrap=True)
    for row in view.front_rows:
        style = "dim" if isinstance(row, Dense) else "bold" if view.picked_for(row) else ""
        table.add_row(*(Text(column.cell(row, look)) for column in shown), style=style)
    return table


def pick_text(pick: Pick, view: StudyView) -> Text:
    """One budget's answer in a sentence or two."""
    mark, style = {"met": ("✓", "bold green"), "infeasible": ("✗", "bold red")}.get(pick.verdict, ("?", "bold yellow"))
    asked = named(pick.asked) + (f" ({format_ms(pick.budget_ms)} ms)" if is_share(pick.asked) else "")
    text = Text.assemble((f"{mark} {asked} ", style), (escape.plain(pick.verdict), style))
    if pick.latency_ms is not None:
        name = pick.point.label if pick.point else "the pick"
        text.append(f": {name} at {format_ms(pick.latency_ms)} ms")
        if pick.upper_ms is not None:
            text.append(at_most(pick.upper_ms, pick.latency_ms))
        if pick.speedup is not None:
            text.append(f", {pick.speedup:.2f}× faster")
        if pick.quality is not None:
            metric, split = escape.plain(view.metric, 30), escape.plain(pick.quality_split)
            text.append(f", {metric} {format_scored(pick.quality, pick.quality_error)} on {split}")
            test = view.dense.test_quality if view.dense else None
            if pick.quality_split == "test" and test is not None:
                text.append(f" (dense {format_scored(test, view.dense.test_error if view.dense else None)})")
            if pick.beside:
                text.append(f", {escape.plain(pick.beside)}")
    for words in (pick.why, pick.more, pick.spend):
        if words:
            text.append(f"\n    {words}", "dim")
    return text
