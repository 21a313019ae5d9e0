"""The user's data: what is read, guessed, carved, refused, and said."""

from __future__ import annotations

import gzip
import json

import pytest
from conftest import pairs, write_jsonl

from nash_search.config import TaskConfig
from nash_search.errors import InvalidInput
from nash_search.tasks import hub
from nash_search.tasks.data import read_texts
from nash_search.tasks.load import load_task


def read(path, **fields):
    return read_texts(TaskConfig(name="mine", data=str(path), **fields))


def test_a_folder_of_three_files_is_read_and_its_columns_guessed(folder):
    texts = read(folder)
    assert (len(texts.train), len(texts.validation), len(texts.read_test())) == (120, 20, 20)
    assert texts.train.references[0] == ["red red red"]
    assert texts.notes == ("columns: source -> target",)


def _write(path, rows):
    columns = list(rows[0])
    if path.name.endswith(".parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
        return
    if ".json" in path.name:
        text = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        separator = "\t" if ".tsv" in path.name else ","
        text = "\n".join(separator.join(line) for line in [columns, *([r[c] for c in columns] for r in rows)]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.name.endswith(".gz") else text.encode())


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet", "jsonl.gz", "csv.gz"])
def test_every_format_gives_the_same_texts(tmp_path, ending):
    rows = [{"document": f"{i} NA", "summary": "null" if i else "001"} for i in range(60)]
    path = tmp_path / f"rows [1].{ending}"
    _write(path, rows)
    texts = read(path)
    splits = (texts.train, texts.validation, texts.read_test())
    everything = {(s, r[0]) for split in splits for s, r in zip(split.sources, split.references, strict=True)}
    assert everything == {(row["document"], row["summary"]) for row in rows}


def test_missing_splits_are_carved_by_hash_whatever_the_order_and_said(tmp_path):
    rows = pairs(200)
    one = read(write_jsonl(tmp_path / "a.jsonl", rows))
    other = read(write_jsonl(tmp_path / "b.jsonl", rows[::-1]))
    assert set(one.validation.sources) == set(other.validation.sources)
    assert set(one.read_test().sources) == set(other.read_test().sources)
    assert len(one.train) + len(one.validation) + len(one.read_test()) == 200
    assert not set(one.train.sources) & {*one.validation.sources, *one.read_test().sources}
    assert sum("carved from train" in note for note in one.notes) == 2


def test_equal_sources_are_carved_together(tmp_path):
    rows = [{"source": row["source"], "target": f"{row['target']} {k}"} for row in pairs(100) for k in range(3)]
    texts = read(write_jsonl(tmp_path / "a.jsonl", rows))
    assert not set(texts.train.sources) & (set(texts.validation.sources) | set(texts.read_test().sources))


def test_several_references_and_rows_without_text(tmp_path):
    rows = [{"source": row["source"], "target": [row["target"], "other"]} for row in pairs(100)]
    rows[3]["source"] = "  "
    texts = read(write_jsonl(tmp_path / "a.jsonl", rows))
    assert texts.train.references[0][1] == "other"
    assert any("1 of 100 rows of train have no text" in note for note in texts.notes)


def _only(name, text):
    return lambda path: (path / name).write_text(text)


def _rows(rows):
    return lambda path: write_jsonl(path / "train.jsonl", rows)


BROKEN = {
    "empty folder": (lambda p: None, "must hold JSONL"),
    "empty file": (_only("train.jsonl", ""), "empty file"),
    "not json": (_only("train.jsonl", "hello\n"), "row must be JSON, but got 'Expecting value at column 1' in line 1"),
    "pickle": (_only("train.pkl", "x"), "must hold JSONL"),
    "script": (_only("mine.py", "x"), "must hold JSONL"),
    "other format": (_only("train.docx", "x"), "must hold JSONL"),
    "no train": (lambda p: [_only(f"{n}.jsonl", "{}\n")(p) for n in "ab"], "named train"),
    "two formats": (lambda p: [_only("train.jsonl", "{}\n")(p), _only("train.csv", "a,b\n")(p)], "one format"),
    "ragged": (_only("train.csv", "source,target\na,b\nc,d,e\nf,g\n"), "3 in line 3"),
    "short row": (_only("train.csv", "source,target\n" + "a,b\n" * 3 + "c\n"), "1 in line 5"),
    "missing column": (lambda p: write_jsonl(p / "train.jsonl", [{"a": "x", "b": "y"}] * 99), "guessable"),
    "none": (_rows([*pairs(50), {"source": None, "target": "x"}]), "but got None in line 51"),
    "number": (_rows([{"source": "x", "target": i} for i in range(50)]), "but got 0 in line 1"),
    "missing key": (_rows([*pairs(50), {"source": "x"}]), "but got None in line 51"),
    "few": (lambda p: write_jsonl(p / "train.jsonl", pairs(5)), "at least"),
    "no references": (
        lambda p: write_jsonl(p / "train.jsonl", [{"source": row["source"], "target": " "} for row in pairs(50)]),
        "source and a reference",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_data_is_refused_in_one_line(tmp_path, case):
    make, expected = BROKEN[case]
    make(tmp_path)
    with pytest.raises(InvalidInput) as refused:
        read(tmp_path)
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 290


def test_overlap_between_splits_is_refused_unless_allowed(folder):
    write_jsonl(folder / "test.jsonl", [*pairs(20, 300), *pairs(3)])
    with pytest.raises(InvalidInput, match="3 of the 23 sources of test also in train"):
        read(folder)
    allowed = read(folder, allow_overlap=True)
    assert any("overlap allowed: 3 of the 23 sources of test also in train" in note for note in allowed.notes)
    assert len(allowed.train) == 120 and allowed.facts.test_in_train == 3 and allowed.facts.overlap_allowed


VARIANTS = {
    "another target": lambda s: s,
    "capitals": str.title,
    "white space": lambda s: "  " + s.replace(" ", " \u00a0 ") + "\n",
    "another Unicode form": lambda s: "".join(chr(ord(c) + 0xFEE0) if c.isalpha() else c for c in s),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_source_that_stands_in_two_splits_is_found_whatever_its_spelling_and_target(folder, variant):
    """All of test stood in train, with other targets: the numbers would be worth nothing."""
    seen = [{"source": VARIANTS[variant](row["source"]), "target": "another"} for row in pairs(20)]
    write_jsonl(folder / "test.jsonl", seen)
    with pytest.raises(InvalidInput, match="20 of the 20 sources of test also in train"):
        read(folder)


def test_few_shared_sources_are_dropped_from_what_is_trained_on_and_counted(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", [*pairs(200), {"source": "Red  red red", "target": "twice"}])
    write_jsonl(tmp_path / "validation.jsonl", [*pairs(38, 300), pairs(1, 1)[0], pairs(1, 400)[0]])
    write_jsonl(tmp_path / "test.jsonl", [*pairs(38, 400), pairs(1, 0)[0]])
    texts = read(tmp_path)
    held_out = {*texts.validation.sources, *texts.read_test().sources}
    assert not held_out & set(texts.train.sources) and "Red  red red" not in texts.train.sources
    assert not set(texts.read_test().sources) & set(texts.validation.sources)
    facts = texts.facts
    assert (facts.train, facts.validation, facts.test) == (198, 39, 39) == (len(texts.train), len(texts.validation), 39)
    assert (facts.train_dropped, facts.validation_dropped) == (3, 1)
    assert (facts.validation_in_train, facts.test_in_train, facts.test_in_validation) == (1, 1, 1)
    assert any("3 rows of train dropped" in note for note in texts.notes)
    assert any("1 row of validation dropped" in note for note in texts.notes)


@pytest.mark.parametrize(("shared", "refused"), [(2, False), (3, True)])
def test_the_limit_is_five_percent_of_the_split(tmp_path, shared, refused):
    write_jsonl(tmp_path / "train.jsonl", pairs(200))
    write_jsonl(tmp_path / "validation.jsonl", pairs(40, 300))
    write_jsonl(tmp_path / "test.jsonl", [*pairs(40 - shared, 400), *pairs(shared)])
    if refused:
        with pytest.raises(InvalidInput, match="at most 5% of their sources"):
            read(tmp_path)
    else:
        assert read(tmp_path).facts.train_dropped == shared


@pytest.mark.parametrize("given", ["", "validation", "test"])
def test_splits_that_are_carved_here_are_never_refused_here(tmp_path, given):
    """Trailing blanks and capitals: the same source by the carving is the same by the check."""
    rows = [row | {"source": text} for row in pairs(100) for text in (row["source"], f"{row['source'].title()}  ")]
    write_jsonl(tmp_path / "train.jsonl", rows)
    if given:
        write_jsonl(tmp_path / f"{given}.jsonl", [*pairs(30, 300), pairs(1)[0]])
    texts = read(tmp_path)
    normal = [{" ".join(s.lower().split()) for s in split.sources} for split in (texts.train, texts.validation)]
    normal.append({" ".join(s.lower().split()) for s in texts.read_test().sources})
    assert not normal[0] & normal[1] and not normal[0] & normal[2] and not normal[1] & normal[2]
    assert texts.facts.train_dropped == (2 if given else 0) and texts.facts.test == len(texts.read_test())


def test_an_unreachable_hub_is_one_clear_line_at_once(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    waited = []
    monkeypatch.setattr("time.sleep", waited.append)
    with pytest.raises(InvalidInput, match="can be reached, but got neither"):
        read("somebody/some-data")
    assert sum(waited) < 2, "retries wait longer and longer"


@pytest.mark.parametrize("name", ["./x", "a/b/c", "x.jsonl", "..", "/abs", "a\0b", "~/x"])
def test_what_cannot_be_a_hub_id_is_a_path(name):
    assert hub.is_local(name)


def test_a_task_over_own_data_takes_lengths_from_it_and_says_what_is_cut(folder, tokenizer):
    config = TaskConfig(name="mine", data=str(folder), metric="exact_match", prefix="turn: ", validation_examples=9)
    task = load_task(config, tokenizer)
    assert len(task.validation) == 9 and task.batch_size == 1
    assert task.train.sources[0].startswith("turn: ")
    assert max(len(ids) for ids in task.train.inputs) <= task.max_input_tokens
    assert task.generation == {"num_beams": 1, "do_sample": False, "max_new_tokens": task.max_output_tokens}
    assert task.encode(["red red red"])[0] == tokenizer("turn: red red red")["input_ids"]
    short = load_task(config.model_copy(update={"max_output_tokens": 2}), tokenizer, {"num_beams": 3})
    assert any("targets of train are cut" in note for note in short.notes)
    assert short.generation["num_beams"] == 3 and max(map(len, short.train.labels)) == 2
    assert len(task.open_sealed_test()) == 20 and task.sealed.opened == 1
    assert task.data is not None and (task.data.train, task.data.validation, task.data.test) == (120, 20, 20)


def test_own_data_needs_a_model_and_an_unknown_task_needs_data():
    with pytest.raises(InvalidInput, match="--data"):
        load_task(TaskConfig(name="nope"))
    with pytest.raises(InvalidInput, match="--model"):
        load_task(TaskConfig(name="mine", data="x.jsonl"))


@pytest.mark.parametrize("own_test", [True, False], ids=["a split of its own", "carved"])
def test_the_test_split_is_built_by_its_counted_opening_alone(folder, tokenizer, monkeypatch, own_test):
    from nash_search.tasks import data

    if not own_test:
        (folder / "test.jsonl").unlink()
    made, split = [], data.Split

    class Watched(split):
        def __init__(self, **parts):
            made.append(parts["sources"])
            super().__init__(**parts)

    config = TaskConfig(name="mine", data=str(folder), metric="exact_match")
    monkeypatch.setattr(data, "Split", Watched)
    data._read_texts.cache_clear()
    task = load_task(config, tokenizer)
    assert task.sealed.opened == 0
    before = [list(sources) for sources in made]
    opened = set(task.open_sealed_test().sources)
    if own_test:
        assert opened and not any(opened & set(sources) for sources in before)
    else:  # carved from train, so read with it, and let go
        assert opened and not opened & set(task.train.sources)
    data._read_texts.cache_clear()


def test_data_that_were_written_anew_are_read_anew_in_the_same_process(folder):
    config = TaskConfig(name="mine", data=str(folder))
    before = read_texts(config)
    assert read_texts(config) is before, "read once where nothing changed"
    with (folder / "train.jsonl").open("a") as file:
        file.write('{"source": "quite another", "target": "row"}\n')
    assert len(read_texts(config).train) == len(before.train) + 1
