"""What a card says to load is what was timed: its snippet, run in a fresh process, tensor by tensor."""

from __future__ import annotations

import dataclasses
import html
import json
import os
import re
import subprocess
import sys

import pytest

from nash_search import loading
from nash_search.config import Workload
from nash_search.latency.runtimes import eager
from nash_search.pruner import save, shorten
from nash_search.report import card, markdown, page, view
from nash_search.report import text as answer
from nash_search.summary_rows import Inputs
from tests.pruner import tiny

KINDS = ("t5", "flan", "umt5", "bart", "plbart", "mbart", "marian", "m2m_100")
"""One of each way to begin an output, to count positions and to keep matrices in float32."""
ROWS = [[5, 9, 12, 7, 1], [30, 6, 1, 0, 0]]
FORCED = ("max_new_tokens", "min_new_tokens", "max_length", "min_length", "num_return_sequences")
"""What the clock sets of the generation settings; all others are the export's own."""
LOADER = """
import json, sys, torch
torch.set_num_threads(1)
found, (snippets, ids) = {}, json.loads(sys.stdin.read())
ids = torch.tensor(ids)
for name, snippet in snippets.items():
    scope = {}
    exec(snippet, scope)
    model = scope["model"]
    found[name] = {
        "dtypes": {n: str(t.dtype) for n, t in [*model.named_parameters(), *model.named_buffers()]},
        "attention": model.config._attn_implementation,
        "training": model.training,
        "generation": model.generation_config.to_dict(),
        "tokens": model.generate(ids, attention_mask=(ids != 0).long()).tolist(),
    }
print(json.dumps(found))
"""


def timed_as(folder, workload):
    """The same facts of the model that certification times."""
    session = eager.RUNTIME.build(eager.RUNTIME.load(str(folder), workload), workload, ROWS)
    session.generate()
    model = session.model
    facts = {
        "dtypes": {n: str(t.dtype) for n, t in [*model.named_parameters(), *model.named_buffers()]},
        "attention": session.facts()["attention"],
        "training": model.training,
        "generation": model.generation_config.to_dict(),
        "tokens": eager.RUNTIME.tokens(model, [ROWS[0], ROWS[1][:3]], beams=workload.beams, max_new_tokens=6),
    }
    assert facts["generation"]["min_new_tokens"] == workload.output_tokens, "the settings are those of the timed call"
    session.close()
    return facts


def load_it(text):
    """The Python of a card, as far as the model."""
    lines = re.search(r"## Load it\n\n```python\n(.*?)```", text, re.DOTALL)[1].splitlines()
    last = next(i for i, line in enumerate(lines) if line.startswith("model = "))
    return "\n".join(lines[: last + 1])


@pytest.mark.slow
def test_the_card_of_every_kind_of_family_loads_the_very_model_that_was_timed(study, tmp_path):
    records, document, answers = study
    expected, snippets = {}, {}
    for kind in KINDS:
        for dtype, stock in (("float16", False), ("bfloat16", True)):
            name = f"{kind}-{dtype}"
            workload = Workload(input_tokens=5, output_tokens=4, dtype=dtype, beams=2)
            model = shorten(tiny.model_of(kind), 2) if stock else tiny.cut_of(kind)
            model.generation_config.update(num_beams=2, max_new_tokens=6, do_sample=False)
            save(loading.in_precision(model, dtype), tmp_path / name)
            expected[name] = timed_as(tmp_path / name, workload)
            seen = view.build(records, document.model_copy(update={"workload": workload}), answers)
            point = answers.certification.points[0]
            timed = point.model_copy(update={"latency": point.latency.model_copy(update={"workload": workload})})
            snippets[name] = load_it(card.card(seen, card.Export(name=name, point=timed, stock=stock)))
    done = subprocess.run(
        [sys.executable, "-c", LOADER],
        cwd=tmp_path,
        input=json.dumps([snippets, ROWS]),
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 2 * len(KINDS)
    for name, facts in expected.items():
        settings = [
            {k: v for k, v in f.pop("generation").items() if v and k not in FORCED} for f in (facts, found[name])
        ]
        assert settings[0] == settings[1] and settings[0]["num_beams"] == 2, name
        assert found[name] == facts, name


@pytest.mark.parametrize(
    ("said", "dtype"),
    [
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"dtype": "float16", "runtime": "compile"}, "float16"),
        ({"dtype": "float16", "runtime": "ctranslate2"}, "float32"),  # beside the engine's own files
        ({}, "float32"),
    ],
)
def test_every_load_it_names_the_precision_of_the_weights(study, said, dtype):
    records, document, answers = study
    timed = {"workload": document.workload.model_copy(update=said)}
    seen = view.build(records, document.model_copy(update=timed), answers)
    wanted = f"from_pretrained({seen.loaded!r}, dtype={dtype!r})"
    assert wanted in "\n".join(answer.load_lines(seen.loaded, seen.dtype))
    assert wanted in markdown.render(seen)
    assert wanted.replace("'", "&#39;") in page.render(seen)


