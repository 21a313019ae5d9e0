"""The run in a terminal: before spending, while it runs, and the answer.

`RunTable` is a listener of the search. On a terminal it keeps one live table; into a pipe it
writes plain lines; when quiet, nothing. It redraws only when told something, never on a timer:
a refresh thread would disturb the very latencies that are being measured. Everything foreign
goes through `escape.plain` into `Text`, so neither ANSI codes nor rich markup in it do anything.
It writes to the console it is handed (stderr by default); stdout is the JSON line's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nash_search.config import LatencyBudget
from nash_search.records import TrialRecord
from nash_search.report import escape
from nash_search.report.plan_text import panel, plan_lines
from nash_search.report.points import Point
from nash_search.report.stages import STAGES
from nash_search.report.text import answer
from nash_search.report.view import StudyView, build
from nash_search.report.words import (
    format_duration,
    format_ms,
    format_quality,
)
from nash_search.summaries import Plan

_BARS, _SPARKLINE = "▁▂▃▄▅▆▇█", 24
_MARKS = {"met": ("✓", "green"), "missed": ("✗", "dim"), "ambiguous": ("?", "yellow")}
_QUIET_S = 60.0
"""Into a pipe, progress inside a trial is told at most this often."""
_REDRAW_S = 0.5


class StudyState(Protocol):
    """What the search shows its listeners after a trial."""

    @property
    def records(self) -> tuple[TrialRecord, ...]: ...

    @property
    def hypervolume(self) -> float: ...

    @property
    def eta_s(self) -> float | None: ...


def sparkline(values: list[float]) -> str:
    """The last `_SPARKLINE` values as bars from the smallest to the largest."""
    shown = values[-_SPARKLINE:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    if high == low:
        return _BARS[3] * len(shown)
    return "".join(_BARS[round((v - low) / (high - low) * (len(_BARS) - 1))] for v in shown)


class RunTable:
    """Listener that shows a run; use as a context manager around `search`."""

    def __init__(
        self,
        *,
        quiet: bool = False,
        console: Console | None = None,
        dashboard_url: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self.quiet = quiet
        self.plan = Plan()
        self.records: list[TrialRecord] = []
        self.running: dict[int, tuple[str, int, int, float]] = {}
        """Trial number -> (stage, step, steps, loss)."""
        self.stage = "starting"
        self._dashboard_url = dashboard_url or ""
        self._clock = clock
        self._began = clock()
        self._eta: tuple[float, float] | None = None
        """(moment, seconds left then)."""
        self._volumes: list[float] = []
        self._seen: StudyView | None = None
        """Kept between trials: intervals are not worth computing twice a second beside a timing."""
        self._board: Table | None = None
        self._told = float("-inf")
        self._live: Live | None = None

    def __enter__(self) -> RunTable:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the last state of the table on the screen."""
        if self._live is not None:
            self._live.update(self.render(), refresh=True)
            self._live.stop()
            self._live = None

    def on_stage(self, stage: str, detail: Mapping[str, Any]) -> None:
        """A new stage; `plan` carries what is known before anything is spent, `finalist` the end of one."""
        if stage == "finalist":
            self.running.pop(detail["number"], None)
        if stage == "plan":
            self.plan, self._seen = Plan.model_validate(detail), None
            self._say_plan()
        elif words := STAGES.get(stage, lambda _: stage)(detail):
            self.stage = escape.plain(words)
            self._refresh(self.stage)

    def on_trial(self, record: TrialRecord, state: StudyState | None = None) -> None:
        """A trial ended, one way or another; `state` knows the trials of earlier runs too."""
        self.running.pop(record.number, None)
        self._seen = None
        if state is not None:
            self.records = list(state.records)
            self._volumes.append(state.hypervolume)
            self._eta = None if state.eta_s is None else (self._clock(), state.eta_s)
        else:
            self.records = [r for r in self.records if r.number != record.number] + [record]
        view = self._view()
        point = next(p for p in view.points if p.number == record.number)
        self._refresh(self._trial_line(point, view))

    def on_progress(self, number: int, stage: str, step: int, steps: int, loss: float) -> None:
        """A running trial moved on."""
        self.running[number] = (stage, step, steps, loss)
        now = self._clock()
        if now - self._told >= (_REDRAW_S if self.console.is_terminal else _QUIET_S):
            self._told = now
            self._refresh(f"trial {number}: {escape.plain(stage, 30)} {step}/{steps}, loss {loss:.3f}")

    @property
    def eta_s(self) -> float | None:
        """Seconds left, as the search or before it the plan expects."""
        if self._eta is not None:
            since, left = self._eta
        elif self.plan.eta_s:
            since, left = self._began, self.plan.eta_s
        else:
            return None
        return max(0.0, left - (self._clock() - since))

    def finish(self, view: StudyView, files: list[str] | tuple[str, ...] = ()) -> None:
        """The answer: leaderboard, picks, files, and how to load the winner."""
        self.close()
        if not self.quiet:
            self.console.print(answer(view, files, self.console.width), crop=False)

    def render(self) -> RenderableType:
        """The live table as it is now."""
        if self._seen is None:
            self._seen = self._view()
            self._board = self._trials(self._seen) if self.records else None
        view = self._seen
        parts: list[RenderableType] = [] if self._board is None else [self._board]
        if self.running:
            parts.append(self._running())
        parts.append(self._status(view))
        return Group(*parts)

    def _view(self) -> StudyView:
        return build(self.records, self.plan.begun())

    def _say_plan(self) -> None:
        if self.quiet:
            return
        if self.console.is_terminal:
            self.console.print(panel(self.plan, self._dashboard_url), crop=False)
        else:
            for line in plan_lines(self.plan, self._dashboard_url):
                self.console.print(Text(line), soft_wrap=True)

    def _refresh(self, line: str) -> None:
        if self.quiet:
            return
        if not self.console.is_terminal:
            stamp = format_duration(self._clock() - self._began)
            self.console.print(Text(f"[{stamp}] {line}"), soft_wrap=True)
            return
        if self._live is None:
            self._live = Live(console=self.console, auto_refresh=False, vertical_overflow="ellipsis")
            self._live.start()
        self._live.update(self.render(), refresh=True)

    def _budgets(self) -> list[LatencyBudget]:
        return [LatencyBudget.parse(budget.asked) for budget in self.plan.budgets]

    def _trial_line(self, p: Point, view: StudyView) -> str:
        """One finished trial for a pipe."""
        if not p.measured:
            return f"trial {p.number} ({escape.plain(p.label, 60)}): {p.status}, {escape.plain(p.reason)}"
        met = [b.asked for b in self._budgets() if p.record.latency and p.record.latency.verdict(b) == "met"]
        extra = f", meets {', '.join(met)}" if met else ""
        extra += ", on the front" if p.on_front else ""
        extra += f", stopped: {escape.plain(p.record.stopped)}" if p.record.stopped else ""
        return (
            f"trial {p.number} ({escape.plain(p.label, 60)}): {format_ms(p.ms)} ms ({p.speedup or 0:.2f}×), "
            f"{escape.plain(view.metric, 30)} {format_quality(p.quality)}{extra}"
        )

    def _trials(self, view: StudyView) -> Table:
        budgets = self._budgets()[:4]
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        table.add_column("trial", justify="right")
        table.add_column("kept")
        table.add_column(view.ms_name, justify="right")
        table.add_column("speed-up", justify="right")
        table.add_column(Text(escape.plain(view.metric, 16)), justify="right")
        for budget in budgets:
            table.add_column(Text(f"≤ {budget.asked}"), justify="center")
        table.add_column("front", justify="center")
        table.add_column("train", justify="right")
        table.add_column("")
        room = max(6, self.console.size.height - 8 - len(self.running))
        hidden = len(view.points) - room
        for p in view.points[-room:]:
            cells: list[RenderableType] = [str(p.number), Text(p.label)]
            if p.measured:
                cells += [format_ms(p.ms), f"{p.speedup or 0:.2f}×", format_quality(p.quality)]
            else:
                cells += ["–", "–", "–"]
            for budget in budgets:
                mark, style = _MARKS[p.record.latency.verdict(budget)] if p.record.latency else ("", "")
                cells.append(Text(mark, style))
            cells += [
                Text("●" if p.on_front else "", "bold"),
                format_duration(p.record.train_s) if p.record.train_s else "",
            ]
            cells.append(Text(escape.plain(p.reason, 60), "yellow" if p.status == "failed" else "dim"))
            table.add_row(*cells, style="" if p.on_front else "dim")
        if hidden > 0:
            table.caption = f"{hidden} earlier trials not shown"
            table.caption_justify = "left"
        return table

    def _running(self) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        for number, (stage, step, steps, loss) in sorted(self.running.items()):
            bar = ProgressBar(
                total=max(1, steps), completed=step, width=24, complete_style="cyan", finished_style="green"
            )
            table.add_row(
                Text(f"trial {number}"),
                Text(escape.plain(stage, 20), "cyan"),
                bar,
                Text(f"{step}/{steps}", "dim"),
                Text(f"loss {loss:.3f}", "dim"),
            )
        return table

    def _status(self, view: StudyView) -> Text:
        trained = sum(p.status in ("complete", "stopped") and not p.dense for p in view.points)
        words = [self.stage]
        if self.plan.trials:
            words.append(f"{trained} of {self.plan.trials} trained")
        volumes = self._volumes or [v for _, v in view.hypervolume]
        if volumes:
            words.append(f"hypervolume {sparkline(volumes)} {volumes[-1]:.4g}")
        spent = sum(r.train_s for r in self.records)
        if spent:
            words.append(f"trained for {format_duration(spent)}")
        if self.eta_s is not None and trained < self.plan.trials:
            words.append(f"about {format_duration(self.eta_s)} left")
        lines = [" · ".join(words)]
        if self._dashboard_url:  # alone on its line: a link that is cut in two opens nothing
            lines.append(escape.plain(self._dashboard_url))
        return Text("\n".join(lines), "dim")
