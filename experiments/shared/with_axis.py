"""A search with one axis more, replayed: what the real scheduler finds on a table of trainings, with it and without.

The axis stands where the scheduler has a third one already, under that one's names; what a place takes is looked up,
for the probe's curves know depth and the encoder alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from experiments.shared import replay
from nash_search.budget import LatencyBudget
from nash_search.config import Architecture, SearchConfig
from nash_search.config_loader import load_config
from nash_search.latency_record import Latency, Round
from nash_search.latency_table import LatencyTable, ProbeEntry

NAMES = ("scored", "uniform", "low", "high")
"""Values that the scheduler's third axis may have, for up to as many of the new one."""
BUDGETS = ("100%", "50%", "35%")
NEVER = 9.0
"""Share of a place that nobody trained."""


class Known(LatencyTable):
    """Shares by place, as they were measured."""

    share_of: dict[str, float]

    @property
    def width_worth(self) -> None:  # type: ignore[override]
        """Not asked: every place stays in the space."""

    def _shares(self, architecture: Architecture) -> tuple[float, float]:
        found = self.share_of.get(architecture.slug, NEVER)
        return found, found


class Place:
    """A trained architecture: where it stands, what it takes and what it came to."""

    def __init__(self, depth: int, encoder_pct: int, axis: int, share: float, quality: float, train_s: float) -> None:
        self.architecture = Architecture(
            decoder_layers=depth, encoder_sparsity_pct=encoder_pct, decoder_selection=NAMES[axis]
        )
        self.share, self.quality, self.train_s = share, quality, train_s


def growth(
    places: Sequence[Place], whole: Sequence[Place], like: replay.GridTable, *, trials: Sequence[int], dense: float
) -> list[float]:
    """Percent by which the hypervolume of a search over `places` is above that over `whole`, by number of trials.

    Args:
        places: all of them.
        whole: those without the new axis.
        like: a table whose study has the same metric's form.
        trials: the searches end at the seconds that so many trials without the axis take.
        dense: the teacher's quality, which the reference point is four fifths of.
    """
    config = load_config("g2p", {"sampler": "gp", "trials": 1_000})
    config = config.model_copy(update={"budgets": tuple(LatencyBudget.parse(b) for b in BUDGETS)})
    runs = [_run(chosen, like, dense, config) for chosen in (whole, places)]
    found = []
    for count in trials:
        limit_s = runs[0][min(count, len(runs[0])) - 1].train_s
        without, within = (max(p.hypervolume for p in run if p.train_s <= limit_s) for run in runs)
        found.append(100 * (within / without - 1))
    return found


def _run(places: Sequence[Place], like: replay.GridTable, dense: float, config: SearchConfig) -> list[replay.Progress]:
    first, dense_ms = like.entries[0], like.facts.dense_ms
    entries, probed = dict[str, replay.Entry](), list[ProbeEntry]()
    for place in places:
        quality = first.quality.model_copy(update={"value": place.quality})
        curve = (first.curve[-1].model_copy(update={"quality": place.quality}),)
        where = place.architecture
        entries.setdefault(
            where.slug,
            replay.Entry(architecture=where, share=place.share, quality=quality, curve=curve, train_s=place.train_s),
        )
        rounds = (Round(runs_ms=(place.share * dense_ms,) * 2, dense_runs_ms=(dense_ms,) * 2),)
        probed.append(ProbeEntry(architecture=where, latency=Latency(rounds=rounds, workload=like.probe.workload)))
    own = [entry.architecture for entry in entries.values()]
    space = like.facts.space.model_copy(
        update={
            "encoder_sparsity_pct": (0, 80, 10),
            "decoder_layers": tuple(sorted({a.decoder_layers for a in own})),
            "decoder_selection": tuple(dict.fromkeys(a.decoder_selection for a in own)),
        }
    )
    asked = {**like.facts.question, "search_space": space.model_dump(mode="json")}
    changes = {"question": asked, "reference_share": 1.1, "reference_quality": 0.8 * dense, "direction": "maximize"}
    table = like.model_copy(
        update={
            "entries": tuple(entries.values()),
            "probe": Known(entries=tuple(probed), share_of={e.architecture.slug: e.share for e in entries.values()}),
            "facts": like.facts.model_copy(update=changes),
        }
    )
    return replay.replay(table, config, seed=0)  # seeds agree within 0.02 %: after its anchors the sampler is led
