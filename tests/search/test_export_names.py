"""Exports have plain names that say their latency."""

import json

from nash_search.search import certify


def test_export_names_are_plain_and_say_the_latency_of_the_document(rehearse):
    result = rehearse(trials=3)
    rows = {row["checkpoint"]: row for row in result.document["front"]}
    for point in result.front:
        shown = next(row for path, row in rows.items() if path.endswith(point.checkpoint))
        assert f"-{shown['latency_ms']:.3g}ms-" in point.checkpoint
        assert certify.CHECKPOINTS + "/rehearsal-" == point.checkpoint[: len("checkpoints/rehearsal-")]
        assert all(c.isalnum() or c in "._-" for c in point.checkpoint.split("/")[1])
        measurement = json.loads((result.folder / point.checkpoint / "measurement.json").read_text())
        assert {"workload", "teacher", "latency_ms"} <= set(measurement)
