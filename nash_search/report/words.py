"""Numbers and names as people read them: the same digits in every table, plot and page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from nash_search import intervals
from nash_search.calibration_record import Calibration, Setting, ShortTraining
from nash_search.config import Architecture, Workload
from nash_search.fidelity import KEPT_SHARE, Fidelity
from nash_search.intervals import half_width
from nash_search.length_forecast import Forecast
from nash_search.report import escape
from nash_search.summary_rows import BudgetRow, Certifies, DataFacts, Vocabulary, Window

FAR_APART = 4.0
"""Where an interval's upper end is more than so many times its lower end, both are printed instead of a ±."""
UNBOUNDED = 100.0
"""From so many times on, neither is: `TOO_FEW` is printed."""
TOO_FEW = "too few measurements to bound it"


def describe(architecture: Architecture) -> str:
    """`2 dec · enc 70%`: decoder blocks and the percent of the encoder kept."""
    tail = (
        "" if architecture.decoder_selection == "uniform" else f" · {escape.plain(architecture.decoder_selection, 40)}"
    )
    return f"{architecture.decoder_layers} dec · enc {100 - architecture.encoder_sparsity_pct}%{tail}"


def one_call(work: Workload, heard: str = "") -> str:
    """A workload in one line; `heard` says how much sound goes in where that is no text."""
    beams = f", {work.beams} beams" if work.beams != 1 else ""
    quantized = f" {work.quantize}" if work.quantize != "none" else ""
    threads = "" if "cuda" in work.device else f", {counted(work.threads, 'thread')}"
    lengths = f"batch {work.batch_size}, {work.input_tokens} tokens in, {work.output_tokens} out"
    if heard:
        lengths = f"batch {work.batch_size}, {heard} of sound in, {work.output_tokens} tokens out"
    if work.traffic is not None:
        of = f"{counted(work.traffic.of, 'request')} of {escape.plain(work.traffic.source, 60)}"
        one = "one" if work.batch_size == 1 else f"a batch of {work.batch_size}"
        lengths = f"{one} of {of} (medians {work.input_tokens} tokens in, {work.output_tokens} out)"
    return f"{lengths}{beams}, {work.dtype}, {work.runtime}{quantized}{threads}"


def named(asked: str) -> str:
    """A budget with its unit: `50%`, `40 ms`, `40 ms at p95`."""
    bound, _, percentile = asked.partition("@")
    at = f" at {escape.plain(percentile.strip(), 8)}" if percentile else ""
    unit = "" if is_share(asked) or bound.strip().endswith("ms") else " ms"
    return escape.plain(bound.strip(), 20) + unit + at


def is_share(asked: str) -> bool:
    """The budget is a share of the dense latency: what it is in milliseconds is said beside it."""
    return asked.partition("@")[0].rstrip().endswith("%")


def copied(line: str, style: str = "") -> Text:
    """A line somebody will copy: never broken, however narrow the terminal."""
    return Text(line, style, no_wrap=True, overflow="ignore")


def counted(count: int, noun: str) -> str:
    """`1 model`, `3 models`."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def ranges(numbers: Sequence[int]) -> str:
    """Ascending whole numbers as people say them: `2, 4 or 6`, `1 to 4`, `1 to 3 or 6`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = [w for run in runs for w in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run))]
    return " or ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def format_quality(value: float | None, scale: float | None = None) -> str:
    """A metric's value with the digits its size deserves."""
    if value is None:
        return "–"
    return f"{value:.4f}" if abs(scale if scale is not None else value) <= 1.5 else f"{value:.2f}"


def format_scored(value: float | None, standard_error: float | None) -> str:
    """A metric's value with the half-width of its 95 % interval, where its error is known."""
    half = None if standard_error is None else half_width(standard_error)
    return format_quality(value) + ("" if half is None else f" ± {format_quality(half, value)}")


