"""Bad input: one line on stderr, the exit code of the contract, stdout empty, nothing written.

The table is the contract's list and its neighbours. What needs neither torch nor Ray runs in one
child process that must not import them, case after case; a sample runs as a process of its own.
"""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nash_search.tasks.preflight import has_gpu
from tests.patience import NEVER_S

SECRET = "hunter2-s3cr3t"
BUDGET = ["--budget-ms", "50%"]
OWN = ["--task", "mine", "--metric", "exact_match", *BUDGET]
MINE = [*OWN, "--data", "data/good", "--model", "models/good"]

# -- what the cases point at ------------------------------------------------------------------------


def rows(count: int, start: int = 0) -> str:
    return "".join(json.dumps({"source": f"in {i}", "target": f"out {i}"}) + "\n" for i in range(start, start + count))


def tensors(shapes: dict[str, tuple[int, ...]]) -> bytes:
    """A safetensors file of zeros, by its specification."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 4
        for extent in shape:
            size *= extent
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(offset)


CONFIG = {
    "model_type": "t5", "is_encoder_decoder": True, "vocab_size": 20, "d_model": 8, "d_kv": 4, "num_heads": 2,
    "d_ff": 16, "num_layers": 6, "num_decoder_layers": 6, "pad_token_id": 0, "decoder_start_token_id": 0,
}  # fmt: skip
SHAPES = {
    "shared.weight": (20, 8),
    "encoder.block.0.layer.0.SelfAttention.q.weight": (8, 8),
    "encoder.block.0.layer.1.DenseReluDense.wi.weight": (16, 8),
    **{f"decoder.block.{i}.layer.0.SelfAttention.q.weight": (8, 8) for i in range(6)},
}


def model(folder: Path, config: dict[str, Any] | str | None = None, weights: bytes | None = None) -> Path:
    folder.mkdir(parents=True)
    text = config if isinstance(config, str) else json.dumps(CONFIG | (config or {}))
    (folder / "config.json").write_text(text)
    (folder / "model.safetensors").write_bytes(tensors(SHAPES) if weights is None else weights)
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


YAML: dict[str, str | bytes] = {
    "empty": "", "nul": "trials: 3\0", "binary": b"\xff\xfe\x00\x80", "tab": "recipe:\n\ttune_steps: 1",
    "bracket": "trials: [", "list": "- 1\n", "scalar": "7\n", "unknown-key": "trails: 3\n", "type": "trials: '3'\n",
    "word": "recipe: {learning_rate: abc}\n", "tag": "a: !!python/object/apply:os.system ['touch pwned']\n",
    "bomb": "a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "anchor": "a: &a\n  b: *a\n", "large": "# " + "x" * (2 << 20),
    "documents": "trials: 3\n---\ntrials: 4\n", "duplicate": "trials: 3\ntrials: 4\n", "deep": "[" * 40_000,
    "budget-nan": "budgets: [.nan]\n", "budget-inf": "budgets: [.inf]\n", "budget-zero": "budgets: [0]\n",
    "budget-negative": "budgets: [-4]\n", "budget-unit": "budgets: [40s]\n", "budget-factor": "budgets: [2x]\n",
    "budget-share": "budgets: [101%]\n", "no-budget": "trials: 3\n", "trials-zero": "trials: 0\n",
    "trials-negative": "trials: -5\n", "trials-fraction": "trials: 1.5\n", "trials-word": "trials: abc\n",
    "timeout": "trial_timeout_s: -1\n", "time-budget": "time_budget_s: 2x\n", "seed": "seed: -1\n",
    "device": "workload: {device: tpu}\n", "cuda": "workload: {device: 'cuda:99'}\n",
    "batch": "workload: {batch_size: 0}\n", "input": "workload: {input_tokens: 0}\n",
    "output": "workload: {output_tokens: 0}\n", "output-max": "workload: {output_tokens: 1000000}\n",
    "beams": "workload: {beams: 0}\n", "dtype": "workload: {dtype: fp7}\n", "threads": "workload: {threads: 0}\n",
    "threads-many": "workload: {threads: 1024}\n", "space-empty": "search_space: {encoder_sparsity_pct: []}\n",
    "space-turned": "search_space: {encoder_sparsity_pct: [60, 10, 10]}\n",
    "space-negative": "search_space: {encoder_sparsity_pct: [-1, 50, 10]}\n",
    "space-100": "search_space: {encoder_sparsity_pct: [0, 100, 10]}\n",
    "space-fraction": "search_space: {encoder_sparsity_pct: [0, 0.5, 0.1]}\n",
    "space-baseline": "search_space: {encoder_sparsity_pct: [10, 50, 10]}\n",
    "layers-zero": "search_space: {decoder_layers: [0]}\n", "layers-many": "search_space: {decoder_layers: [7]}\n",
    "layers-words": "search_space: {decoder_layers: [two]}\n", "selection": "search_space: {decoder_selection: [x]}\n",
    "task-none": "task:\n", "task-list": "task: [1]\n", "metric": "task: {metric: rougeX}\n",
    "study": "study: ../../x\n", "study-empty": "study: ''\n",
    "study-nul": 'study: "a\\0b"\n', "study-rtl": 'study: "a\\u202eb"\n', "storage-key": "storage: [1]\n",
    "storage": f"storage: 'postgresql://user:{SECRET}@localhost:port/db'\n",
    "data-missing": "task: {name: mine, data: data/none.jsonl}\nmodel: models/good\n",
    "model-missing": "model: models/none\n",
}  # fmt: skip


def build(root: Path) -> None:
    """Every file and folder the cases name."""
    (root / "configs").mkdir()
    for name, text in YAML.items():
        file = root / "configs" / f"{name}.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    data = root / "data"
    texts: dict[str, str | bytes] = {
        "good/train.jsonl": rows(60), "good/validation.jsonl": rows(20, 100), "good/test.jsonl": rows(20, 200),
        "same/train.jsonl": rows(60), "same/validation.jsonl": rows(20, 100), "same/test.jsonl": rows(20, 100),
        "leaky/train.jsonl": rows(60), "leaky/validation.jsonl": rows(20, 100), "leaky/test.jsonl": rows(20, 50),
        "empty.jsonl": "", "empty.csv.gz": "", "few.jsonl": rows(4), "not.jsonl": "hello\nworld\n",
        "column.jsonl": json.dumps({"a": "x", "b": "y"}) + "\n",
        "none.jsonl": rows(50) + '{"source": null, "target": "x"}\n',
        "number.jsonl": "".join(json.dumps({"source": f"s{i}", "target": i}) + "\n" for i in range(60)),
        "blank.jsonl": "".join(json.dumps({"source": f"s{i}", "target": " "}) + "\n" for i in range(60)),
        "ragged.csv": "source,target\na,b\nc,d,e\n", "short.csv": "source,target\na,b\nc\n", "twice.csv": "a,a\nb,b\n",
        "binary.csv": b"\x00\xff\xfe" * 50, "not.parquet": "PAR1 no", "not.jsonl.gz": "no gzip",
        "rows.pkl": b"\x80\x04N.", "rows.docx": "x", "script/loader.py": "raise SystemExit('run')",
        "script/train.pkl": b"\x80\x04N.", "pickled/train.pkl": b"\x80\x04N.", "nothing/readme.txt": "x",
        "no-train/a.jsonl": rows(9), "no-train/b.jsonl": rows(9),
        "mixed/train.jsonl": rows(60), "mixed/train.csv": "source,target\na,b\n",
        "one-row.jsonl": rows(1), "nul.jsonl": rows(60) + '{"source": "a\0b", "target": "c"}\n',
        "dict.jsonl": "".join(json.dumps({"source": {"a": i}, "target": "x"}) + "\n" for i in range(60)),
        "lists.jsonl": "".join(json.dumps({"source": [f"s{i}"], "target": "x"}) + "\n" for i in range(60)),
        "list-of-numbers.jsonl": "".join(json.dumps({"source": f"s{i}", "target": [1]}) + "\n" for i in range(60)),
        "scalars.jsonl": "1\n2\n3\n", "arrays.jsonl": '["a", "b"]\n' * 60, "cut.jsonl": rows(60)[:-9],
        "utf16.jsonl": rows(60).encode("utf-16"),
        "header.csv": "source,target\n", "blank-lines.jsonl": "\n\n\n",
        "huge-line.jsonl": '{"source": "' + "x" * (11 << 20),
        "no-name.csv": ",target\na,b\n", "a\nb/other.txt": "x", "empty-split/train.jsonl": rows(60),
        "empty-split/validation.jsonl": "", "columns/train.jsonl": rows(60),
        "columns/test.jsonl": json.dumps({"question": "a", "answer": "b"}) + "\n",
        "folded/train.jsonl/rows.jsonl": rows(60),
        "quotes.csv": 'source,target\n"a,b\n' + "c,d\n" * 60 + 'e,"f"\n',
        "two-ways.tsv": 'source\ttarget\na\t"b\nc\td"\n',
        "twice/train.jsonl": rows(60), "twice/dev.jsonl": rows(20, 100), "twice/eval.jsonl": rows(20, 200),
        "unequal/train.src": "a\n" * 60, "unequal/train.tgt": "a\n" * 59, "half.json": '{"data": 7}',
        "empty-folder/train/.keep": "", "saved/state.json": "{}", "saved/dataset_info.json": "{}",
    }  # fmt: skip
    for name, text in texts.items():
        file = data / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    (data / "latin.csv").write_bytes(b"source,target\n" + b"caf\xe9,x\n" * 60)
    (data / "loop").symlink_to("loop")
    (data / "loops").mkdir()
    (data / "loops" / "train.jsonl").symlink_to("train.jsonl")
    os.mkfifo(data / "pipe.jsonl")
    models = root / "models"
    good = model(models / "good")
    whole = (good / "model.safetensors").read_bytes()
    (model(models / "no-config") / "config.json").unlink()
    model(models / "config-text", "{ no json")
    model(models / "config-list", "[1]")
    model(models / "gpt2", {"model_type": "gpt2", "is_encoder_decoder": False})
    model(models / "fsmt", {"model_type": "fsmt"})
    model(models / "remote", {"auto_map": {"AutoModelForSeq2SeqLM": "evil.Model"}})
    remote = model(models / "remote-tokenizer")
    (remote / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["e.T", null]}}')
    model(models / "truncated", weights=whole[:-200])
    model(models / "garbage", weights=b"\xff" * 64)
    model(models / "shape", {"d_model": 16})
    model(models / "depth", {"num_decoder_layers": 5})
    model(models / "layers", {"num_decoder_layers": 0})
    (model(models / "no-tokenizer") / "tokenizer_config.json").unlink()
    (models / "loop").symlink_to("loop")
    linked = model(models / "config-loop")
    (linked / "config.json").unlink()
    (linked / "config.json").symlink_to("config.json")
    for name, text in {
        "config-number": "7",
        "config-null": "null",
        "config-nul": "\0" * 99,
        "config-deep": "[" * 9999,
    }.items():
        model(models / name, text)
    bart = {"model_type": "bart", "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 3}
    model(models / "heads", bart)
    model(models / "heads-none", bart | {"encoder_attention_heads": 0})
    model(models / "start", bart | {"encoder_attention_heads": 2, "decoder_start_token_id": None})
    model(models / "legacy-groups", {"num_beams": 4, "num_beam_groups": 2})
    for name, stored in {
        "groups": {"num_beam_groups": 2, "num_beams": 4},
        "stop-strings": {"stop_strings": ["."]},
        "beams-text": {"num_beams": "four"},
        "start-outside": {"decoder_start_token_id": 20},
        "generation-list": [1],
        "generation-processor": {"logits_processor": []},
        "forced-suppressed": {"forced_eos_token_id": 1, "suppress_tokens": [1]},
    }.items():
        (model(models / name) / "generation_config.json").write_text(json.dumps(stored))
    model(models / "quantised", {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}})
    model(models / "int8-weights", weights=whole.replace(b'"F32"', b'"I32"'))
    (model(models / "adapter") / "adapter_config.json").write_text("{}")
    model(models / "sizes-text", {"d_model": "8", "num_heads": "two"})
    model(models / "sizes-list", {"vocab_size": [20]})
    model(models / "type-list", {"model_type": ["t5"]})
    (model(models / "folder-weights") / "model.safetensors").unlink()
    (models / "folder-weights" / "model.safetensors").mkdir()
    (model(models / "weights-loop") / "model.safetensors").unlink()
    (models / "weights-loop" / "model.safetensors").symlink_to("model.safetensors")
    outside = model(models / "shards-outside")
    (outside / "model.safetensors").unlink()
    (outside / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../good/model.safetensors"}}')
    (model(models / "empty-weights") / "model.safetensors").write_bytes(b"")
    (model(models / "tokenizer-list") / "tokenizer_config.json").write_text("[1]")
    (model(models / "two\nlines \u00e4 \u202e") / "config.json").unlink()
    pickled = model(models / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    shards = model(models / "shards")
    (shards / "model.safetensors").unlink()
    index = {"weight_map": {"shared.weight": "model-00001-of-00002.safetensors"}}
    (shards / "model.safetensors.index.json").write_text(json.dumps(index))
    (root / "a-folder").mkdir()
    (root / "a-file").write_text("x")
    (root / "text.db").write_text("no database, but long enough to be looked at\n" * 9)
    connection = sqlite3.connect(root / "whole.db")
    with connection:
        connection.execute("create table t (x)")
        connection.executemany("insert into t values (?)", [("x" * 500,)] * 99)
    connection.close()
    (root / "truncated.db").write_bytes((root / "whole.db").read_bytes()[:5000])
    make_studies(root)
    (root / "results").mkdir()


def make_studies(root: Path) -> None:
    """An Optuna database that is read-only, and one of a later Optuna."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for name in ("read-only.db", "newer.db"):
        optuna.storages.RDBStorage(f"sqlite:///{root / name}").engine.dispose()
    (root / "read-only.db").chmod(0o444)
    connection = sqlite3.connect(root / "newer.db")
    with connection:
        connection.execute("update version_info set schema_version = 9999, library_version = '99.0.0'")
        connection.execute("update alembic_version set version_num = 'v99.0.0.a'")
    connection.close()


