"""What the pages say is there: every target, flag, link, key, public name; every Python block runs."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import nash_search
from experiments.__main__ import listed
from nash_search.cli import app
from nash_search.remeasured import Remeasured
from nash_search.summaries import PUBLIC, PUBLIC_PARTS
from nash_search.survey import Survey
from tests.pages import PAGES, ROOT, blocks, shell_lines, spans


def test_every_make_target_and_experiment_named_exists() -> None:
    text = "".join(page.read_text() for page in PAGES)  # not the log: its entries keep the command of their day
    shown = [words for page in PAGES for words in (*shell_lines(page), *spans(page, "make")) if words[0] == "make"]
    named = {words[1] for words in shown}
    targets = set(re.findall(r"^([a-z0-9./-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert {"search", "test", "study"} <= named <= targets
    assert set(re.findall(r"make study NAME=([a-z0-9-]+)", text)) <= set(listed())


def test_every_command_and_flag_named_exists() -> None:
    import typer.main

    group = typer.main.get_command(app)
    known = {"": {o for p in group.params for o in (*p.opts, *p.secondary_opts)}}
    for name, command in group.commands.items():
        known[name] = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    heads = "".join(path.read_text() for path in (ROOT / "search_spaces").glob("*.yaml"))
    above = [shlex.split(line) for line in re.findall(r"^# +(nash-search .*)$", heads, re.M)]
    for words in [*above, *(w for page in PAGES for w in (*shell_lines(page), *spans(page, "nash-search")))]:
        if words[0] != "nash-search":
            continue
        command = words[1] if len(words) > 1 and words[1] in known else ""
        flags = {word for word in words if word.startswith("-")}
        assert flags <= known[command], f"{' '.join(words)}: {flags - known[command]}"


def test_the_public_names_are_a_short_list() -> None:
    assert nash_search.__all__ == [
        "Architecture", "LatencyBudget", "PruningRecipe", "SearchConfig", "SearchResult", "SearchSpace",
        "load", "load_config", "prune", "search",
    ]  # fmt: skip
    assert all(getattr(nash_search, name) is not None for name in nash_search.__all__)


def test_the_readme_is_read_in_minutes() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 900 and len(re.findall(r"\d[\d,.]*", text)) <= 60


def test_no_placeholder_is_left() -> None:
    assert not [page for page in PAGES if "@@" in page.read_text()]


def test_what_was_measured_stands_in_a_section_that_says_where() -> None:
    """A speed-up, a quality or a time needs a command, a committed file or the log in its own section."""
    measured = re.compile(r"\d×|\d times (faster|less)|\d BLEU|± \d|\d (min|minutes)\b|word error rate")
    source = re.compile(r"`(make|pytest|nash-search) |results/|worked-example\.md|^```sh", re.M)
    sections = [
        (page.name, part.splitlines()[0])
        for page in PAGES
        if page.parent != ROOT / "results" and page.name != "CHANGELOG.md"
        for part in re.split(r"^(?=#+ )", page.read_text(), flags=re.M)
        if measured.search(part) and not source.search(part)
    ]
    assert not sections


def test_every_link_of_a_page_leads_somewhere() -> None:
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^)#: ]+)\)", page.read_text())]
    assert not [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()]


def test_every_page_of_the_docs_is_named_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert not [page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name})" not in readme]


def keys_returned(path: str, function: str) -> set[str]:
    """Keys of the first dictionary a function returns."""
    tree = ast.parse((ROOT / "nash_search" / path).read_text())
    [found] = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == function]
    made = next(n.value for n in ast.walk(found) if isinstance(n, ast.Return) and isinstance(n.value, ast.Dict))
    return {k.value for k in made.keys if isinstance(k, ast.Constant)}


def test_the_json_keys_documented_are_those_printed() -> None:
    text = (ROOT / "results" / "README.md").read_text()
    rows = dict(re.findall(r"^\| `nash-search ([a-z]+)` \| (`.*) \|$", text, re.M))
    documented = {name: set(re.findall(r"`([a-z_]+)`", words)) for name, words in rows.items()}
    assert documented["probe"] == set(Survey.model_fields)
    of_traffic = keys_returned("latency/measurement.py", "_distribution") | {"verdicts", "percentile"}
    assert documented["measure"] == keys_returned("latency/measurement.py", "document") | of_traffic
    assert documented["remeasure"] == set(Remeasured.model_fields)
    block = next(b for b in blocks(ROOT / "results" / "README.md", "text") if '"study"' in b)
    for name in (*PUBLIC, *PUBLIC_PARTS["workload"], *PUBLIC_PARTS["dense"]):
        assert f'"{name}"' in block
    named = {c.name for c in app.registered_commands} - {"resume", "pick"}
    assert named <= set(documented), named - set(documented)


def test_every_command_documented_is_run_by_a_test() -> None:
    """By name: as an argument list (`"probe", …`) or by a page's own block, line by line."""
    tests = "".join(p.read_text() for p in (ROOT / "tests").rglob("*.py") if p != Path(__file__))
    by_page = "".join(blocks(ROOT / "README.md", "sh"))  # tests/test_own_model.py runs the block with `finetune`
    for command in app.registered_commands:
        run = re.search(rf'["\[(]{command.name}", ', tests) or f"nash-search {command.name} " in by_page
        assert run, f"no test runs nash-search {command.name}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "block"),
    [pytest.param(p, b, id=f"{p.name}-{n}") for p in PAGES[:-1] for n, b in enumerate(blocks(p, "python"))],
)
def test_python_blocks_run(page: Path, block: str, tmp_path: Path) -> None:
    program = "import torch\ntorch.set_num_threads(1)\n" + block
    found = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=1000)
    assert found.returncode == 0, found.stderr[-2000:]