def format_ms(value: float | None) -> str:
    """Milliseconds with three significant digits and at least one decimal below 100."""
    if value is None:
        return "–"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def format_duration(seconds: float | None) -> str:
    """`48 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds is None:
        return "–"
    total = max(0, round(seconds))
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min" + (f" {total % 60:02d} s" if total % 60 and total < 600 else "")
    return f"{total // 3600} h {total % 3600 // 60:02d} min"


def format_real_time(factor: float | None) -> str:
    """A real-time factor: `0.082` is a second of sound in 82 ms."""
    return "–" if factor is None else f"{factor:.3g}"


def format_spread(low: float | None, high: float | None) -> str:
    """` ± 0.4` (half of an interval in milliseconds), or nothing where there is none.

    An interval whose ends are further apart than `FAR_APART` is no ± of anything: its ends are said, unless they are
    so far apart (`UNBOUNDED`) that the rounds bound nothing.
    """
    if low is None or high is None:
        return ""
    if high > UNBOUNDED * low:
        return f" ({TOO_FEW})"
    if high > FAR_APART * low:
        return f" ({format_ms(low)} to {format_ms(high)})"
    return f" ± {format_ms((high - low) / 2)}"


def certifies_words(found: Certifies) -> str:
    """What this machine can certify: `40 ms needs a median of at most 34.6 ms here; a share is judged to 1.5%`."""
    share, ms = f"{found.share_margin:.1%}", f"{found.ms_margin:.0%}"
    needs = [
        f"{named(asked)} needs {'a median' if '@' not in asked else 'one'} of at most {format_ms(needed)} ms here"
        for asked, needed in found.needs_ms.items()
    ]
    said = f"{', '.join(needs)}; a share is judged to {share}" if needs else f"a share to {share} here, ms to {ms}"
    counted_ = counted(found.occasions, "measurement")
    why = f"assumed, {counted_} of the dense model being too few" if found.assumed else f"by {counted_}"
    return f"{said} (medians move by {found.occasion_sd:.1%} between occasions, {why})"


def at_most(upper_ms: float, latency_ms: float) -> str:
    """` (at most 36.1 with 95% confidence)`, where the rounds bound it."""
    if upper_ms > UNBOUNDED**0.5 * latency_ms:
        return f" ({TOO_FEW})"
    return f" (at most {format_ms(upper_ms)} with {intervals.LEVEL_PCT}% confidence)"


def looks_words(looks: int, rounds: int) -> str:
    """That an answer was asked for before; nothing at the first time."""
    if looks <= 1:
        return ""
    return f"asked {looks} times: all {rounds} rounds count, the bounds are widened for each asking"


def unmet_words(rows: Sequence[BudgetRow]) -> str:
    """Who meets none of these budgets: no architecture where each lies below the floor, else no trained model."""
    below = all(row.floor_ms is not None and row.floor_ms > row.budget_ms for row in rows)
    return "no architecture" if below else "no trained model"


def shut_out_words(asked: str, quality: float | None, dense: float | None) -> str:
    """That a model meets the budget and `--max-drop` shuts it out; empty where that is not so."""
    if quality is None:
        return ""
    of = "" if dense is None else f" of the dense model's {format_quality(dense)}"
    best = f"the best model within {named(asked)} has {format_quality(quality)}{of} on validation"
    return f"{best}, which --max-drop shuts out: allow more latency or a larger drop, or train longer"


OLD_PROTOCOL = (
    "milliseconds were certified by the old protocol, which took no account of how far a median moves from one "
    "occasion to the next (shares stand)"
)


def renewing(study: str) -> str:
    """What to do about a study certified by the old protocol."""
    return f"{OLD_PROTOCOL}: nash-search remeasure {escape.plain(study, 80)} renews them"


def format_count(parameters: int | None) -> str:
    """Parameters: `310k`, `60.5M`."""
    if parameters is None:
        return "–"
    if parameters >= 1_000_000:
        return f"{parameters / 1e6:.1f}M"
    return f"{parameters / 1e3:.0f}k" if parameters >= 1000 else str(parameters)


def data_words(found: DataFacts) -> str:
    """Rows of the splits, and what was done about sources that stand in two of them."""
    words = f"{found.train:,} train, {found.validation:,} validation, {found.test:,} test rows"
    shared = {
        "validation also in train": found.validation_in_train,
        "test also in train": found.test_in_train,
        "test also in validation": found.test_in_validation,
    }
    lost = {"train": found.train_dropped, "validation": found.validation_dropped}
    counts = ", ".join(f"{count:,} of {where}" for where, count in shared.items() if count)
    if not counts:
        return f"{words}; no source stands in two splits"
    if found.overlap_allowed:
        return f"{words}; splits share sources, as was allowed ({counts}): trust the numbers less"
    dropped = " and ".join(f"{count:,} of {split}" for split, count in lost.items() if count)
    return f"{words}, after {dropped} were dropped because their sources are held out ({counts})"


def vocabulary_words(found: Vocabulary) -> str:
    """What trimming the vocabulary gained and cost, before any pruning."""
    low, high = found.share_bounds
    spread = "" if low is None or high is None else f" ({low:.1%} to {high:.1%})"
    lost = ", ".join(f"{part['dropped_share']:.2%} of {split}" for split, part in found.lost.items())
    return (
        f"vocabulary: {found.kept:,} of {found.of:,} tokens kept, which leaves {found.share:.1%}{spread} of "
        f"the given teacher's latency and {escape.plain(found.metric, 40)} {format_quality(found.quality)} of "
        f"{format_quality(found.given_quality)}; tokens lost: {lost}"
    )


def window_words(found: Window) -> str:
    """What a shorter window gains, before any pruning."""
    low, high = found.share_bounds
    spread = "" if low is None or high is None else f" ({low:.1%} to {high:.1%})"
    return (
        f"window: {found.seconds:g} s instead of {found.of_seconds:g} s, which leaves {found.share:.1%}{spread} of "
        f"the {found.of_seconds:g} s model's latency ({format_ms(found.latency_ms)} ms, timed once, no certificate)"
        + (", with the device contended" if found.status == "contended" else "")
    )


def shared_words(found: Mapping[str, Any]) -> str:
    """What the training that all trials shared cost, and whether it guided them well."""
    words = f"shared training took {format_duration(found['train_s'])}"
    if found["rank_correlation"] is None:
        return f"{words}; too few trials to say how well it orders them"
    words += f"; it orders {found['trials']} trials with rank correlation {found['rank_correlation']:.2f}"
    return words if found["trusted"] else f"{words}, which is poor: later trials were trained by themselves"


def calibration_words(found: Mapping[str, Any]) -> str:
    """What a calibration is about to train."""
    steps = f"{found['short_steps']} and {found['long_steps']} steps"
    words = f"looking for learning rates and labels by short trainings of {steps} ({found['architecture']})"
    return words + (f"; {found['trained']} are there already" if found.get("trained") else "")


def training_words(training: ShortTraining) -> str:
    """What one short training came to."""
    words = f"{training.steps} steps {setting_words(training.setting)}: "
    if training.quality is not None:
        return words + format_quality(training.quality)
    return words + ("diverged" if training.failure == "nan" else f"failed ({training.failure})")


def setting_words(setting: Setting) -> str:
    """Rates and labels in words."""
    rates = [f"{setting.learning_rate:g}", f"{setting.tune_learning_rate:g}"]
    whose = {"data": "the data's targets", "teacher": "the teacher's answers", "mixed": "targets and answers in turn"}
    return f"at {rates[0] if len(set(rates)) == 1 else ' then '.join(rates)} on {whose[setting.labels]}"


def recipe_words(found: Calibration) -> str:
    """What a calibration decided, from what."""
    words, longer = f"trials train {setting_words(found.chosen)}", twice_words("a trial's steps", found.twice)
    if found.remembered:
        told = f"{words}, as found before for this model, data and number of steps", longer
        return "; ".join(filter(None, told))
    if len(found.trainings) == 1:
        taken, limit = format_duration(found.seconds), format_duration(found.limit_s)
        return (
            f"{words}, as the recipe says: one short training took {taken} of {limit}; more time or trials find better"
        )
    words += f": the best of {len(found.trainings)} short trainings, {format_duration(found.seconds)}"
    if found.by == "loss":
        words += f", by their loss, for {escape.plain(found.metric, 30)} was the same for all"
    return "; ".join(filter(None, (words, longer)))


def twice_words(what: str, found: Forecast | None) -> str:
    """`twice a trial's steps would bring about 0.75 (0.31 to 1.20) more`; nothing where it is not known."""
    if found is None:
        return ""
    gain, low, high = (format_quality(value, found.dense) for value in (found.gain, found.low, found.high))
    return f"twice {what} would bring about {gain} ({low} to {high}) more"


def fidelity_words(detail: Mapping[str, Any]) -> str:
    """What quantised exports keep of their float twins' quality, and how many are refused for it."""
    found: Sequence[Fidelity] = detail["found"]
    refused = sum(not each.holds for each in found)
    worst = escape.plain(min(found, key=lambda each: each.share).words, 120)
    tail = f"; {refused} refused: an answer must keep {KEPT_SHARE:.0%}" if refused else ""
    return f"{counted(len(found), 'quantised export')} compared with float32: the worst has {worst}{tail}"
