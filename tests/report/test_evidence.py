"""What the numbers rest on: every raw timing is drawn, and every width."""

from __future__ import annotations

from typing import Any

from nash_search.report import evidence, view


def test_contended_samples_are_crossed_and_none_is_dropped(study: Any) -> None:
    seen = view.build(*study)
    clean, contended, _ = evidence.samples(seen).data
    assert (clean.marker.symbol, contended.marker.symbol) == ("circle", "x")
    kept = sum(len(p.record.latency.runs_ms) for p in seen.front if p.record.latency)
    assert len(clean.x) + len(contended.x) == kept


def test_widths_are_written_in_for_every_point_of_the_front(study: Any) -> None:
    seen = view.build(*study)
    heads, neurons = evidence.widths(seen).data
    shapes = [p.record.shapes for p in seen.front if p.record.shapes]
    assert [list(row) for row in heads.text] == [[str(n) for n in shape.encoder_heads] for shape in shapes]
    assert [list(row) for row in neurons.text] == [[str(n) for n in shape.encoder_neurons] for shape in shapes]