@pytest.mark.parametrize("config", [{"model_type": "whisper"}, {"auto_map": {"AutoModel": "x"}}, None])
def test_what_plain_transformers_loads_is_loaded_without_us_everywhere(study, tmp_path, config):
    records, document, answers = study
    seen = view.build(records, document, answers)
    folder = tmp_path / "export"
    folder.mkdir()
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    seen = dataclasses.replace(
        seen, picks=tuple(dataclasses.replace(p, checkpoint=p.checkpoint and str(folder)) for p in seen.picks)
    )
    ours = config is None or "auto_map" in config
    for shown in (markdown.render(seen), page.render(seen), "\n".join(answer.load_lines(seen.loaded, seen.dtype))):
        assert ("import nash_search.modeling_nash" in shown) is ours


def test_the_answers_to_all_met_budgets_are_told(study):
    seen = view.build(*study)
    (first, *_) = (p for p in seen.picks if p.verdict == "met")
    other = dataclasses.replace(first, asked="7%", checkpoint="results/x/other")
    alike = dataclasses.replace(first, asked="8%")
    both = dataclasses.replace(seen, picks=(alike, first, other))
    told = f"# the answer to 7%; to 8%, {first.asked}: {first.checkpoint!r}"
    for shown in (markdown.render(both), html.unescape(page.render(both)), "\n".join(answer.load_lines_of(both))):
        assert "from_pretrained('results/x/other'" in shown and told in shown
    assert not any("answer to" in line for line in answer.load_lines_of(dataclasses.replace(seen, picks=(first,))))
    assert answer.load_lines_of(dataclasses.replace(seen, picks=())) == []


WORDS = "red green blue small large cat dog bird runs sleeps eats here there now then".split()
WRITER = """
import io, json, sys, contextlib, torch
torch.set_num_threads(1)
found, (snippets, texts) = {}, json.loads(sys.stdin.read())
for name, snippet in snippets.items():
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(snippet.replace('["a text"]', repr(texts)), scope := {})
    found[name] = scope["tokenizer"].batch_decode(scope["outputs"], skip_special_tokens=True)
    assert said.getvalue().strip() == repr(found[name])
print(json.dumps(found))
"""


def tokenizer_for(kind, prefix):
    """A tokenizer made here; those of mBART and NLLB add a language's code to every text."""
    from transformers import MBartTokenizer, NllbTokenizer

    from nash_search.tasks.scratch_tokenizer import train_tokenizer

    letters = sorted({*"".join(WORDS), *prefix, *":"} - {" "})
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -3.0)]
    pieces += [("\u2581" + word, -2.0) for word in WORDS] + [(letter, -4.0) for letter in letters]
    if kind == "mbart":
        return MBartTokenizer(vocab=pieces, src_lang="en_XX", tgt_lang="ro_RO")
    if kind == "m2m_100":
        merges = []
        vocab = {piece: i for i, (piece, _) in enumerate(pieces)}
        return NllbTokenizer(vocab=vocab, merges=merges, src_lang="eng_Latn", tgt_lang="ron_Latn")
    return train_tokenizer({"vocabulary": 80}, [*WORDS, prefix])


