"""Search space files: each shipped one loads, and each broken one gets one line."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import get_args

import pytest

from nash_search import config_loader
from nash_search.config import DecoderSelection, SearchConfig
from nash_search.config_loader import find_search_space, load_config, search_spaces, seconds
from nash_search.errors import InvalidInput, NashSearchWarning
from nash_search.plain_yaml import read_mapping
from nash_search.recipes import PruningRecipe

SHIPPED = (
    "bart-base_xsum byt5 flan-t5-small g2p multi30k-en-de opus-mt own smoke t5-base_samsum t5-small_samsum whisper"
).split()


def load_text(tmp_path: Path, text: str | bytes, **overrides: object) -> SearchConfig:
    path = tmp_path / "space.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(path, overrides)


def test_the_shipped_search_spaces_are_these() -> None:
    assert sorted(search_spaces()) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_each_shipped_search_space_loads_and_says_whether_it_was_run(name: str) -> None:
    config = load_config(name)
    assert config.search_space.decoder_layers or name == "own"
    text = find_search_space(name).read_text()
    if name != "g2p":
        assert re.search(r"^# (Ran|Not yet run)\b", text, re.MULTILINE)
    fields = [line for line in text.splitlines() if re.match(r" *\w+: *[^\s#]", line)]
    assert len(fields) >= 4 and not [line for line in fields if " # " not in line], "every field says what it is"


def test_the_recipe_finds_itself_wherever_no_experiment_of_ours_has_found_it() -> None:
    found = {"g2p", "multi30k-en-de", "smoke"}  # `make study NAME=rates`, `NAME=recipe`; smoke only has to run
    assert {name for name in SHIPPED if not load_config(name).recipe.calibrate} == found


def test_selections_are_the_pruners() -> None:
    from nash_search.pruner.layer_selection import SELECTIONS

    assert get_args(DecoderSelection) == SELECTIONS


def test_flags_override_the_file_and_are_read_as_numbers(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("trials: 3\nworkload: {threads: 2}\nbudgets: [70%]\n")
    flags = {"trials": "5", "workload.batch_size": "8", "budgets": ["40", "50%"], "recipe.learning_rate": "1e-3"}
    config = load_config(path, flags | {"seed": None})
    assert (config.trials, config.workload.threads, config.workload.batch_size) == (5, 2, 8)
    assert [b.ms or b.share for b in config.budgets] == [40, 0.5]
    assert config.recipe.learning_rate == 1e-3


def test_without_a_named_search_space_own_data_gets_its_own_defaults() -> None:
    assert load_config("auto", {"budgets": ["50%"]}).task.name == "g2p"
    own = load_config("auto", {"task.data": "./My data.jsonl.gz"})
    assert (own.task.name, own.workload.batch_size, own.search_space.decoder_layers) == ("My-data", 1, ())
    assert load_config("auto", {"task.data": "x/y", "task.name": "z"}).task.name == "z"
    assert load_config("multi30k-en-de", {"task.data": "x"}).task.name == "multi30k-en-de"


@pytest.mark.parametrize("text", ["1e-3", "'1e-3'", "0.001", "1.0E-3", ".001"])
def test_a_number_is_what_the_user_means(tmp_path: Path, text: str) -> None:
    assert load_text(tmp_path, f"recipe: {{learning_rate: {text}}}").recipe.learning_rate == 0.001


def test_words_that_yaml_1_1_mistakes_stay_words(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: no\nb: 010\nc: 12:30\nd: 2026-01-01\ne: .nan\nf: ~\ng: true\nh: -7\ni: 0x10\nj: 1_0\nk: +1.5\n")
    assert read_mapping(path) == {
        "a": "no", "b": "010", "c": "12:30", "d": "2026-01-01", "e": ".nan", "f": None,
        "g": True, "h": -7, "i": "0x10", "j": "1_0", "k": 1.5,
    }  # fmt: skip


BROKEN: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "empty file"),
    "only a comment": ("# nothing\n", "empty file"),
    "list": ("- 1", "a list"),
    "scalar": ("5", "a single value"),
    "binary": (b"\x80\x81\x82", "UTF-8"),
    "NUL": ("trials: 3\0", "control characters"),
    "tab": ("recipe:\n\ttune_steps: 3", "a tab (indent with spaces)"),
    "unclosed bracket": ("trials: [", "syntax error"),
    "unknown key": ("trails: 3", "did you mean trials?"),
    "unknown key inside": ("recipe: {narow_steps: 3}", "did you mean narrow_steps?"),
    "string for int": ("trials: '8'", "trials must be a whole number, but got '8'"),
    "bool for int": ("trials: true", "whole number"),
    "fraction for int": ("trials: 1.5", "whole number"),
    "word for number": ("recipe: {learning_rate: abc}", "must be a number, but got 'abc'"),
    "list for mapping": ("recipe: [1]", "must be a mapping"),
    "python tag": ("a: !!python/object/apply:os.system [ls]", "the tag"),
    "alias": ("a: &a [1]\nb: *a", "an alias"),
    "self reference": ("a: &a\n  b: *a", "an alias"),
    "alias bomb": ("a: &a [x]\n" + "".join(f"b{i}: [*a, *a]\n" for i in range(99)), "an alias"),
    "duplicate key": ("trials: 1\ntrials: 2", "twice"),
    "merge key": ("<<: {trials: 3}", "known one"),
    "key that is a list": ("? [a]\n: b", "no plain name"),
    "two documents": ("trials: 3\n---\ntrials: 4", "two documents"),
    "too large": ("# " + "x" * (2 << 20), "1 MiB"),
    "too deep": ("[" * 50_000, "levels"),
    "number too long": ("seed: " + "9" * 5000, "number too long"),
    "nan budget": ("budgets: [.nan]", "'.nan'"),
    "inf budget": ("budgets: [.inf]", "'.inf'"),
    "budget in seconds": ("budgets: [40s]", "'40s'"),
    "budget as factor": ("budgets: [2x]", "'2x'"),
    "budget 0": ("budgets: [0]", "greater than 0"),
    "budget negative": ("budgets: [-5]", "'-5'"),
    "budget over 100 %": ("budgets: [150%]", "at most 100%"),
    "budgets no list": ("budgets: 50%", "must be a list"),
    "budget a list": ("budgets: [[50%]]", "like 40 or 50%"),
    "budget true": ("budgets: [true]", "like 40 or 50%"),
    "budgets twice": ("budgets: [50%, 50%]", "must differ"),
    "infinite rate": ("recipe: {learning_rate: 1e999}", "finite"),
    "nan rate": ("recipe: {learning_rate: .nan}", "must be a number"),
    "dtype": ("workload: {dtype: fp7}", "'float32', 'bfloat16' or 'float16'"),
    "device": ("workload: {device: tpu}", "device must be"),
    "threads 0": ("workload: {threads: 0}", "at least 1"),
    "beams 0": ("workload: {beams: 0}", "at least 1"),
    "output tokens": ("workload: {output_tokens: 99999999}", "at most 16384"),
    "sparsity turned": ("search_space: {encoder_sparsity_pct: [80, 0, 10]}", "but got"),
    "sparsity negative": ("search_space: {encoder_sparsity_pct: [-10, 50, 10]}", "0 <= low"),
    "sparsity 100": ("search_space: {encoder_sparsity_pct: [0, 100, 10]}", "<= 95"),
    "sparsity step": ("search_space: {encoder_sparsity_pct: [0, 50, 0]}", "at least 1"),
    "sparsity short": ("search_space: {encoder_sparsity_pct: [0]}", "more values"),
    "sparsity without baseline": ("search_space: {encoder_sparsity_pct: [10, 50, 10]}", "must start at 0"),
    "decoder layers 0": ("search_space: {decoder_layers: [0, 1]}", "at least 1"),
    "no selection": ("search_space: {decoder_selection: []}", "at least one"),
    "unknown selection": ("search_space: {decoder_selection: [best]}", "'uniform'"),
    "seed negative": ("seed: -1", "at least 0"),
    "seed too large": ("seed: 99999999999", "at most"),
    "study empty": ("study: ''", "1 to 64"),
    "study path": ("study: ../../x", "1 to 64"),
    "study control": ('study: "a\\u202eb\\nc"', "1 to 64"),
    "metric": ("task: {metric: rougeX}", "metric must be one of"),
    "timeout": ("trial_timeout_s: -1", "greater than 0"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_gets_one_line_that_names_it(tmp_path: Path, case: str) -> None:
    text, expected = BROKEN[case]
    with pytest.raises(InvalidInput) as refused:
        load_text(tmp_path, text)
    message = str(refused.value)
    assert expected in message and "\n" not in message
    assert "space.yaml" in message or len(message) > 180


@pytest.mark.parametrize("name", ["/nope/none.yaml", ".", "a\0b.yaml", "/dev/null", "smok", "g2p.yml"])
def test_a_file_that_cannot_be_read_is_named(name: str) -> None:
    with pytest.raises(InvalidInput, match="must"):
        load_config(name)


def test_a_flag_is_refused_under_its_own_name() -> None:
    cases = {
        "--trials": {"trials": "0"},
        "--batch-size": {"workload.batch_size": "0"},
        "--budget-ms": {"budgets": ["40s"]},
        "--dtype": {"workload.dtype": "fp7"},
        "--max-drop": {"max_drop_pct": "200"},
        "--metric": {"task.metric": "x"},
    }
    for flag, overrides in cases.items():
        with pytest.raises(InvalidInput, match=re.escape(f"({flag})")):
            load_config("g2p", overrides)


def test_stock_exports_are_of_uniform_widths_whatever_the_file_says() -> None:
    assert load_config("bart-base_xsum").recipe.widths == "free"
    assert load_config("bart-base_xsum", {"format": "stock"}).recipe.widths == "uniform"
    with pytest.raises(ValueError, match="format stock needs recipe.widths uniform, but got free"):
        SearchConfig(format="stock", recipe=PruningRecipe())
    with pytest.raises(InvalidInput, match=re.escape("(--format)")):
        load_config("g2p", {"format": "onnx"})


@pytest.mark.parametrize(("asked", "found"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), (" 5 min", 300)])
def test_durations(asked: str, found: float) -> None:
    assert seconds(asked) == found


@pytest.mark.parametrize("asked", ["2x", "-1", "0", "", "1e400", "nan", "1h30"])
def test_what_is_no_duration_is_refused(asked: str) -> None:
    with pytest.raises(InvalidInput, match="duration must be"):
        seconds(asked)


def test_errors_survive_a_process_boundary() -> None:
    error = InvalidInput("what", where="where", fix="fix")
    assert str(pickle.loads(pickle.dumps(error))) == "what (where): fix" == str(error)


def test_search_spaces_are_found_in_the_package_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "search_spaces").mkdir()
    (tmp_path / "search_spaces" / "only.yaml").write_text("trials: 1\n")
    monkeypatch.setattr(config_loader.resources, "files", lambda package: tmp_path)
    assert list(search_spaces()) == ["only"]


def test_a_file_and_a_stored_study_that_name_a_retired_setting_still_load(tmp_path: Path) -> None:
    with pytest.warns(NashSearchWarning, match="early_stopping is no longer a setting and is ignored, for every trial"):
        config = load_text(tmp_path, "early_stopping: false\nsearch_space: {encoder_sparsity_pct: [0, 60, 20]}\n")
    stored = json.dumps({"early_stopping": True} | config.model_dump(mode="json"))
    assert SearchConfig.stored(stored) == config and SearchConfig.stored(stored).question_hash == config.question_hash


def test_recipe_auto_asks_for_a_calibration_and_other_studies_keep_their_names(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("recipe: auto\n")
    asked = load_config(file)
    assert load_config(file, {"recipe.batch_size": 8}).recipe == PruningRecipe(calibrate=True, batch_size=8)
    assert asked.recipe == PruningRecipe(calibrate=True) and asked.question()["recipe"]["calibrate"]
    assert "calibrate" not in load_config("g2p").question()["recipe"]
    assert load_config("own", {"task.data": "./x", "model": "y"}).recipe.calibrate
    file.write_text("recipe: manual\n")
    with pytest.raises(InvalidInput, match="recipe must be a mapping, or auto, but got 'manual'"):
        load_config(file)


@pytest.mark.parametrize("budgets", [["50%", "50.0%"], ["40", "40ms"], ["40@p95", "40.0@p95"]])
def test_one_budget_in_two_spellings_is_one_budget(budgets):
    with pytest.raises(InvalidInput, match="budgets must differ, but got"):
        load_config("auto", {"budgets": budgets})
    assert len(load_config("auto", {"budgets": ["50%", "50%@p95"]}).budgets) == 2


@pytest.mark.parametrize("split", ["validation", "test"])
def test_one_example_has_no_error_and_is_no_split_to_score_on(split):
    with pytest.raises(InvalidInput, match=f"{split}_examples must be .*2, but got 1"):
        load_config("auto", {"budgets": ["50%"], f"task.{split}_examples": 1})
    load_config("auto", {"budgets": ["50%"], f"task.{split}_examples": 2})
