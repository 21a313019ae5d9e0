"""What other engines do with the dense model, nothing pruned, as text: for the plan, the probe and the answer.

    engines           CTranslate2 int8 19.9 ms (5.67× faster, 99.8% of the quality), …
    nothing pruned    CTranslate2 int8 alone meets 40 ms at 99.8% of the quality; nothing needs pruning
                      ONNX Runtime alone may meet 40 ms at 100.0% of the quality (certifying it needs 36.5 ms here)
    certify it        nash-search measure … --budget-ms 40

One process timed it, so every sentence says that it is no certificate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nash_search.report import escape
from nash_search.report.words import counted, format_duration, format_ms, is_share, named
from nash_search.runtimes import RUNTIMES
from nash_search.summary_rows import EngineAnswer, EnginesRow, EngineTried

NAMES = {name: row.words for name, row in RUNTIMES.items()}
COMMAND = "certify it"
LABELS = ("engines", "nothing pruned", COMMAND)


def engine_name(engine: EngineTried) -> str:
    """`CTranslate2 int8`, `ONNX Runtime`, `CTranslate2 int8 float16`."""
    words = [NAMES.get(engine.runtime, escape.plain(engine.runtime, 30))]
    words += [engine.quantize] if engine.quantize != "none" else []
    words += [engine.dtype] if engine.dtype != "float32" else []
    return " ".join(words)


def trying(detail: Mapping[str, Any]) -> str:
    """What is about to be tried, and how long it may take."""
    names = ", ".join(NAMES.get(name, name) for name in detail["runtimes"])
    return f"trying the unpruned model on {names} (at most {format_duration(detail['limit_s'])}; --no-engines: do not)"


def rows(engines: EnginesRow | None, goes_on: str = "") -> list[tuple[str, str]]:
    """(label, words) pairs; none where nothing was tried.

    Args:
        engines: what was tried.
        goes_on: the runtime that a search prunes for all the same (nothing: there is no search).
    """
    if engines is None or not engines.tried:
        return []
    able = [e for e in engines.tried if e.latency_ms is not None]
    found = [("engines", f"the dense model on {'; '.join(map(_timed, able))}{_how(engines)}")] if able else []
    failed: dict[str, list[str]] = {}
    for engine in engines.tried:
        if engine.latency_ms is None:
            failed.setdefault(escape.plain(engine.reason, 300), []).append(engine_name(engine))
    found += [("engines", f"not on {' and '.join(names)}: {reason}") for reason, names in failed.items()]
    least = engines.kept_at_least
    broken = [engine_name(e) for e in able if e.kept is not None and e.kept < least]
    if broken:
        found.append(("engines", f"{' and '.join(broken)}: under {least:.0%} of the quality, so never an answer"))
    alike = _together(engines)
    for answers in alike:
        found.append(("nothing pruned", sentence(answers)))
    if alike and goes_on:
        found.append(("nothing pruned", f"the search goes on all the same, for {NAMES.get(goes_on, goes_on)}"))
    return found + [(COMMAND, line) for answers in alike if (line := _tightest(answers).command)]


def _together(engines: EnginesRow | None) -> list[list[EngineAnswer]]:
    """Answers of one engine and one verdict side by side."""
    found: dict[tuple[str, bool], list[EngineAnswer]] = {}
    for answer in engines.answers if engines is not None else ():
        if answer is not None:
            found.setdefault((engine_name(answer), _meets(answer)), []).append(answer)
    return list(found.values())


def _meets(answer: EngineAnswer) -> bool:
    return answer.verdict == "met"


def _tightest(answers: Sequence[EngineAnswer]) -> EngineAnswer:
    return min(answers, key=lambda answer: answer.budget_ms)


def sentence(answers: Sequence[EngineAnswer]) -> str:
    """The budgets that one engine meets, or may meet, by itself."""
    one = answers[0]
    ms, at_most = format_ms(one.latency_ms), format_ms(one.upper_ms)
    asked, kept = " and ".join(_budget(answer.asked) for answer in answers), f"{one.kept or 0:.1%} of the quality"
    bound = "" if one.upper_ms is None else f", at most {at_most}"
    timed = f"{ms} ms{bound}; timed here in one process, not certified"
    if _meets(one):
        return f"{engine_name(one)} alone meets {asked} at {kept}; nothing needs pruning ({timed})"
    if any("@" in answer.asked for answer in answers):  # a margin is known of a call's median alone
        return f"{engine_name(one)} alone may meet {asked} at {kept} ({timed})"
    needs = " and ".join(format_ms(answer.needs_ms) for answer in answers)
    return f"{engine_name(one)} alone may meet {asked} at {kept} ({timed}; a certificate needs {needs} ms here)"


def reminders(engines: EnginesRow | None) -> list[str]:
    """After a search: what met its budgets before anything was pruned."""
    return [f"Before pruning: {sentence(answers)}" for answers in _together(engines)]


def instead(engines: EnginesRow | None) -> str:
    """Where no architecture meets a budget: what does without pruning, or may, or nothing."""
    alike = _together(engines)
    if not alike:
        return ""
    answers = max(alike, key=lambda answers: _meets(answers[0]))
    asked = ", ".join(_budget(a.asked) for a in answers)
    return f"; {engine_name(answers[0])} alone {'meets' if _meets(answers[0]) else 'may meet'} {asked}, nothing pruned"


def absent(engines: EnginesRow | None) -> list[tuple[str, str]]:
    """What is not installed and how it would be, for who asked what there is."""
    names = engines.absent if engines is not None else ()
    if not names:
        return []
    words = " and ".join(NAMES.get(name, name) for name in names)
    return [("not installed", f"{words}: pip install 'nash-search[{','.join(names)}]' tries them too")]


def _timed(engine: EngineTried) -> str:
    words = f"{engine_name(engine)} {format_ms(engine.latency_ms)} ms ({engine.speedup or 0:.2f}× faster, "
    return words + (f"{engine.kept:.1%} of the quality)" if engine.kept is not None else "quality not known in time)")


def _how(engines: EnginesRow) -> str:
    examples = f" on {counted(engines.examples, 'example')}" if engines.examples else ""
    took = "known from before" if engines.remembered else f"took {format_duration(engines.seconds)}"
    return f"{examples}; {took}"


def _budget(asked: str) -> str:
    if not is_share(asked):
        return named(asked)
    bound, _, percentile = named(asked).partition(" at ")
    return f"{bound} of dense{f' at {percentile}' if percentile else ''}"
