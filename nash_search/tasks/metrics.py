"""The built-in metrics: `evaluate.Metric` subclasses of counts per example (`example_counts.py`).

All values are percentages, higher is better; error rates are reported as 100 - rate, and the plain
rate stands beside. Nothing is downloaded: `evaluate.load` is never called. A user's
own metric is `own_metric`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from nash_search.errors import InvalidInput
from nash_search.tasks.example_counts import CountedMetric, Counts

MOST_LABELS = 200
"""More distinct targets than this are not classes."""


class ErrorRate(CountedMetric):
    """100 minus the pooled error rate over whitespace-separated units, against the closest reference."""

    unit = "word"

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Counts:
        """(errors, reference units, 1 if any error, 1) of each example's closest reference."""
        pairs = [(r, p) for p, several in zip(predictions, references, strict=True) for r in several]
        aligned = self.aligned([r for r, _ in pairs], [p for _, p in pairs])
        edits = iter(
            (sum(_edits(chunk) for chunk in chunks), len(reference))
            for chunks, reference in zip(aligned.alignments, aligned.references, strict=True)
        )
        rows = []
        for several in references:
            errors, units = min((next(edits) for _ in several), key=lambda found: found[0])  # ties: the first
            rows.append((errors, units, float(errors > 0), 1.0))
        return np.array(rows, dtype=np.float64)

    def aligned(self, references: list[str], predictions: list[str]) -> Any:
        """jiwer's alignment of their units."""
        import jiwer

        return jiwer.process_words(references, predictions)

    def value(self, total: Counts) -> float:
        """100 - errors per reference unit, percent."""
        return 100 - _share(total[0], total[1])

    @property
    def signature(self) -> str:
        """Unit and version."""
        return f"unit:{self.unit}|refs:closest|pooled|jiwer:{version('jiwer')}"


class WordErrorRate(ErrorRate):
    """100 minus the word error rate of texts."""

    label = "100-WER"

    def beside(self, total: Counts) -> dict[str, float]:
        """The plain rate."""
        return {"wer": _share(total[0], total[1])}


class CharacterErrorRate(ErrorRate):
    """100 minus the character error rate of texts."""

    label = "100-CER"
    unit = "character"

    def aligned(self, references: list[str], predictions: list[str]) -> Any:
        """jiwer's alignment of their characters."""
        import jiwer

        return jiwer.process_characters(references, predictions)

    def beside(self, total: Counts) -> dict[str, float]:
        """The plain rate."""
        return {"cer": _share(total[0], total[1])}


class Normalised(CountedMetric):
    """Another metric of texts as a normaliser leaves them."""

    def __init__(self, metric: CountedMetric, normalise: Callable[[str], str], name: str) -> None:
        self.label, self.direction = metric.label, metric.direction
        self._metric, self._normalise, self._name = metric, normalise, name
        super().__init__()

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Counts:
        """The metric's own counts."""
        plain = [[self._normalise(text) for text in several] for several in references]
        return self._metric.statistics([self._normalise(text) for text in predictions], plain)

    def value(self, total: Counts) -> float:
        """The metric's own."""
        return self._metric.value(total)

    def beside(self, total: Counts) -> dict[str, float]:
        """The metric's own."""
        return self._metric.beside(total)

    @property
    def signature(self) -> str:
        """The metric's own, and the normaliser with the version of the library that it is of."""
        return f"{self._metric.signature}|norm:{self._name}, transformers {version('transformers')}"


class PhonemeErrorRate(ErrorRate):
    """100 minus the phoneme error rate of pronunciations; each example is one word."""

    label = "100-PER"
    unit = "phoneme"

    def beside(self, total: Counts) -> dict[str, float]:
        """The plain rate, and the share of words with any wrong phoneme."""
        return {"per": _share(total[0], total[1]), "wer": _share(total[2], total[3])}


class ExactMatch(CountedMetric):
    """Percent of outputs equal to a reference, outer white space aside."""

    label = "exact_match"

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Counts:
        """(1 if equal to any reference, 1)."""
        pairs = zip(predictions, references, strict=True)
        return np.array([(float(p.strip() in {r.strip() for r in several}), 1.0) for p, several in pairs])

    def value(self, total: Counts) -> float:
        """Percent equal."""
        return _share(total[0], total[1])

    @property
    def signature(self) -> str:
        """How texts are compared."""
        return "strip"


class Accuracy(ExactMatch):
    """Percent of labels that are right; the targets must be classes."""

    label = "accuracy"

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Counts:
        """(1 if right, 1)."""
        _classes(self.label, references)
        return super().statistics(predictions, references)


