"""Every command that a page shows goes through the parser that a reader's would, as far as its work.

`pick` and `init` run to their end, on committed studies. The others stop where their work would begin: `WORK` says
where, and which test runs that command to its end. Flags, choices, search spaces, data, models and studies have been
read and checked by then. The README's own five commands are run to their end, one after the other, by
tests/test_own_model.py, Python blocks by tests/test_readme.py.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import pytest
from packaging.requirements import Requirement

from nash_search.cli import app, main
from nash_search.cli.search import storage
from nash_search.config_loader import load_config
from tests import speech
from tests.pages import PAGES, ROOT, blocks, languages, shell_lines, spans

WORK = {
    "": ("nash_search.cli.search.run_search", "tests/test_own_model.py"),
    "probe": ("nash_search.search.probe_only.survey", "tests/cli/test_latency.py"),
    "measure": ("nash_search.search.remeasure.measure_folder", "tests/cli/test_latency.py"),
    "remeasure": ("nash_search.search.remeasure.remeasure_study", "tests/search/test_recertify.py"),
    "finetune": ("nash_search.finetune.starting_point", "tests/test_own_model.py"),
    "resume": ("nash_search.cli.studies.run_search", "tests/cli/test_studies.py"),
    "recover": ("nash_search.storage.recovery.rebuild", "tests/cli/test_studies.py"),
    "report": ("nash_search.report.page.write", "tests/cli/test_studies.py"),
    "dashboard": ("nash_search.report.dashboard.serve", "tests/cli/test_studies.py"),
}
"""Command -> where its work begins, which takes seconds to hours, and the test that runs the command to its end."""
BY_CI = {"test", "test-all", "lint", "test-oldest"}
"""Targets that are this suite and what CI runs before it: their recipes are read by make, and that is all."""
MEANT = {
    "STUDY": ["g2p"], "[STUDY]": ["g2p"], "multi30k": ["g2p"], "PATH": ["my-teacher"], "DENSE": ["my-bart"],
    "MODEL": ["my-bart"], "FILE": ["data"], "DIR": ["new"], "B": ["50%"], "…": ["--model", "my-teacher"],
    "/shared": ["shared"], "multi30k-en-de": ["multi30k-en-de", "--data", "captions.jsonl"],
}  # fmt: skip
"""What stands for a name in a sentence, or on the hub or another machine -> what is typed here."""


class Work(BaseException):
    """Everything was read and checked; what comes next is work."""


def begins(*_: Any, **__: Any) -> NoReturn:
    raise Work


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the pages' commands name: data, models of tiny shape, the committed studies."""
    from tokenizers import Tokenizer, models
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("home")
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, **{f"w{i}": i + 4 for i in range(60)}}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>")),
        bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
    )  # fmt: skip
    sizes: dict[str, dict[str, Any]] = {
        "bart": {"d_model": 8, "encoder_layers": 6, "decoder_layers": 6, "max_position_embeddings": 600}
        | {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("attention_heads", "ffn_dim")},
        "t5": {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_heads": 2, "num_layers": 8, "num_decoder_layers": 8},
    }
    named = {
        "bart": ("my-bart", "my-teacher", "my-model"),
        "t5": ("flan-t5-small", "flan-debsyn", "results/flan-t5-small", "results/flan-debsyn-teacher"),
        "whisper": ("whisper-base", "base-5s", "results/whisper-base", "results/whisper-base-5s"),
    }
    for kind, shape in sizes.items():
        config = AutoConfig.for_model(kind, vocab_size=64, decoder_start_token_id=2, pad_token_id=1, **shape)
        AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder / kind)
        tokenizer.save_pretrained(folder / kind)
    speech.write_model(folder / "whisper", seconds=30, blocks=6)
    (folder / "results").mkdir()
    for kind, names in named.items():
        for name in names:
            (folder / name).symlink_to(folder / kind)
    rows = [f'{{"source": "w{i} w{i % 7}", "target": "w{i % 9}"}}\n' for i in range(1800)]
    (folder / "data").mkdir()
    for split, lines in (("train", rows[:1600]), ("validation", rows[1600:1700]), ("test", rows[1700:])):
        (folder / "data" / f"{split}.jsonl").write_text("".join(lines))
    (folder / "captions.jsonl").write_text("".join(rows).replace("source", "en").replace("target", "de"))
    for name in ("dialogues", "debsyn", "my-data"):
        (folder / name).symlink_to(folder / "data")
    speech.write_clips(folder / "prompts", train=30, held_out=9)
    (folder / "results" / "prompts").symlink_to(folder / "prompts")
    for study, name in (("g2p", "g2p"), ("g2p", "mine"), ("flan-debsyn", "flan-debsyn")):  # weights are not committed
        made = folder / "results" / name
        shutil.copytree(ROOT / "results" / study, made)
        for export in re.findall(r'"checkpoint": ?"([^"]+)"', (made / "certification.json").read_text()):
            (made / export).mkdir(parents=True, exist_ok=True)
    (made / "best").mkdir()
    (made / "best" / "70pct").symlink_to(folder / "t5")
    (folder / "results" / "multi30k-en-de").symlink_to(ROOT / "results" / "multi30k-en-de")
    return folder


