"""Every export gets its card, and no other folder does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from nash_search.config import LatencyBudget
from nash_search.errors import InvalidInput
from nash_search.report import exports, load


def test_every_export_gets_a_valid_card(on_disk: Path) -> None:
    written = exports.write_cards(on_disk, load.load(on_disk), license="apache-2.0")
    assert [p.relative_to(on_disk).as_posix() for p in written] == [
        "checkpoints/g2p-4/README.md",
        "best/50pct/README.md",
        "checkpoints/g2p-0/README.md",
    ]
    found = ModelCard(written[0].read_text())
    data = found.data.to_dict()
    assert data["license"] == "apache-2.0" and data["library_name"] == "transformers"
    [result] = data["model-index"][0]["results"]
    assert result["dataset"]["split"] == "test" and result["metrics"][0]["type"] == "100-PER"
    for words in ("2 decoder blocks and 60%", "batch 64", "WER", "trust_remote_code"):
        assert words in found.text
    assert "decoder blocks of the teacher: 0, 5" in found.text and "## Limits" in found.text
    assert "trust_remote_code" not in written[2].read_text(), "a stock checkpoint needs none of our code"


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"model_type": "bart", "encoder_ffn_dim": 8, "decoder_ffn_dim": 16}, True),
        ({"model_type": "bart", "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}, False),
        ({"model_type": "mbart", "encoder_ffn_dim": 8, "decoder_ffn_dim": 16}, False),
        ({"model_type": "nash_bart", "encoder_ffn_dim": 8, "decoder_ffn_dim": 16}, False),
        ({"model_type": "t5", "d_ff": 8}, False),
        ([], False),
    ],
)
def test_a_stock_export_names_the_server_that_misreads_it(on_disk: Path, config: object, named: bool) -> None:
    export = on_disk / "checkpoints" / "g2p-4"
    (export / "config.json").write_text(json.dumps(config))
    card = exports.write_cards(on_disk, load.load(on_disk))[0].read_text()
    assert ("vLLM's bart-plugin sizes the decoder's FFN" in card) == named


def test_an_export_outside_the_folder_is_refused(on_disk: Path) -> None:
    path = on_disk / "certification.json"
    found = json.loads(path.read_text())
    found["points"][0]["checkpoint"] = "../../elsewhere"
    path.write_text(json.dumps(found))
    with pytest.raises(InvalidInput, match="must lie in the study's folder"):
        exports.write_cards(on_disk, load.load(on_disk))


@pytest.mark.parametrize(
    ("asked", "name"), [("50%", "50pct"), ("12.5%", "12.5pct"), ("40", "40ms"), ("8.4ms", "8.4ms")]
)
def test_best_folders_are_named_after_their_budget(asked: str, name: str) -> None:
    assert LatencyBudget.parse(asked).folder == name