class MacroF1(CountedMetric):
    """Mean over the reference classes of F1, percent; the targets must be classes."""

    label = "f1"

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Counts:
        """Per class: true positives, predicted, actual."""
        column = {name: i for i, name in enumerate(_classes(self.label, references))}
        rows = np.zeros((len(predictions), 3, len(column)))
        for row, prediction, several in zip(rows, predictions, references, strict=True):
            predicted, actual = column.get(prediction.strip()), column[several[0].strip()]
            row[2, actual] = 1
            if predicted is not None:
                row[1, predicted] = 1
                row[0, predicted] = float(predicted == actual)
        return rows.reshape(len(predictions), -1)

    def value(self, total: Counts) -> float:
        """Mean of 2·tp / (predicted + actual) over the classes that occur."""
        right, predicted, actual = total.reshape(3, -1)
        there = actual > 0
        return float(100 * np.mean(2 * right[there] / (predicted + actual)[there])) if there.any() else 0.0

    @property
    def signature(self) -> str:
        """Averaging."""
        return "macro|strip"


class Rouge(CountedMetric):
    """ROUGE F-measure of the best reference, mean over examples, percent."""

    kind = "rougeL"

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Counts:
        """(F of the best reference, 1)."""
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer([self.kind], use_stemmer=True, tokenizer=_Words())
        prepare = _sentence_lines if self.kind == "rougeLsum" else str
        rows = []
        for prediction, several in zip(predictions, references, strict=True):
            best = scorer.score_multi([prepare(r) for r in several], prepare(prediction))
            rows.append((best[self.kind].fmeasure, 1.0))
        return np.array(rows)

    def value(self, total: Counts) -> float:
        """Mean F, percent."""
        return _share(total[0], total[1])

    @property
    def signature(self) -> str:
        """Stemming, tokenisation and version."""
        return f"F|stem:porter|tok:unicode-words|refs:best|rouge_score:{version('rouge_score')}"


class Sacrebleu(CountedMetric):
    """A corpus metric of sacrebleu (BLEU or chrF) from its own segment statistics."""

    def __init__(self, **words: Any) -> None:
        super().__init__(**words)
        import sacrebleu

        self._scorer: Any = sacrebleu.CHRF() if self.label == "chrf" else sacrebleu.BLEU()

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Counts:
        """sacrebleu's segment statistics (its public `corpus_score` sums exactly these)."""
        most = max(len(several) for several in references)
        streams = [[several[i] if i < len(several) else None for several in references] for i in range(most)]
        self._scorer.corpus_score(list(predictions[:1]), [stream[:1] for stream in streams])  # sets the signature
        return np.array(self._scorer._extract_corpus_statistics(list(predictions), streams), dtype=np.float64)

    def value(self, total: Counts) -> float:
        """The corpus score of summed statistics."""
        return float(self._scorer._compute_score_from_stats([int(x) for x in total]).score)

    @property
    def signature(self) -> str:
        """sacrebleu's own."""
        return str(self._scorer.get_signature()) if self._scorer.num_refs != -1 else f"sacrebleu:{version('sacrebleu')}"


class Bleu(Sacrebleu):
    """Corpus BLEU by sacrebleu."""

    label = "bleu"


class Chrf(Sacrebleu):
    """Corpus chrF by sacrebleu."""

    label = "chrf"


def _rouge(name: str) -> type[Rouge]:
    return type(name.capitalize(), (Rouge,), {"label": name, "kind": name, "__doc__": Rouge.__doc__})


METRICS: dict[str, type[CountedMetric]] = {
    "per": PhonemeErrorRate,
    "wer": WordErrorRate,
    "cer": CharacterErrorRate,
    "exact_match": ExactMatch,
    "accuracy": Accuracy,
    "f1": MacroF1,
    "bleu": Bleu,
    "chrf": Chrf,
    **{name: _rouge(name) for name in ("rouge1", "rouge2", "rougeL", "rougeLsum")},
}
"""The built-in metrics by the name `--metric` takes."""


def _edits(chunk: Any) -> int:
    if chunk.type == "equal":
        return 0
    return max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)


def _share(part: float, whole: float) -> float:
    return float(100 * part / whole) if whole else 0.0


def _classes(metric: str, references: Sequence[Sequence[str]]) -> list[str]:
    names = sorted({several[0].strip() for several in references})
    if len(names) > MOST_LABELS or any(len(several) > 1 for several in references):
        raise InvalidInput(f"metric {metric} needs one of at most {MOST_LABELS} classes as target, but got free text")
    return names


class _Words:
    """ROUGE's tokeniser for every script: letters and digits, lower case, English words stemmed.

    On ASCII text it agrees with rouge_score's own, which drops everything else.
    """

    _PATTERN = re.compile(r"[぀-ヿ㐀-鿿豈-﫿]|[^\W_぀-ヿ㐀-鿿豈-﫿]+")

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer  # type: ignore[import-untyped]

        self._stemmer = PorterStemmer()

    def tokenize(self, text: str) -> list[str]:
        """Words; CJK characters one by one."""
        words = self._PATTERN.findall(text.lower())
        return [self._stemmer.stem(w) if len(w) > 3 and w.isascii() else w for w in words]


def _sentence_lines(text: str) -> str:
    """rougeLsum wants one sentence per line; text without lines is split after . ! ?"""
    return text if "\n" in text.strip() else re.sub(r"(?<=[.!?])\s+", "\n", text.strip())
