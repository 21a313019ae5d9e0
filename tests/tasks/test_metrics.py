"""Metrics against hand counts and their own libraries; a bootstrap over rows against the closed form."""

from pathlib import Path

import numpy as np
import pytest

from nash_search.config import METRIC_NAMES, TaskConfig
from nash_search.errors import InvalidInput
from nash_search.tasks.load import metric_of
from nash_search.tasks.metrics import METRICS
from nash_search.tasks.scoring import bootstrap_error, measured

HYPOTHESES = ["the cat sat on a mat", "hello there", "", "Ein Mann läuft über die Straße ."]
REFERENCES = [
    ["the cat sat on the mat", "a cat sat on a mat"],
    ["hello there you"],
    ["not empty"],
    ["Ein Mann rennt über die Straße ."],
]


def test_the_names_that_config_accepts_are_the_metrics_there_are_and_the_page_says_so():
    page = (Path(__file__).parents[2] / "docs" / "own-model.md").read_text("utf-8")
    assert set(METRIC_NAMES) == set(METRICS) and not [name for name in METRICS if f"`{name}`" not in page]


@pytest.mark.parametrize("name", sorted(METRICS))
def test_each_is_an_evaluate_metric_that_leaves_nothing_behind(name, tmp_path, monkeypatch):
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path / "cache"))
    metric = METRICS[name]()
    found = metric.compute(predictions=["a b", "c"], references=[["a b"], ["d"]])
    assert metric.label and metric.label in found
    same = ["a b c d", "e f g h"]
    assert metric.compute(predictions=same, references=[[text] for text in same])[metric.label] == pytest.approx(100)
    assert metric.signature and metric.direction == "maximize"
    assert not (tmp_path / "cache").exists()


def test_per_pools_errors_and_takes_the_closest_reference():
    metric = METRICS["per"]()
    outputs = ["P R UW N IH NG", "K AE T", "D AO G S"]
    references = [["P R UW N IH NG"], ["B AE T", "K AE T S"], ["D AO G", "D AA G"]]
    value, beside = metric.measure(outputs, references)
    # 0 of 6, 1 of 3 (ties: the first), 1 of 3
    assert value == pytest.approx(100 - 100 * 2 / 12)
    assert beside == {"per": pytest.approx(100 * 2 / 12), "wer": pytest.approx(100 * 2 / 3)}


def test_per_agrees_with_jiwer_where_each_has_one_reference():
    import jiwer

    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(list("abcd"), random.integers(1, 9))) for _ in range(200)]
    others = [" ".join(random.choice(list("abcd"), random.integers(1, 9))) for _ in range(200)]
    found, _ = METRICS["wer"]().measure(others, [[t] for t in texts])
    assert found == pytest.approx(100 - 100 * jiwer.wer(texts, others))


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_sacrebleu_scores_are_sacrebleus_own_with_unequal_reference_counts(name):
    import sacrebleu

    scorer = sacrebleu.CHRF() if name == "chrf" else sacrebleu.BLEU()
    streams = [[several[i] if i < len(several) else None for several in REFERENCES] for i in range(2)]
    expected = scorer.corpus_score(HYPOTHESES, streams).score
    assert METRICS[name]().measure(HYPOTHESES, REFERENCES)[0] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL"])
def test_rouge_is_rouge_scores_own_on_ascii_and_works_beyond(name):
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([name], use_stemmer=True)
    english = list(zip(HYPOTHESES, REFERENCES, strict=True))[:3]
    expected = 100 * np.mean([scorer.score_multi(r, h)[name].fmeasure for h, r in english])
    assert METRICS[name]().measure(HYPOTHESES[:3], REFERENCES[:3])[0] == pytest.approx(expected)
    beyond = ["кошка сидит", "猫が座る"]
    assert METRICS[name]().measure(beyond, [[text] for text in beyond])[0] == pytest.approx(100)


def test_rouge_lsum_splits_sentences_itself():
    one = "The cat sat. A dog ran. Birds flew."
    other = "A dog ran. The cat sat. Birds flew."
    assert METRICS["rougeLsum"]().measure([one], [[other]])[0] == pytest.approx(100)
    assert METRICS["rougeL"]().measure([one], [[other]])[0] < 90


def test_f1_and_accuracy_count_classes_and_refuse_free_text():
    outputs, labels = ["a", "b", "a", "x"], [["a"], ["a"], ["b"], ["b"]]
    # a: tp 1, predicted 2, actual 2 -> 0.5; b: tp 0 -> 0
    assert METRICS["f1"]().measure(outputs, labels)[0] == pytest.approx(25)
    assert METRICS["accuracy"]().measure(outputs, labels)[0] == pytest.approx(25)
    texts = [[f"text {i}"] for i in range(300)]
    for name in ("f1", "accuracy"):
        with pytest.raises(InvalidInput, match="classes"):
            METRICS[name]().measure(["x"] * 300, texts)


