"""A search space is written for a model and loads."""

from __future__ import annotations


def test_a_search_space_is_written_for_a_model_and_loads(model_folder, tmp_path):
    from nash_search.config_loader import load_config
    from nash_search.tasks.starter import search_space_text

    file = tmp_path / "mine.yaml"
    file.write_text(search_space_text(str(model_folder)))
    config = load_config(file)
    assert config.model == str(model_folder) and config.search_space.decoder_layers == (1, 2)
    assert config.recipe.calibrate
    assert config.recipe.learning_rate == (3e-4 if model_folder.name == "t5" else 5e-5)
