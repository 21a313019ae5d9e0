"""n rows in, n rows out, or a refusal that names the line: over every format, with texts that tempt a reader."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nash_search.errors import InvalidInput
from nash_search.tasks import layout

bounded = settings(
    derandomize=True, max_examples=150, deadline=None, database=None,
    suppress_health_check=[HealthCheck.too_slow],  # a busy machine is no failure
)  # fmt: skip

PIECES = [
    "a",
    "B",
    " ",
    '"',
    '""',
    ",",
    ";",
    "\t",
    "'",
    "\\",
    "|",
    "é",
    "\u2028",
    "\x85",
    "\x0b",
    "\x1c",
    "\ufeff",
    "🙂",
]
LINE_ENDS = ["\n", "\r", "\r\n"]
WORDS = ["NA", "null", "", "1.0", "007", "True", "2021-02-01 10:00", "nan", "-", "=1+1", "12:30"]
cell = st.one_of(st.sampled_from(WORDS), st.lists(st.sampled_from(PIECES + LINE_ENDS), max_size=8).map("".join))
on_one_line = st.one_of(st.sampled_from(WORDS), st.lists(st.sampled_from(PIECES), max_size=8).map("".join))


def tables(cells):
    return st.lists(st.tuples(cells, cells), min_size=1, max_size=7)


def read(path, names=("source", "target")):
    """Line or row numbers and cells of the train split."""
    found = []
    for table in layout.look(path, {"train": "train", "validation": "validation", "test": "test"}).tables["train"]:
        found += list(table.rows(names))
    return [n for n, _ in found], [cells for _, cells in found]


def rows_or_refusal(path, rows):
    try:
        _, found = read(path)
    except InvalidInput as refused:
        assert re.search(r"line \d+", str(refused)), refused
        return False
    assert found == rows
    return True


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("rows")


def delimited(rows, separator, quoting=csv.QUOTE_MINIMAL, extra=False):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, quoting=quoting)  # ends lines with \r\n, as the standard has it
    writer.writerow(["", "target", "source", "more"] if extra else ["source", "target"])
    for number, (source, target) in enumerate(rows):
        writer.writerow([number, target, source, 'x "y'] if extra else [source, target])
    return text.getvalue()


def put(place, name, text):
    path = place / name
    data = text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


@given(
    rows=tables(cell),
    ending=st.sampled_from(["csv", "tsv", "csv.gz"]),
    separator=st.sampled_from(",;\t"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    extra=st.booleans(),
)
@bounded
def test_what_a_csv_writer_wrote_is_read_back_or_refused(place, rows, ending, separator, quoting, extra):
    rows_or_refusal(put(place, f"w.{ending}", delimited(rows, separator, quoting, extra)), rows)


@given(rows=tables(cell.filter(lambda c: not set(c) & set(",;\t"))), separator=st.sampled_from(",;\t"))
@bounded
def test_line_breaks_in_quotes_alone_make_nothing_ambiguous(place, rows, separator):
    assert rows_or_refusal(put(place, "b.csv", delimited(rows, separator)), rows)


@given(rows=tables(on_one_line.map(lambda c: c.replace("\t", " "))), end=st.sampled_from(["\n", "\r\n"]))
@bounded
def test_unquoted_tsv_keeps_its_rows_whatever_quotes_are_in_it(place, rows, end):
    path = put(place, "t.tsv", "".join(f"{s}\t{t}{end}" for s, t in [("source", "target"), *rows]))
    try:
        numbers, found = read(path)
    except InvalidInput as refused:
        assert re.search(r"line \d+", str(refused))
        return
    assert len(found) == len(rows) and numbers == list(range(2, len(rows) + 2))
    unquoted = [tuple(c[1:-1].replace('""', '"') if re.fullmatch(r'"(""|[^"])*"', c) else c for c in r) for r in rows]
    assert found in (rows, unquoted)


# a cell with both a line break and a separator in it: with a quote too many, the same bytes may be other rows as well
@given(
    rows=tables(cell.filter(lambda c: not (set(c) & set(",\t") and set(c) & set("\r\n")))),
    separator=st.sampled_from(",\t"),
    where=st.floats(0, 1),
    quoting=st.booleans(),
)
@settings(bounded, max_examples=250)
def test_one_stray_quote_swallows_no_row_unseen(place, rows, separator, where, quoting):
    text = delimited(rows, separator, csv.QUOTE_ALL if quoting else csv.QUOTE_MINIMAL)
    begin = text.index("\n") + 1
    at = begin + round(where * (len(text) - begin))
    path = put(place, "s.csv", f'{text[:at]}"{text[at:]}')
    try:
        _, found = read(path)
    except InvalidInput as refused:
        assert re.search(r"line \d+", str(refused))
        return
    assert len(found) == len(rows)
    assert sum(one != other for one, other in zip(found, rows, strict=True)) <= 1


@given(rows=tables(cell), kind=st.sampled_from(["jsonl", "json", "list", "data", "jsonl.gz"]))
@bounded
def test_json_is_read_back_exactly(place, rows, kind):
    objects = [{"when": None, "target": t, "source": s} | ({"late": "x"} if i else {}) for i, (s, t) in enumerate(rows)]
    if kind in ("list", "data"):
        name, text = "d.json", json.dumps(objects if kind == "list" else {"version": 1, "data": objects}, indent=1)
    else:
        name, text = f"l.{kind}", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in objects)
    assert rows_or_refusal(put(place, name, text), rows)


@given(rows=tables(cell), cut=st.integers(1, 30))
@bounded
def test_json_lines_that_end_early_are_refused_by_line(place, rows, cut):
    text = "".join(json.dumps({"source": s, "target": t}) + "\n" for s, t in rows)
    path = put(place, "cut.jsonl", text[:-cut])
    if cut == 1:  # the line feed alone
        assert rows_or_refusal(path, rows)
    else:
        assert not rows_or_refusal(path, rows), f"line {len(rows)}"


@given(rows=tables(on_one_line.map(lambda c: c.lstrip("\ufeff"))), missing=st.booleans())  # first, it marks UTF-8
@bounded
def test_parallel_text_stays_parallel_or_is_refused_by_line(place, rows, missing):
    folder = place / "parallel"
    folder.mkdir(exist_ok=True)
    put(folder, "train.src", "".join(s + "\n" for s, _ in rows))
    put(folder, "train.tgt", "".join(t + "\n" for _, t in (rows[:-1] if missing else rows)) or "")
    if missing and len(rows) == 1:
        with pytest.raises(InvalidInput, match="empty file"):
            read(folder)
        return
    try:
        _, found = read(folder, ("src", "tgt"))
    except InvalidInput as refused:
        assert missing and f"line {len(rows)}" in str(refused)
    else:
        assert found == rows and not missing