@pytest.fixture
def reader(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Someone who types in that folder; whatever he types stops where its work begins."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    for place, _ in WORK.values():
        module, _, name = place.rpartition(".")
        monkeypatch.setattr(import_module(module), name, begins)
    monkeypatch.setattr("typer.completion.install", begins)  # it writes into the shell's own files
    parse = argparse.ArgumentParser.parse_args

    def parsed(parser: argparse.ArgumentParser, *given: Any) -> NoReturn:
        parse(parser, *given)
        raise Work

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    monkeypatch.delenv("NASH_SEARCH_STORAGE", raising=False)
    yield home


def meant(words: list[str]) -> list[str]:
    """What a reader types where a page has a name that stands for his own."""
    return [said for word in words for said in MEANT.get(word, [word])]


def typed(words: list[str], patch: pytest.MonkeyPatch, error: Any) -> None:
    """Type one command; fails where a reader would be refused."""
    program, *given = words
    if program == "make":
        of_make(words, patch, error)
    elif program.endswith("nash-search"):
        of_nash_search(given, error)
    elif words[1] == "-m" and words[2].split(".")[0] == "experiments":
        module = "experiments.__main__" if words[2] == "experiments" else words[2]
        patch.setattr("sys.argv", [words[2], *(word.replace("FOLDER", "data") for word in words[3:])])
        with pytest.raises(Work):
            code = import_module(module).main()
            raise AssertionError(f"{shlex.join(words)}: {code}: {error()}")
    elif program == "pip":  # on no index yet, so a page installs the clone; its extras are looked up
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert given[0] == "install" and given[1].startswith("."), shlex.join(words)
        assert Requirement(project["name"] + given[1][1:]).extras <= set(project["optional-dependencies"])
    elif (
        program == "ray"
    ):  # tests/search/test_ray_cluster.py starts one; here its parser alone, for its ports are its own
        from ray.scripts.scripts import cli

        cli.commands[given[0]].make_context(given[0], given[1:])
    elif program == "export":
        name, _, value = given[0].partition("=")
        patch.setenv(name, value)
        assert name != "NASH_SEARCH_STORAGE" or storage() == value
    else:
        raise AssertionError(f"nothing here knows {program}, which a page shows: {shlex.join(words)}")


def of_nash_search(given: list[str], error: Any) -> None:
    command = given[0] if given and given[0] in {c.name for c in app.registered_commands} else ""
    words = meant(given)
    for flag in {"--output", "-o"} & set(words):  # the next line has it already
        words[words.index(flag) + 1] += "-anew"
    if command in WORK:
        with pytest.raises(Work):
            code = main(words)
            raise AssertionError(f"{shlex.join(words)}: {code}: {error()}")
    else:
        assert main(words) in (0, 3), f"{shlex.join(words)}: {error()}"


def of_make(words: list[str], patch: pytest.MonkeyPatch, error: Any) -> None:
    """Let make say what it would do, and type that."""
    alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    dry = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, env=alone, capture_output=True, text=True)
    assert dry.returncode == 0, dry.stderr
    if words[1] not in BY_CI and "/" not in words[1]:  # an environment is a folder, made by what makes environments
        line = shlex.split(dry.stdout.splitlines()[-1])
        if line[-2:] != ["-m", "experiments"]:  # the list of studies
            typed(line, patch, error)


def test_a_command_that_stops_here_is_run_to_its_end_elsewhere() -> None:
    assert set(WORK) | {"pick", "init"} == {"", *(command.name for command in app.registered_commands)} - {"search"}
    for command, (_, test) in WORK.items():
        assert re.search(rf'"{command}"' if command else r'"--study"', (ROOT / test).read_text()), (command, test)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_is_understood(
    page: Path, reader: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert languages(page) <= {"sh", "python", "yaml", "text"}, "a block of a language that no test runs"
    names = {c.name for c in app.registered_commands}
    in_sentences = [words for program in ("nash-search", "make", "pip", "ray") for words in spans(page, program)]
    for words in [*shell_lines(page), *in_sentences]:
        if len(words) > 1 and not (len(words) == 2 and words[1] in names):  # a command's name alone is a name
            typed(words, monkeypatch, lambda: capsys.readouterr().err)
    for block in blocks(page, "yaml"):
        (reader / "shown.yaml").write_text(block)
        load_config("shown.yaml")
