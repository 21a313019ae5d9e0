"""What the search asks for is what the dense model's family can give, or it is refused before anything is spent."""

from pathlib import Path

import pytest

from nash_search.config import SearchConfig
from nash_search.errors import InvalidInput
from nash_search.search.dense import Dense
from nash_search.tasks import models


@pytest.mark.parametrize(
    ("family", "changes", "refusal"),
    [
        ("mbart", {"recipe": {"labels": "teacher"}}, "labels teacher must have .*, but got mbart"),
        ("bart", {"recipe": {"labels": "teacher"}}, None),
        (
            "t5",
            {"format": "stock", "recipe": {"widths": "uniform"}},
            "format stock must .*, but got narrow encoders of t5",
        ),
        ("bart", {"format": "stock", "recipe": {"widths": "uniform"}}, None),
    ],
)
def test_what_a_family_cannot_give_is_refused(monkeypatch, family, changes, refusal):
    found = models.ModelFolder(
        folder=Path("m"), model_type=family, ours=False, encoder_layers=2, decoder_layers=2, config={}
    )
    monkeypatch.setattr(models, "find_model", lambda name, revision: found)
    dense = Dense(SearchConfig.model_validate({"model": "m", **changes}))
    if refusal is None:
        assert dense.found is found
    else:
        with pytest.raises(InvalidInput, match=refusal):
            dense.found  # noqa: B018