# -- the table: name -> (arguments, environment, exit code) ------------------------------------------

Case = tuple[list[str], dict[str, str], int]


def flags(*given: str) -> Case:
    return [*given], {}, 2


def with_budget(*given: str) -> Case:
    return [*BUDGET, *given], {}, 2


def config(name: str) -> Case:
    return ["--config", f"configs/{name}.yaml", *BUDGET], {}, 2


def own_budget(name: str) -> Case:
    return ["--config", f"configs/{name}.yaml"], {}, 2


def data(name: str, *given: str) -> Case:
    return [*OWN, "--model", "models/good", "--data", f"data/{name}", *given], {}, 2


def own_model(name: str, *given: str) -> Case:
    return [*OWN, "--data", "data/good", "--model", f"models/{name}", *given], {}, 2


def storage(url: str, code: int = 2) -> Case:
    return [*BUDGET], {"NASH_SEARCH_STORAGE": url}, code


LIGHT: dict[str, Case] = {
    # command line
    "unknown command": flags("serach"),
    "unknown command with nothing near": flags("xyzzy"),
    "unknown flag": with_budget("--trails", "3"),
    "no budget": flags(),
    "flag without value": flags("--budget-ms"),
    "extra argument": flags("report", "a", "b"),
    "missing argument": flags("report"),
    **{f"trials {v}": with_budget("--trials", v) for v in ("0", "-5", "1.5", "abc", "", "nan", "1e3", "9" * 40)},
    **{f"trial timeout {v}": with_budget("--trial-timeout", v) for v in ("-1", "2x", "0", "abc", "")},
    **{f"time budget {v}": with_budget("--time-budget", v) for v in ("2x", "-1", "1h30", "1e999")},
    **{f"seed {v}": with_budget("--seed", v) for v in ("-1", "x", "99999999999")},
    **{f"device {v}": with_budget("--device", v) for v in ("tpu", "cuda:", "cuda:-1", "CUDA", "", "cpu:0")},
    **{f"workers {v}": with_budget("--workers", v) for v in ("0", "-1", "two")},
    **{f"max drop {v}": with_budget("--max-drop", v) for v in ("0", "-2%", "200%", "abc")},
    "sampler": with_budget("--sampler", "best"),
    "flags before a command": flags("--trials", "3", "report", "x"),
    # configuration file
    "config missing": with_budget("--config", "configs/none.yaml"),
    "config unknown name": with_budget("--config", "smok"),
    "config a folder": with_budget("--config", "configs/"),
    "config a device": with_budget("--config", "/dev/zero"),
    "config NUL": with_budget("--config", "a\0.yaml"),
    **{
        f"config {name}": config(name)
        for name in YAML
        if not name.startswith(("budget-", "no-budget")) and name not in ("layers-many", "cuda")
    },
    **{f"config {name}": own_budget(name) for name in YAML if name.startswith(("budget-", "no-budget"))},
    # budget and workload
    **{
        f"budget {v}": flags("--budget-ms", v)
        for v in ("0", "-4", "0%", "-5%", "40s", "2x", "101%", "nan", "inf", "1e999", "", "50 %%", "fifty", "4,5")
    },
    "budget twice": flags("--budget-ms", "50%", "--budget-ms", "50%"),
    "pick without budget": flags("pick", "some-study"),
    **{
        f"{flag} {v}": with_budget(flag, v)
        for flag in ("--batch-size", "--input-tokens", "--output-tokens", "--beams", "--threads")
        for v in ("0", "-1", "x", "1000000")
    },
    "threads over cores": with_budget("--threads", "1000"),
    **{f"dtype {v}": with_budget("--dtype", v) for v in ("fp7", "")},
    "runtime": with_budget("--runtime", "tensorrt"),
    "quantize": with_budget("--quantize", "int3"),
    # model
    **{
        f"model {name}": own_model(name)
        for name in (
            "none",
            "no-config",
            "config-text",
            "config-list",
            "gpt2",
            "fsmt",
            "remote",
            "remote-tokenizer",
            "pickled",
            "truncated",
            "garbage",
            "shape",
            "depth",
            "layers",
            "heads",
            "heads-none",
            "start",
            "legacy-groups",
            "groups",
            "stop-strings",
            "beams-text",
            "start-outside",
            "generation-list",
            "generation-processor",
            "forced-suppressed",
            "quantised",
            "int8-weights",
            "adapter",
            "no-tokenizer",
            "shards",
            "loop",
            "config-loop",
            "config-number",
            "config-null",
            "config-nul",
            "config-deep",
            "sizes-text",
            "sizes-list",
            "type-list",
            "folder-weights",
            "weights-loop",
            "shards-outside",
            "empty-weights",
            "tokenizer-list",
            "two\nlines \u00e4 \u202e",
            "x" * 300,
        )
    },  # fmt: skip
    "model a file": flags(*OWN, "--model", "./a-file"),
    "model a hub id that cannot be reached": flags(*MINE[:-1], "nobody/no-model"),
    "model NUL": flags(*MINE[:-1], "a\0b"),
    "model with control characters": flags(*MINE[:-1], "./\x1b[31mred\nline"),
    "model missing for own data": flags(*OWN, "--data", "data/good"),
    "more layers than the model has": flags(*MINE, "--config", "configs/layers-many.yaml"),
    # data
    "task without data": flags(*BUDGET, "--task", "mine"),
    **{
        f"data {name}": data(name)
        for name in (
            "missing.jsonl",
            "empty.jsonl",
            "empty.csv.gz",
            "few.jsonl",
            "not.jsonl",
            "column.jsonl",
            "none.jsonl",
            "number.jsonl",
            "blank.jsonl",
            "ragged.csv",
            "short.csv",
            "twice.csv",
            "binary.csv",
            "not.parquet",
            "not.jsonl.gz",
            "rows.pkl",
            "rows.docx",
            "script",
            "pickled",
            "nothing",
            "no-train",
            "mixed",
            "same",
            "leaky",
            "one-row.jsonl",
            "nul.jsonl",
            "dict.jsonl",
            "lists.jsonl",
            "list-of-numbers.jsonl",
            "scalars.jsonl",
            "arrays.jsonl",
            "cut.jsonl",
            "utf16.jsonl",
            "latin.csv",
            "header.csv",
            "blank-lines.jsonl",
            "huge-line.jsonl",
            "no-name.csv",
            "a\nb",
            "empty-split",
            "columns",
            "folded",
            "quotes.csv",
            "two-ways.tsv",
            "twice",
            "unequal",
            "half.json",
            "empty-folder",
            "saved",
            "loop",
            "loops",
            "pipe.jsonl",
            "x" * 300 + ".jsonl",
        )
    },  # fmt: skip
    "data a device": flags(*OWN, "--model", "models/good", "--data", "/dev/zero"),
    "data of nothing": flags(*OWN, "--model", "models/good", "--data", ""),
    "model of nothing": flags(*OWN, "--data", "data/good", "--model", ""),
    "metric of no module": data("good", "--metric", "no.such.module:Metric"),
    "metric of no file": data("good", "--metric", "./none.py:Metric"),
    "tokens cut to none": data("good", "--max-input-tokens", "0"),
    "data a hub id that cannot be reached": flags(*OWN, "--model", "models/good", "--data", "nobody/no-data"),
    **{f"{split} split": data("good", f"--{split}-split", "tset") for split in ("train", "validation", "test")},
    "source column": data("good", "--source-column", "sorce"),
    "target column": data("good", "--target-column", "aim"),
    "one column twice": data("good", "--source-column", "source", "--target-column", "source"),
    "splits twice": data("good", "--test-split", "validation"),
    "metric": data("good", "--metric", "rougeX"),
    "metric direction": data("good", "--metric-direction", "up"),
    "examples": data("good", "--validation-examples", "0"),
    # study
    **{
        f"study {json.dumps(v)}": with_budget("--study", v)
        for v in ("", "../../x", "a/b", "a\0b", "a\nb", "a\u202eb", ".hidden", "-x", "x" * 65, "ä")
    },
    **{
        f"{command} of no study": flags(command, "nothing-there", *(BUDGET if command == "pick" else []))
        for command in ("report", "resume", "recover", "pick", "dashboard", "remeasure")
    },
    "report of a name with control characters": flags("report", "a\x1b[2Jb"),
    "report of a name with NUL": flags("report", "a\0b"),
    "report of no name": flags("report", ""),
    "dashboard without studies": flags("dashboard"),
    "dashboard port": flags("dashboard", "--port", "99999"),
    # storage
    "storage no URL": storage("not a url"),
    "storage empty scheme": storage("://x"),
    "storage bad port": storage(f"postgresql://user:{SECRET}@localhost:port/db"),
    "storage missing driver": storage(f"oracle://user:{SECRET}@localhost/db"),
    "storage unknown dialect": storage(f"nonsense://user:{SECRET}@localhost/db"),
    "storage journal": storage("journal:///tmp/x.log"),
    "storage parent missing": storage("sqlite:///none/at/all/study.db"),
    "storage a folder": storage("sqlite:///a-folder"),
    "storage no database": storage("sqlite:///text.db", 5),
    "storage newer schema": storage("sqlite:///newer.db", 5),
    "storage read-only": storage("sqlite:///read-only.db"),
    "storage in the file no URL": config("storage"),
    "storage in memory": storage("sqlite://"),
    "storage of something else": storage("sqlite:///whole.db", 5),
    "storage truncated": storage("sqlite:///truncated.db", 5),
    # finetune, init, measure
    "finetune without output": flags("finetune"),
    "finetune rate": flags("finetune", "--output", "teacher", "--learning-rate", "abc"),
    "finetune epochs": flags("finetune", "--output", "teacher", "--epochs", "0"),
    "finetune model": flags("finetune", "--output", "teacher", "--model", "models/gpt2"),
    "finetune data": flags("finetune", "--output", "teacher", "--data", "data/empty.jsonl"),
    "finetune over a file": flags("finetune", "--output", "a-file"),
    "finetune into a folder with something in it": flags("finetune", "--output", "models/good"),
    "finetune below a file": flags("finetune", "--output", "a-file/teacher"),
    "finetune into NUL": flags("finetune", "--output", "a\0b"),
    "finetune from nothing": flags("finetune", "--output", "teacher", "--data", "data/good", "--model", "models/none"),
    "results a file": with_budget("--results", "a-file"),
    "results below a file": with_budget("--results", "a-file/results"),
    "results NUL": with_budget("--results", "a\0b"),
    "init of no model": flags("init", "models/none"),
    "init of a decoder": flags("init", "models/gpt2"),
    "init over a file": flags("init", "models/good", "--output", "a-file"),
    "init into no folder": flags("init", "models/good", "--output", "none/at/all.yaml"),
    "measure of no folder": flags("measure", "models/none"),
    "measure of a decoder": flags("measure", "models/gpt2"),
    "measure on too many threads": flags("measure", "models/good", "--threads", "1000"),
    "remeasure against nothing": flags("remeasure", "nothing-there", "--against", "models/none"),
    **{f"pick with max drop {v}": flags("pick", "nothing-there", *BUDGET, "--max-drop", v) for v in ("-5", "nan", "x")},
    "task of nothing": flags(*BUDGET, "--config", "configs/task-none.yaml", "--data", "data/missing.jsonl"),
    "task a list": flags(*BUDGET, "--config", "configs/task-list.yaml", "--data", "data/missing.jsonl"),
    "probe of no model": flags("probe", "--model", "models/none"),
}

