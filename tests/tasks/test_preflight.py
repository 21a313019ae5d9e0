"""What the machine or the model cannot do is refused before anything is spent."""

from __future__ import annotations

import pytest

from nash_search.errors import InvalidInput


def test_preflight_refuses_what_the_machine_or_the_model_cannot_do(model_folder, folder):
    from nash_search.config_loader import load_config
    from nash_search.tasks.preflight import check

    own = {"task.name": "mine", "task.data": str(folder), "model": str(model_folder)}
    own["search_space.decoder_layers"] = [1, 2]
    check(load_config(None, own))
    cases = {
        "threads must be at most": {"workload.threads": 1000},
        "decoder_layers must be between 1 and 2": {"search_space.decoder_layers": [5]},
        "must exist": {"task.data": "./none.jsonl"},
    }
    if model_folder.name != "t5":
        cases["output_tokens must be at most 64"] = {"workload.output_tokens": 65}
    for expected, change in cases.items():
        with pytest.raises(InvalidInput, match=expected):
            check(load_config(None, own | change))
    with pytest.raises(InvalidInput, match="needs your own model"):
        check(load_config(None, {"task.name": "mine", "task.data": str(folder)}))
    with pytest.raises(InvalidInput, match="come with data"):
        check(load_config(None, {"task.name": "mine"}))