@pytest.mark.slow
def test_the_card_of_every_kind_of_family_writes_what_was_scored(study, export_at, tmp_path, warm_python):
    """Prefix, cut, special tokens, language codes and generation settings: the snippet as it stands, from texts."""
    from dataclasses import replace

    from nash_search.config import TaskConfig
    from nash_search.tasks import exported, models
    from nash_search.tasks.load import load_task
    from nash_search.tasks.scoring import predict

    records, document, answers = study
    prefix, texts = "say: `it`\n", ["red cat", "now the large bird sleeps here then eats and runs", "dog"]
    data = tmp_path / "data.jsonl"
    rows = [{"source": f"{a} {b}", "target": f"{b} {a}"} for a in WORDS for b in WORDS if a != b]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected, snippets = {}, {}
    for kind in KINDS:
        words = tokenizer_for(kind, prefix)
        given = tiny.model_of(kind, vocabulary=len(words))
        for name, weight in given.named_parameters():  # a random model hardly looks at its input
            if name.endswith(("encoder_attn.out_proj.weight", "EncDecAttention.o.weight")):
                weight.data *= 10
        ids = {"pad_token_id": words.pad_token_id, "eos_token_id": words.eos_token_id}
        given.config.update(ids)
        if kind in ("mbart", "m2m_100"):
            ids["forced_bos_token_id"] = words.convert_tokens_to_ids(words.tgt_lang)
        given.generation_config.update(**ids)
        given.generation_config.update(num_beams=2, no_repeat_ngram_size=2)
        save(given, tmp_path / f"{kind}-given", tokenizer=words)
        found = models.vet(tmp_path / f"{kind}-given")
        asked = TaskConfig(name="mine", data=str(data), prefix=prefix, max_input_tokens=14, metric="exact_match")
        task = load_task(asked, models.load_tokenizer(found), models.generation_settings(found))
        model = loading.load(found.folder)
        exported.complete(model, task.tokenizer)
        exported.carry(model, task)
        student = shorten(model, 2)
        save(student, tmp_path / kind, tokenizer=task.tokenizer)
        expected[kind] = predict(student, task, texts)
        without = predict(student, replace(task, prefix="", max_input_tokens=None), texts)
        assert expected[kind] != without, f"{kind}: prefix and cut must matter for this test"
        inputs = Inputs(prefix=task.prefix, max_tokens=task.max_input_tokens)
        seen = view.build(records, document.model_copy(update={"inputs": inputs}), answers)
        text = card.card(seen, export_at(answers, records[0].number, kind, stock=True))
        snippets[kind] = re.search(r"## Load it\n\n.*?```python\n(.*?)```", text, re.DOTALL)[1]
        assert json.loads((tmp_path / kind / "config.json").read_text())["prefix"] == prefix
    done = subprocess.run(
        [sys.executable, "-c", WRITER],
        cwd=tmp_path,
        input=json.dumps([snippets, texts]),
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == expected


def test_the_prefix_stands_wherever_a_model_is_loaded(study, export_at):
    records, document, answers = study
    seen = view.build(
        records, document.model_copy(update={"inputs": Inputs(prefix="summarize: ", max_tokens=512)}), answers
    )
    fed = """texts = ['summarize: ' + text for text in ["a text"]]"""
    cut = "truncation=True, max_length=512"
    for text in (markdown.render(seen), card.card(seen, export_at(answers, seen.front[0].number)), page.render(seen)):
        text = text.replace("&#39;", "'").replace("&#34;", '"').replace("&quot;", '"')
        assert fed in text and cut in text
    assert "Every input begins with" in markdown.render(seen)
    plain = view.build(records, document, answers)
    assert 'texts = ["a text"]' in markdown.render(plain), "an older study says nothing about its inputs"