HEAVY: dict[str, Case] = {"tokenizer that is none": flags(*MINE)}
"""Cases whose check needs torch: each a process of its own."""

(HEAVY if has_gpu() else LIGHT).update({"device cuda:99": with_budget("--device", "cuda:99")})
if not has_gpu():
    LIGHT |= {"device cuda where there is none": with_budget("--device", "cuda"), "config cuda": config("cuda")}

SAMPLE = ("unknown flag", "trials abc", "config tag", "model gpt2", "data leaky", 'study "a\\u202eb"')
"""Cases of `LIGHT` that also run as a process of their own."""

BATCH = """
import contextlib, io, json, os, sys, time

from nash_search.cli import main

def tree():
    return {p: (s.st_size, s.st_mtime_ns, s.st_mode) for d, _, names in os.walk(".") for n in [".", *names]
            for p in [os.path.join(d, n)] for s in [os.lstat(p)]}

found = {}
for name, (arguments, environment, _) in json.load(sys.stdin).items():
    os.environ.update(environment)
    before, began = tree(), time.monotonic()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(arguments)
        except BaseException as error:
            code = f"{type(error).__name__}: {error}"
    took_s = time.monotonic() - began
    for key in environment:
        del os.environ[key]
    after = tree()
    changed = sorted(p for p in before.keys() | after.keys() if before.get(p) != after.get(p))
    heavy = sorted({"torch", "ray"} & set(sys.modules))
    found[name] = {"code": code, "out": out.getvalue(), "err": err.getvalue(), "changed": changed, "took_s": took_s}
    found[name]["heavy"] = heavy
    if heavy:
        break
print(json.dumps(found))
"""


