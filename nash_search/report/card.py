"""The model card of an export: what was kept, what was measured and how, on what, and what it is not for.

Hub format: YAML metadata between `---` lines (written by `huggingface_hub`, so it is valid by
construction), then Markdown in which everything foreign is escaped. A number appears with its
conditions or not at all. What lies on the disk is read by `exports`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nash_search.calibration_record import Setting
from nash_search.intervals import LEVEL_PCT, mean_bounds
from nash_search.latency_record import Latency
from nash_search.percentiles import SHOWN_PERCENTILES, requests_needed
from nash_search.records import Artefact, Quality
from nash_search.report import escape
from nash_search.report.card_metadata import Source, hub_id, metadata
from nash_search.report.columns import widths_words
from nash_search.report.markdown import aligned, fenced, input_words
from nash_search.report.picture import caption
from nash_search.report.points import Point
from nash_search.report.text import load_lines
from nash_search.report.view import StudyView
from nash_search.report.words import (
    counted,
    data_words,
    format_count,
    format_ms,
    format_quality,
    format_real_time,
    format_spread,
    looks_words,
    named,
    renewing,
    setting_words,
    vocabulary_words,
    window_words,
)
from nash_search.results import CertifiedPoint
from nash_search.summary_rows import Inputs

UNNAMED = Source()
LIMITS = (
    "The latency holds for the device, runtime and workload above and for nothing else: measure again elsewhere.",
    "It was trained to imitate its teacher on one data set; what the teacher gets wrong, this model gets wrong too.",
    "Quality was measured on the named split only; inputs of another kind were not tried.",
)


@dataclass(frozen=True, kw_only=True)
class Export:
    """A certified point's folder, as its card describes it."""

    name: str
    """What the artefact is called, e.g. `g2p-8.4ms-per7.9-epyc1t`."""
    point: CertifiedPoint
    dense_test: Quality | None = None
    """The dense model on the sealed test split."""
    engines: Sequence[Artefact] = ()
    """What serving engines load from this folder, as their records say."""
    stock: bool = False
    """The folder loads without the modelling file that exports carry."""
    misread: str = ""
    """Which server misreads it, in words."""


def card(
    view: StudyView, export: Export, source: Source = UNNAMED, examples: Sequence[tuple[str, str, str]] = ()
) -> str:
    """The README.md of an export.

    Args:
        view: the study.
        export: what it is of.
        source: teacher, data and license as they are to be named.
        examples: (source, this model's output, the teacher's output).
    """
    found = export.point
    point = view.exported.get(found.number) or next(p for p in view.points if p.number == found.number)
    seeds = found.quality_by_seed
    parts = [*_top(view, point, export.name, found.quality, source)]
    parts += [f"**Do not deploy it.** It is {escape.markdown(found.refusal, 300)}."] if found.refusal else []
    parts += ["## Measured", _numbers(view, point, found.latency, found.quality, export.dense_test)]
    parts += [line for line in [_budgets_met(view, point)] if line]
    if seeds:
        parts.append(_over_seeds(seeds, point.record.seed))
    parts += ["## Conditions", _conditions(view, found.latency, found.quality)]
    parts += ["## What was kept", _kept(point)]
    loading = _loading(export.name, found.latency, view, export.stock)
    parts += ["## Load it", *input_words(view.inputs), fenced(loading, "python")]
    parts += [f"Not everywhere: {escape.markdown(export.misread, 300)}."] if export.misread else []
    parts += ["To publish it on the Hub:", fenced([f"hf upload YOUR-NAME/{export.name} {export.name}"], "sh")]
    for engine in export.engines:
        parts += [f"## Serve it with {escape.markdown(engine.runtime)}", _serving(export.name, engine, view.inputs)]
    if examples:
        rows = [[escape.markdown(cell, 120) for cell in row] for row in examples]
        parts += ["## Examples", aligned(["input", "this model", "dense model"], rows, "lll")]
    return "\n\n".join([*parts, *_bottom(view, point, source.data, len(seeds))]) + "\n"


def trial_card(view: StudyView, point: Point) -> str:
    """A trial that was not certified, in the same words; there is no folder to load."""
    latency, quality = point.record.latency, point.record.quality
    name = f"{view.study}, trial {point.number}"
    parts = [*_top(view, point, name, quality, UNNAMED), "## Measured", _numbers(view, point, latency, quality, None)]
    parts += ["## Conditions", _conditions(view, latency, quality), "## What was kept", _kept(point)]
    return "\n\n".join([*parts, *_bottom(view, point, "", 0)]) + "\n"


