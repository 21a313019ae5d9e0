"""The answer as text: the front (ms, speed-up, quality, drop, size), the pick per budget and why, the files written,
Python that loads and writes. The same sentences serve a terminal (rich) and a pipe (plain lines).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nash_search.report import engines, escape
from nash_search.report.picks import Pick
from nash_search.report.points import Point
from nash_search.report.view import StudyView
from nash_search.report.words import (
    at_most,
    copied,
    counted,
    format_count,
    format_ms,
    format_quality,
    format_real_time,
    format_scored,
    format_spread,
    is_share,
    named,
)
from nash_search.summary_rows import Inputs


def answer(view: StudyView, files: Sequence[str] = (), width: int = 120) -> RenderableType:
    """The leaderboard (as wide as `width` columns allow), the picks, the files, Python that writes."""
    parts: list[RenderableType] = [Text()]
    if view.front:
        title = f"The front of {escape.plain(view.study)}, fastest first"
        parts += [Text(title, "bold"), leaderboard(view, width), Text()]
    for pick in view.picks:
        parts.append(pick_text(pick, view))
    parts += [Text(f"    {words}", "dim") for words in view.clock_words]
    parts += [Text(line) for line in engines.reminders(view.summary.engines)]
    loaded = view.loaded
    if files:
        parts += [Text(), Text("Written", "bold"), *(copied(f"  {escape.plain(f)}") for f in files)]
    if loaded:
        parts += [
            Text(),
            Text("Load it", "bold"),
            *(copied(f"  {line}", "cyan") for line in load_lines(loaded, view.dtype, inputs=view.inputs)),
        ]
    return Group(*parts)


def load_lines(checkpoint: str, dtype: str, *, stock: bool = False, inputs: Inputs | None = None) -> list[str]:
    """Lines of Python that load an export in the precision that was timed, and let it write as it was scored.

    Args:
        checkpoint: its folder.
        dtype: named always: what `from_pretrained` does without differs between versions of transformers.
        stock: the folder loads without our classes.
        inputs: how a text becomes an input (None: an older study, which does not say).
    """
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
    """One row per point of the front, the dense model last.

    Narrow terminals lose the widths, what finished models came to short, and the size.
    """
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    metric = escape.plain(view.metric, 16)
    scored = f"{metric} ({view.split})" if width >= 100 else metric
    heard = ["RTF"] * view.hears
    ms = view.ms_name
    right = [ms, *heard, "speed-up", scored, "drop", *["size"] * (width >= 80)]
    trained = [("trained" if width >= 110 else "steps")] * any(p.record.finish_steps for p in view.front)
    blocks, picked = ("decoder", "picked for") if width >= 100 or not trained else ("blocks", "for")
    left = [blocks, "encoder", *["heads and neurons kept"] * (width >= 130), *trained, picked]
    for name in right:
        table.add_column(Text(name), justify="right", no_wrap=True)
    for name in left:
        table.add_column(name)
    scale = view.scale

    def row(cells: Mapping[str, RenderableType], style: str) -> None:
        table.add_row(*(cells.get(name, "") for name in right + left), style=style)

    for p in view.front:
        chosen = view.picked_for(p)
        layers = p.architecture.decoder_layers
        row(
            {
                ms: _ms_cell(p.ms, p.low_ms, p.high_ms),
                "RTF": format_real_time(view.real_time(p.ms)),
                "speed-up": f"{p.speedup or 0:.2f}×",
                scored: quality_words(p, scale),
                "drop": "–" if p.drop is None else format_quality(p.drop, scale),
                "size": format_count(p.record.parameters),
                "decoder": counted(layers, "block"),
                "blocks": str(layers),
                "encoder": f"{100 - p.architecture.encoder_sparsity_pct}%",
                "heads and neurons kept": widths_words(p),
                "trained": trained_words(p, scale),
                "steps": f"{p.record.train_steps:,.0f}",
                picked: Text(escape.plain(", ".join(chosen)), "bold green"),
            },
            "bold" if chosen else "",
        )
    if view.dense:
        row(
            {
                ms: _ms_cell(view.dense.ms, view.dense.low_ms, view.dense.high_ms),
                "RTF": format_real_time(view.real_time(view.dense.ms)),
                "speed-up": "1.00×",
                scored: format_quality(view.dense.quality, scale),
                "size": format_count(view.dense.parameters),
                blocks: "dense",
                "encoder": "100%",
            },
            "dim",
        )
    return table


def _ms_cell(ms: float | None, low: float | None, high: float | None) -> str:
    """`43.7 ± 0.23`; an interval that takes a sentence to say is the plan's and the page's, for columns are narrow."""
    spread = format_spread(low, high)
    return f"{format_ms(ms)}{spread if spread.startswith(' ±') else ''}"


def quality_words(p: Point, scale: float | None = None) -> str:
    """`91.30 ± 0.41`."""
    if p.record.quality is None:
        return "–"
    return f"{format_quality(p.quality, scale)} ± {format_quality(p.record.quality.half_width, scale)}"


def trained_words(p: Point, scale: float | None = None) -> str:
    """`1,800 steps (600: 90.08)`: how long the model was trained, and what the search's own training came to."""
    steps = p.record.finish_steps or p.record.train_steps
    words = f"{steps:,.0f} steps" if steps else ""
    if p.record.finish_steps and p.searched is not None:
        short = f"{p.searched.train_steps:,.0f}" if p.searched.train_steps else "searched"
        words += f" ({short}: {format_quality(p.searched.quality.value, scale)})" if p.searched.quality else ""
    return words


def widths_words(p: Point) -> str:
    """`4 4 3 2 2 1 | 256 198 …`: what each encoder block kept."""
    shapes = p.record.shapes
    if shapes is None:
        return "–"
    heads, neurons = shapes.encoder_heads, shapes.encoder_neurons
    if len(set(heads)) == 1 and len(set(neurons)) == 1:
        return f"{heads[0]} | {neurons[0]} in every block"
    return f"{' '.join(map(str, heads))} | {' '.join(map(str, neurons))}"


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
    for words in (pick.why, pick.more):
        if words:
            text.append(f"\n    {words}", "dim")
    return text