def clean_environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NASH_SEARCH", "COVERAGE"))}
    return kept | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bad")
    build(root)
    return root


@pytest.fixture(scope="module")
def batch(sandbox: Path) -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", BATCH], cwd=sandbox, env=clean_environment(), input=json.dumps(LIGHT),
        capture_output=True, text=True, timeout=NEVER_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def check(found: dict[str, Any], case: Case) -> None:
    """The contract."""
    line = found["err"]
    assert found["code"] == case[2], line
    assert found["out"] == ""
    assert line.startswith("nash-search: error: ") and line.endswith("\n") and line.count("\n") == 1, line
    assert len(line) <= 301, line
    assert all(c.isprintable() for c in line[:-1]), line
    assert "Traceback" not in line and SECRET not in line
    assert found["changed"] == []


@pytest.mark.parametrize("name", LIGHT)
def test_bad_input_gets_one_line_and_leaves_no_trace(batch: dict[str, dict[str, Any]], name: str) -> None:
    assert name in batch, "an earlier case imported torch or Ray"
    assert not batch[name]["heavy"], batch[name]["err"]
    check(batch[name], LIGHT[name])
    assert batch[name]["took_s"] < 40  # a hub asked again and again takes longer, a busy machine does not


def as_process(arguments: list[str], environment: dict[str, str], root: Path) -> dict[str, Any]:
    def tree() -> dict[str, Any]:
        return {str(p): (p.lstat().st_size, p.lstat().st_mtime_ns) for p in root.rglob("*")}

    before = tree()
    done = subprocess.run(
        [sys.executable, "-m", "nash_search", *arguments], cwd=root, env=clean_environment() | environment,
        capture_output=True, text=True, timeout=NEVER_S,
    )  # fmt: skip
    after = tree()
    changed = sorted(p for p in before.keys() | after.keys() if before.get(p) != after.get(p))
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr, "changed": changed}


@pytest.mark.slow  # the fast suite asks the same lines of one process
@pytest.mark.parametrize("name", [*SAMPLE, *HEAVY])
def test_the_same_holds_for_a_process_of_its_own(sandbox: Path, name: str) -> None:
    case = (LIGHT | HEAVY)[name]
    check(as_process(case[0], case[1], sandbox), case)


def test_an_unreadable_file_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nash_search.cli import main

    file = tmp_path / "space.yaml"
    file.write_text("trials: 3\n")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read a file of mode 000
    code = main(["--config", str(file), *BUDGET])
    seen = capsys.readouterr()
    check({"code": code, "out": seen.out, "err": seen.err, "changed": []}, ([], {}, 2))


def test_debug_adds_a_traceback_and_nothing_else(sandbox: Path) -> None:
    found = as_process(["--debug", "--trials", "0", *BUDGET], {}, sandbox)
    assert found["code"] == 2 and "Traceback" in found["err"]
    assert found["err"].splitlines()[-1].startswith("nash-search: error: ")