def _top(view: StudyView, point: Point, name: str, quality: Quality | None, source: Source) -> tuple[str, ...]:
    """Metadata, title, and what was done to the teacher."""
    return (
        f"---\n{metadata(view, name, quality, source)}---",
        f"# {escape.markdown(name)}",
        f"{_origin(source.teacher)} made faster by [NASH](https://arxiv.org/abs/2310.10054) pruning: "
        f"{counted(point.architecture.decoder_layers, 'decoder block')} "
        f"and {100 - point.architecture.encoder_sparsity_pct}% of the encoder's attention and feed-forward weights "
        "are kept, then tuned by distillation. It is physically smaller; nothing is masked.",
    )


def _bottom(view: StudyView, point: Point, data: str, runs: int) -> tuple[str, ...]:
    limits = "\n".join(f"- {line}" for line in LIMITS)
    return "## How it was made", _provenance(view, point, data, runs), "## Limits", limits


def _budgets_met(view: StudyView, point: Point) -> str:
    """The budgets whose answer this is; nothing where it is none's."""
    met = " and ".join(escape.markdown(named(asked)) for asked in view.picked_for(point))
    return f"Of the study's models that are certified to meet {met}, it is the best on validation." if met else ""


def _origin(teacher: str) -> str:
    return (
        escape.markdown(teacher.rstrip("/").rpartition("/")[2] if not hub_id(teacher) else teacher)
        or "A fine-tuned model"
    )


def _numbers(view: StudyView, p: Point, latency: Latency | None, quality: Quality | None, dense: Quality | None) -> str:
    rows = []
    if latency is not None:
        low, high = latency.bounds_ms
        rows.append(
            [
                f"{view.latency_words} (n = {len(latency.runs_ms)})"
                if view.percentile
                else "latency of one `generate`",
                f"{format_ms(latency.median_ms)} ms{format_spread(low, high)}",
                f"{format_ms(latency.dense_ms)} ms",
            ]
        )
        lower, upper = latency.ratio_bounds
        rows.append(["share of the dense latency, paired", f"{latency.ratio:.1%} ({lower:.1%} to {upper:.1%})", "100%"])
        rows.append(["speed-up", f"{latency.speedup:.2f}×", "1.00×"])
        if view.is_speech:
            times = [format_real_time(view.real_time(ms)) for ms in (latency.median_ms, latency.dense_ms)]
            rows.append(["real-time factor (computing for a second of sound, s)", *times])
        rows += _distribution(latency)
        if latency.p95_ms is not None and latency.workload.traffic is None:
            rows.append(["95th percentile", f"{format_ms(latency.p95_ms)} ms", "–"])
    if quality is not None:
        same = dense if dense is not None and dense.split == quality.split else None
        on_search = view.dense.quality if view.dense and view.dense.split == quality.split else None
        value = same.value if same is not None else on_search
        words = f"{format_quality(quality.value)} ± {format_quality(quality.half_width, quality.value)}"
        rows.append(
            [
                f"{escape.markdown(quality.metric)} ({quality.split}, n = {quality.n})",
                words,
                format_quality(value, quality.value),
            ]
        )
        for metric, other in quality.beside.items():
            theirs = same.beside.get(metric) if same is not None else None
            rows.append([escape.markdown(metric.upper()), f"{other:.2f}", "–" if theirs is None else f"{theirs:.2f}"])
    size = view.dense.parameters if view.dense else None
    rows.append(["parameters", format_count(p.record.parameters), format_count(size)])
    return aligned(["", "this model", "dense model"], rows, "lrr")


def _distribution(latency: Latency) -> list[list[str]]:
    """Of requests, the percentiles that are not the number itself, as far as there are enough of them."""
    if latency.workload.traffic is None:
        return []
    others = [p for p in SHOWN_PERCENTILES if p != latency.percentile and len(latency.runs_ms) >= requests_needed(p)]
    seen = [latency.at(p) for p in others]
    return [[f"p{s.percentile:g}", f"{format_ms(s.median_ms)} ms", f"{format_ms(s.dense_ms)} ms"] for s in seen]


def _over_seeds(seeds: Mapping[int, Quality], exported: int) -> str:
    values = [quality.value for quality in seeds.values()]
    mean = sum(values) / len(values)
    lower, upper = (format_quality(x, mean) for x in mean_bounds(values))
    split = next(iter(seeds.values())).split
    return (
        f"Trained with {len(values)} seeds ({', '.join(map(str, seeds))}), {split} quality is {format_quality(mean)} "
        f"on average, {lower} to {upper} with {LEVEL_PCT} % confidence over seeds. This is seed {exported}, the best "
        "on validation of those that meet the budget; the test split chose nothing."
    )