def test_the_bootstrap_error_is_the_binomial_one_for_exact_match():
    right = np.array([[1.0, 1.0]] * 300 + [[0.0, 1.0]] * 700)
    metric = METRICS["exact_match"]()
    assert bootstrap_error(right, metric.value) == pytest.approx(100 * np.sqrt(0.3 * 0.7 / 1000), rel=0.1)
    assert bootstrap_error(right, metric.value) == bootstrap_error(right, metric.value)
    assert bootstrap_error(right[:1], metric.value) == 0.0


METRIC_FILE = '''
import datasets, evaluate
class Letters(evaluate.Metric):
    """Mean length."""
    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(description="", citation="", inputs_description="",
                                   features=datasets.Features({"predictions": text, "references": text}))
    def _compute(self, predictions, references):
        return {"letters": sum(map(len, predictions)) / len(predictions)}
'''


def test_a_users_metric_is_imported_by_path_and_needs_a_direction(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(METRIC_FILE)
    metric = metric_of(TaskConfig(metric=f"{file}:Letters", metric_direction="minimize"), "per")
    value, error, beside = measured(metric, ["ab", "abcd"] * 10, [["x"], ["y"]] * 10)
    assert (value, metric.direction, metric.label) == (3.0, "minimize", "letters")
    assert 0 < error < 1 and beside == {}
    with pytest.raises(InvalidInput, match="direction must be known"):
        metric_of(TaskConfig(metric=f"{file}:Letters"), "per")
    with pytest.raises(InvalidInput, match="importable"):
        metric_of(TaskConfig(metric=f"{tmp_path}/none.py:Letters"), "per")
    with pytest.raises(InvalidInput, match=r"evaluate.Metric class"):
        metric_of(TaskConfig(metric=f"{file}:Nothing"), "per")


def test_a_built_in_metrics_direction_is_not_the_users_to_turn():
    with pytest.raises(InvalidInput, match="must be maximize"):
        metric_of(TaskConfig(metric="bleu", metric_direction="minimize"), "per")


def scored(name, metric_file, **config):
    """Ten outputs, three of them wrong, scored as a trial is."""
    from types import SimpleNamespace

    from nash_search.tasks.scoring import quality_of
    from nash_search.tasks.task import Examples

    references = [["yes sir"], ["no"]] * 5 if name in ("f1", "accuracy") else [[f"a b c d {i}"] for i in range(10)]
    outputs = [several[0] for several in references[:7]] + ["maybe so"] * 3
    path = f"{metric_file}:Letters" if name == "own" else name
    metric = metric_of(TaskConfig(metric=path, **config), "per")
    task = SimpleNamespace(metric=metric, generation={"num_beams": 2, "max_new_tokens": 9})
    ids = [[1]] * 10
    examples = Examples(sources=[str(i) for i in range(10)], references=references, inputs=ids, labels=ids)
    return quality_of(outputs, examples, task, "validation")


RIGHT = {"exact_match": 70, "accuracy": 70, "f1": 81.94, "per": 70, "wer": 70, "rouge1": 70, "rougeL": 70, "own": 8.7}
PACKAGE = {
    "bleu": "version:",
    "chrf": "version:",
    "per": "jiwer:",
    "wer": "jiwer:",
    "cer": "jiwer:",
    "own": "evaluate:",
}


@pytest.mark.parametrize("name", [*METRIC_NAMES, "own"])
def test_a_scored_metric_says_direction_signature_settings_and_an_interval(name, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(METRIC_FILE)
    found = scored(name, file, **({"metric_direction": "minimize"} if name == "own" else {}))
    assert found.direction == ("minimize" if name == "own" else "maximize")
    assert found.n == 10 and found.split == "validation" and 0 < found.standard_error < 30
    assert "generate:max_new_tokens=9,num_beams=2" in found.signature and "|data:" in found.signature
    assert PACKAGE.get(name, "rouge_score:" if name.startswith("rouge") else "strip") in found.signature
    if name in RIGHT:
        assert found.value == pytest.approx(RIGHT[name], abs=0.01)
    assert 0 < found.value < 100
    assert found == scored(name, file, **({"metric_direction": "minimize"} if name == "own" else {}))


def test_a_users_metric_may_have_arrays_and_undefined_numbers_beside_its_own(tmp_path):
    file = tmp_path / "several.py"
    more = '"per_class": numpy.ones(3), "corr": float("nan"), "name": "x", "both": numpy.float64(2), '
    file.write_text("import numpy" + METRIC_FILE.replace("return {", "return {" + more))
    metric = metric_of(TaskConfig(metric=f"{file}:Letters", metric_direction="minimize"), "per")
    value, _, beside = measured(metric, ["ab", "abcd"] * 10, [["x"], ["y"]] * 10)
    assert value == 3.0 and beside == {"both": 2.0}
    file.write_text(METRIC_FILE.replace("sum(map(len, predictions)) / len(predictions)", 'float("nan")'))
    undefined = metric_of(TaskConfig(metric=f"{file}:Letters", metric_direction="minimize"), "per")
    with pytest.raises(InvalidInput, match="must be a finite number"):
        measured(undefined, ["ab"] * 4, [["x"]] * 4)
