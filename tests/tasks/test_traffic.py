"""A traffic file as a stream, and one line for everything that is none."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from nash_search.config import TaskConfig
from nash_search.errors import InvalidInput
from nash_search.tasks import g2p, traffic
from nash_search.tasks.load import load_task
from nash_search.traffic import Request, Traffic

TASK = TaskConfig()


def read(
    path: Path, text: str | bytes, *, config: TaskConfig = TASK, positions: tuple[int, int] | None = None
) -> Traffic:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return traffic.of_file(path, config, g2p.build_tokenizer, positions)


def log(*pairs: tuple[object, object]) -> str:
    return "\n".join(json.dumps({"input_tokens": a, "output_tokens": b, "user": "x"}) for a, b in pairs) + "\n\n"


def test_lengths_are_taken_as_they_are_and_texts_are_counted_by_the_model_s_tokenizer(tmp_path: Path) -> None:
    found = read(tmp_path / "log.jsonl", log((5, 9), (2, 1), (5, 9)))
    assert found.requests == (Request(2, 1), Request(5, 9), Request(5, 9)) and found.of == 3
    assert found.source == str(tmp_path / "log.jsonl")
    task = load_task(TASK)
    rows = zip(task.train.sources[:5], task.train.references[:5], strict=True)
    texts = "\n".join(json.dumps({"source": source, "target": several[0]}) for source, several in rows)
    lengths = [Request(len(a), len(b)) for a, b in zip(task.train.inputs[:5], task.train.labels[:5], strict=True)]
    assert sorted(read(tmp_path / "texts.jsonl", texts).requests) == sorted(lengths)


def test_of_the_data_it_is_the_train_split_whose_medians_are_a_fixed_call_s() -> None:
    task = load_task(TASK)
    found = traffic.of_task(task, "g2p")
    assert found.of == len(task.train) and found.median == (task.input_tokens, task.output_tokens)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must hold a request a line, but got an empty file"),
        ("\n \n", "must hold a request a line, but got an empty file"),
        (log((5, 9), (0, 3)), "input_tokens must be from 1 to 65536, but got 0 line 2"),
        (log((5, -9)), "output_tokens must be from 1 to 16384, but got -9 line 1"),
        (log((5, 10**30)), "output_tokens must be from 1 to 16384, but got 10"),
        (log((5, 3.5)), "output_tokens must be a whole number, but got 3.5"),
        (log((True, 3)), "input_tokens must be a whole number, but got True"),
        ('{"input_tokens": 3}\n', "output_tokens must be a whole number, but got none"),
        (log((5, 9)) + "[1]\n", "one JSON object a line, but got '[1]\\n' line 3"),
        (b"\x00\xff\x1b[31m\n", "one JSON object a line, but got '"),
        ("[" * 100_000, "one JSON object a line"),
        ('{"a": 1, "b": 2, "c": 3}\n', "columns must be guessable"),
        ('{"source": "a", "target": "b"}\n{"source": "a"}\n', "target must be text, but got None line 2"),
    ],
)
def test_whatever_is_no_request_is_said_in_one_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(InvalidInput) as error:
        read(tmp_path / "log.jsonl", text)
    what, _, line = words.partition(" line ")
    assert what in str(error.value) and (not line or f"log.jsonl, line {line})" in str(error.value))
    assert "\n" not in str(error.value) and str(error.value).isprintable() and len(str(error.value)) < 300


def test_longer_than_the_model_can_take_and_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"output_tokens must be from 1 to 64 \(the model's positions\), but got 65"):
        read(tmp_path / "log.jsonl", log((65, 64), (5, 65)), positions=(99, 64))
    for path in (tmp_path / "none.jsonl", tmp_path, tmp_path / "a\0b"):
        with pytest.raises(InvalidInput, match="traffic must be data, fixed or a JSONL file, but got"):
            traffic.of_file(path, TASK, g2p.build_tokenizer, None)


def test_many_lines_take_the_memory_of_a_few(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(log(*((i % 7 + 1, i % 11 + 1) for i in range(77))).replace("\n\n", "\n").encode() * 500)
    tracemalloc.start()
    found = traffic.of_file(path, TASK, g2p.build_tokenizer, None)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.of == 38_500 and len(found.requests) == 1000
    assert peak_bytes < path.stat().st_size / 2