def _conditions(view: StudyView, latency: Latency | None, quality: Quality | None) -> str:
    lines = [f"Timed call: {escape.markdown(caption(view))}."]
    if latency is not None:
        rounds, calls = len(latency.rounds), len(latency.runs_ms)
        how = (
            f"{rounds} fresh process{'es' if rounds > 1 else ''} loading the exported folder"
            if latency.fresh
            else "the search's own process, not certified"
        )
        call, over = latency.workload, f"the {view.percentile} over all of them"
        what, lengths = str(call.units), "each of its own length, in and out"
        if call.traffic is None:
            what, over, lengths = "calls", "the median over rounds", f"exactly {call.output_tokens} output tokens"
        elif call.batch_size > 1:
            lengths = "padded to the longest input and decoded until the longest output, whose time is every request's"
        lines.append(
            f"Timed in {how}: {calls} {what}, each next to one of the dense model; {lengths}, warm, nothing else of "
            f"ours on the device. {latency.contended_share:.0%} of the {what} were flagged as contended; none was "
            "dropped."
        )
        lines.append(f"± and brackets are two-sided {LEVEL_PCT}% intervals; the latency is {over}.")
        if latency.effect is not None:
            known = "assumed" if latency.effect.assumed else f"from {latency.effect.occasions} measurements there"
            lines.append(
                f"Medians move by {latency.effect.sd:.1%} between occasions ({known}): milliseconds allow for it."
            )
        elif latency.fresh:
            lines.append(f"The {escape.markdown(renewing(view.study), 400)}.")
        if asked_again := looks_words(latency.looks, rounds):
            lines.append(f"This was {asked_again}.")
    if quality is not None and quality.signature:
        lines.append(f"Quality: {escape.markdown_code(quality.signature)}.")
    return "\n".join(lines)


def _kept(p: Point) -> str:
    lines = []
    if p.record.shapes is not None:
        lines.append(f"- encoder blocks (heads, then neurons): {escape.markdown(widths_words(p).replace(' | ', '; '))}")
        lines.append(f"- decoder blocks of the teacher: {', '.join(map(str, p.record.shapes.decoder_blocks))}")
    if p.record.sparsity_counted is not None:
        lines.append(f"- encoder sparsity, counted: {p.record.sparsity_counted:.1%}")
    return "\n".join(lines) or "Not recorded."


def _loading(name: str, latency: Latency | None, view: StudyView, stock: bool) -> list[str]:
    dtype = latency.workload.weights_dtype if latency is not None else view.dtype
    lines = load_lines(name, dtype, stock=stock, inputs=view.inputs)
    if stock:
        return lines
    remark = (
        "# without the nash-search package: from_pretrained(..., trust_remote_code=True); the code is in this folder"
    )
    return [*lines, remark]


def _serving(name: str, engine: Artefact, inputs: Inputs | None) -> str:
    kind = engine.dtype if engine.quantize == "none" else f"{engine.quantize}, {engine.dtype} beside it"
    made = f"Written by {engine.runtime} {engine.version} ({kind}); the measured latency is this folder's."
    prefix, longest = (inputs.prefix, inputs.max_tokens) if inputs is not None else ("", None)
    cut = f", truncation=True, max_length={longest}" if longest else ""
    fed = f"tokenizer({prefix + 'an input'!r}{cut})"  # an engine's record does not know how its task feeds it
    loading = [escape.plain(line, 1000).replace('tokenizer("an input")', fed) for line in engine.loading]
    lines = [f"folder = {name!r}", *loading]
    return f"{escape.markdown(made)}\n\n{fenced(lines, 'python')}"


def _provenance(view: StudyView, p: Point, data: str, runs: int) -> str:
    how = f"one of {runs} training runs" if runs else "1 training run"
    lines = [f"- study {escape.markdown(view.study)}, trial {p.number}, seed {p.record.seed}, {how}"]
    if data or view.task:
        lines.append(f"- data: {escape.markdown(data or view.task)}")
    if rows := view.summary.data:
        lines.append(f"- {escape.markdown(data_words(rows), 400)}")
    if view.summary.command:
        lines.append(f"- command: {escape.markdown_code(view.summary.command, 1000)}")
    if shortened := view.summary.window:
        lines.append(
            f"- {escape.markdown(window_words(shortened), 400)}; every speed-up here is pruning's, beyond that"
        )
    if trimmed := view.summary.vocabulary:
        lines.append(f"- {escape.markdown(vocabulary_words(trimmed), 400)}; every speed-up here is beyond that")
    steps = sum(stage.get("steps", 0.0) for stage in p.record.stages.values())
    if steps:
        words = f"- {steps:,.0f} optimizer steps, {p.record.train_s:.0f} s of training"
        if p.record.finish_steps and p.searched is not None and p.searched.quality is not None:
            quality, short = p.searched.quality, p.searched.train_steps
            words += (
                f", at length for it was a budget's winner; after the {short:,.0f} steps of the search it had "
                f"{format_quality(quality.value)} on {quality.split}"
            )
        lines.append(words)
    if p.record.recipe is not None:
        lines.append(f"- trained {setting_words(Setting.of(p.record.recipe))}")
    versions: Mapping[str, str] = p.record.versions
    if versions:
        lines.append(f"- versions: {escape.markdown(', '.join(f'{k} {v}' for k, v in versions.items()))}")
    return "\n".join(lines)
