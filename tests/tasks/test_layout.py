"""Data as people have it: every layout gives the same rows, and what else a folder holds is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import pairs, write_jsonl

from nash_search.config import DATA_FORMATS, TaskConfig
from nash_search.errors import InvalidInput
from nash_search.tasks import layout
from nash_search.tasks.data import _read_texts, read_texts

SPLITS = {"train": pairs(60), "validation": pairs(12, 200), "test": pairs(12, 300)}


def read(path, **fields):
    _read_texts.cache_clear()
    return read_texts(TaskConfig(name="mine", data=str(path), **fields))


def rows_of(texts):
    splits = {"train": texts.train, "validation": texts.validation, "test": texts.read_test()}
    return {split: [(s, r[0]) for s, r in found.rows()] for split, found in splits.items()}


EXPECTED = {split: [(row["source"], row["target"]) for row in rows] for split, rows in SPLITS.items()}


def write_parallel(path, one, other, split, rows, gz=False):
    (path / f"{split}.{one}").write_text("".join(row["source"] + "\n" for row in rows))
    (path / f"{split}.{other}").write_text("".join(row["target"] + "\n" for row in rows))


def languages(path):
    for split, rows in SPLITS.items():
        write_parallel(path, "en", "de", split, rows)


def src_and_tgt(path):
    for name, rows in zip(("train", "dev", "test"), SPLITS.values(), strict=True):
        write_parallel(path, "src", "tgt", name, rows)
    (path / "train.py").write_text("raise SystemExit('run')")
    (path / "train.log").write_text("epoch 1\n")


def sub_folders(path):
    for name, rows in zip(("train", "val", "test"), SPLITS.values(), strict=True):
        (path / name).mkdir()
        write_jsonl(path / name / "part-0.jsonl", rows[:5])
        write_jsonl(path / name / "part-1.jsonl", rows[5:])


def saved(path):
    import datasets

    datasets.DatasetDict({k: datasets.Dataset.from_list(v) for k, v in SPLITS.items()}).save_to_disk(path / "data")


def eval_file(path):
    for name, rows in zip(("train", "eval", "test"), SPLITS.values(), strict=True):
        write_jsonl(path / f"{name}.jsonl", rows)


def wrapped(path):
    for split, rows in SPLITS.items():
        (path / f"{split}.json").write_text(json.dumps({"version": "1", "data": rows}))


def one_line_wrapped(path):
    for split, rows in SPLITS.items():
        (path / f"{split}.json").write_text(json.dumps({"data": rows}) + "\n")


def prompts(path):
    for split, rows in SPLITS.items():
        write_jsonl(path / f"{split}.jsonl", [{"prompt": row["source"], "completion": row["target"]} for row in rows])


def other_case(path):
    for split, rows in SPLITS.items():
        write_jsonl(path / f"{split}.jsonl", [{"Source": row["source"], "TARGET": row["target"]} for row in rows])


def semicolons(path):
    for split, rows in SPLITS.items():
        text = "source;target\n" + "".join(f"{row['source']};{row['target']}\n" for row in rows)
        (path / f"{split}.csv").write_text(text)


def pandas_index(path):
    import pandas as pd

    for split, rows in SPLITS.items():
        pd.DataFrame(rows).to_csv(path / f"{split}.csv")


def shards_of_other_orders(path):
    for split, rows in SPLITS.items():
        turned = [{"target": row["target"], "note": None, "source": row["source"]} for row in rows[7:]]
        write_jsonl(path / f"{split}-00000-of-00002.jsonl", rows[:7])
        write_jsonl(path / f"{split}-00001-of-00002.jsonl", turned)


def csv_shards_of_other_orders(path):
    for split, rows in SPLITS.items():
        head, tail = rows[:7], rows[7:]
        (path / f"{split}-0.csv").write_text(
            "source,target\n" + "".join(f"{r['source']},{r['target']}\n" for r in head)
        )
        (path / f"{split}-1.csv").write_text(
            "Target,id,Source\n" + "".join(f"{r['target']},1,{r['source']}\n" for r in tail)
        )


def parquet_shards_of_other_orders(path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for split, rows in SPLITS.items():
        pq.write_table(pa.Table.from_pylist(rows[:7]), path / f"{split}-0.parquet")
        other = [{"n": 1.5, "target": row["target"], "source": row["source"]} for row in rows[7:]]
        pq.write_table(pa.Table.from_pylist(other), path / f"{split}-1.parquet")


def columns_that_trouble_others(path):
    """Dates, a column that is null first and text later, one that appears late, and numbers that become text."""
    for split, rows in SPLITS.items():
        more = [{"when": "2021-02-01 10:00", "note": None} for _ in rows]
        more[-1] = {"when": "never", "note": "x", "late": 1}
        more[0] = {"when": 3, "note": None}
        write_jsonl(path / f"{split}.jsonl", [row | extra for row, extra in zip(rows, more, strict=True)])


LAYOUTS = [languages, src_and_tgt, sub_folders, saved, eval_file, wrapped, one_line_wrapped, prompts, other_case,
           semicolons, pandas_index, shards_of_other_orders, csv_shards_of_other_orders, parquet_shards_of_other_orders,
           columns_that_trouble_others]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_every_layout_gives_the_same_rows(tmp_path, layout):
    layout(tmp_path)
    texts = read(tmp_path)
    assert rows_of(texts) == EXPECTED
    assert not any("carved" in note for note in texts.notes)


def test_dates_and_numbers_in_text_stay_the_text_they_are(tmp_path):
    rows = [{"source": f"when {i}", "target": "2021-02-01 10:00"} for i in range(60)]
    texts = read(write_jsonl(tmp_path / "rows.jsonl", rows))
    assert {r[0] for r in texts.train.references} == {"2021-02-01 10:00"}


def test_stray_quotes_in_tsv_swallow_nothing_and_are_said(tmp_path):
    rows = [(f'"{row["source"]}' if i % 9 == 0 else row["source"], row["target"]) for i, row in enumerate(pairs(60))]
    (tmp_path / "train.tsv").write_text("source\ttarget\n" + "".join(f"{s}\t{t}\n" for s, t in rows))
    texts = read(tmp_path)
    assert sum(len(found) for found in rows_of(texts).values()) == 60
    assert {s for found in rows_of(texts).values() for s, _ in found} == {s for s, _ in rows}
    assert any("quotes in" in note for note in texts.notes)


def test_one_saved_dataset_is_train(tmp_path):
    import datasets

    datasets.Dataset.from_list(SPLITS["train"]).save_to_disk(tmp_path / "d")
    assert sum(len(found) for found in rows_of(read(tmp_path / "d")).values()) == 60


def test_what_else_a_folder_holds_is_left_alone_never_run_and_said(tmp_path):
    eval_file(tmp_path)
    for name in ("mine.py", "train.py", "train.pkl", "notes.docx", "extra.jsonl", "README.md"):
        (tmp_path / name).write_text("raise SystemExit('run')")
    (tmp_path / "models").mkdir()
    texts = read(tmp_path)
    assert rows_of(texts) == EXPECTED
    (note,) = [note for note in texts.notes if "left alone" in note]
    assert "extra.jsonl, mine.py, models, notes.docx and 2 more" in note


def test_files_that_are_put_together_are_said(tmp_path):
    shards_of_other_orders(tmp_path)
    assert any("train is 2 files one after the other: train-00000-of" in note for note in read(tmp_path).notes)


def _two(path, one, other):
    eval_file(path)
    for name in (one, other):
        (path / name).parent.mkdir(exist_ok=True)
        write_jsonl(path / name, pairs(20))


AMBIGUOUS = {
    "two names of one split": (lambda p: _two(p, "dev.jsonl", "eval.jsonl"), "must go by one name"),
    "a folder and a file": (lambda p: _two(p, "train/a.jsonl", "train.jsonl"), "one format"),
    "one file twice": (lambda p: _two(p, "train.jsonl", "train.jsonl.gz"), "each file once"),
    "tables and parallel text": (lambda p: (eval_file(p), languages(p)), "one format"),
    "lines that are missing": (
        lambda p: (languages(p), (p / "train.de").write_text("x\n" * 59)), "none in line 60 of 'train.de'",
    ),
    "an empty folder of a split": (
        lambda p: (eval_file(p), (p / "dev").mkdir(), (p / "eval.jsonl").unlink()), "must hold",
    ),
    "half a character": (
        lambda p: write_jsonl(p / "train.jsonl", [*pairs(50), {"source": "\ud83d", "target": "x"}]), "line 51",
    ),
    "no UTF-8": (lambda p: (p / "train.csv").write_bytes(b"source,target\na,b\nc,\xe9\n"), "byte 0xe9 in line 3"),
    "a column twice": (lambda p: (p / "train.csv").write_text("source,target,source\na,b,c\n"), "once"),
    "quotes that read two ways": (
        lambda p: (p / "train.tsv").write_text('source\ttarget\na\t"b\nc\td"\n'), "text or join lines in line 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_what_could_be_meant_two_ways_is_refused(tmp_path, case):
    make, expected = AMBIGUOUS[case]
    make(tmp_path)
    with pytest.raises(InvalidInput) as refused:
        read(tmp_path)
    assert expected in str(refused.value) and len(str(refused.value)) < 300


def test_two_languages_are_read_from_the_one_that_was_named(tmp_path):
    languages(tmp_path)
    turned = read(tmp_path, source_column="de", target_column="en")
    assert turned.train.sources[0] == SPLITS["train"][0]["target"]


def test_every_format_is_named_where_people_look() -> None:
    assert tuple(ending[1:] for ending in layout.FORMATS) == tuple(name.lower() for name in DATA_FORMATS)
    assert layout.KNOWN == "JSONL, JSON, CSV, TSV or Parquet"
    assert layout.KNOWN in (Path(__file__).parents[2] / "docs" / "own-model.md").read_text("utf-8")
