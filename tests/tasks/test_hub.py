"""A hub on loopback: the real libraries ask it for a model by id and revision, and for a dataset by its splits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import datasets
import pytest

from nash_search.config import DATA_FORMATS, TaskConfig
from nash_search.errors import InvalidInput
from nash_search.tasks import hub
from nash_search.tasks.data import _read_texts, read_texts
from nash_search.tasks.g2p import teacher_folder
from tests.patience import NEVER_S

COMMITS = {"main": "a" * 40, "v2": "b" * 40}
"""Revisions of `somebody/speller`; only `v2` holds weights."""


class Hub(BaseHTTPRequestHandler):
    """What `snapshot_download` asks a hub."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        files = {p.name: p for p in teacher_folder().iterdir() if p.is_file()}
        if parts[:4] == ["api", "models", "somebody", "speller"]:
            asked = parts[5] if len(parts) > 5 else "main"
            sha = COMMITS.get(asked, asked if asked in COMMITS.values() else "")
            names = [n for n in files if sha == COMMITS["v2"] or n != "model.safetensors"] + ["evil.py"]
            listed = {"id": "somebody/speller", "sha": sha, "siblings": [{"rfilename": n} for n in names]}
            if "tree" in parts:
                listed = [{"type": "file", "path": n, "size": 1, "oid": n} for n in names]
            self.answer(json.dumps(listed).encode() if sha else None, {"Content-Type": "application/json"})
        elif parts[:3] == ["somebody", "speller", "resolve"] and parts[-1] in files:
            sha, body = COMMITS.get(parts[3], parts[3]), files[parts[-1]].read_bytes()
            self.answer(body, {"ETag": f'"{parts[-1]}"', "X-Repo-Commit": sha})
        else:
            self.answer(None, {})

    def answer(self, body, headers):
        self.send_response(200 if body is not None else 404)
        for name, value in (headers | {"Content-Length": str(len(body or b""))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET" and body:
            self.wfile.write(body)
        self.server.asked.append(self.path)

    def log_message(self, *_):
        pass


@pytest.fixture
def loopback_hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


PROGRAM = """
import sys
from nash_search.errors import InvalidInput
from nash_search.tasks.models import find_model
try:
    found = find_model("somebody/speller", sys.argv[1] or None)
    print(found.model_type, found.decoder_layers, found.folder.name)
except InvalidInput as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("revision", "expected"),
    [
        ("v2", "t5 6 " + COMMITS["v2"]),
        ("", "weights must be model.safetensors, but got none"),
        ("v3", "hub model must be readable"),
    ],
)
def test_a_hub_id_is_fetched_at_its_revision_and_vetted_like_a_folder(loopback_hub, tmp_path, revision, expected):
    kept = {k: v for k, v in os.environ.items() if "OFFLINE" not in k and not k.lower().endswith("_proxy")}
    place = {"HF_ENDPOINT": f"http://127.0.0.1:{loopback_hub.server_port}", "HF_HOME": str(tmp_path)}
    program = [sys.executable, "-c", PROGRAM, revision]
    done = subprocess.run(program, env=kept | place, capture_output=True, text=True, timeout=NEVER_S)
    assert done.stdout.startswith(expected), done.stdout + done.stderr
    assert loopback_hub.asked and not [path for path in loopback_hub.asked if path.endswith("evil.py")]


def test_a_hub_dataset_is_read_by_the_splits_it_has(monkeypatch):
    """The hub's own libraries are not asked here: what they are asked for is what matters."""
    asked = []

    def load(name, config, split):
        asked.append((name, config, split))
        start = {"train": 0, "dev": 1000}[split]
        return datasets.Dataset.from_list([{"en": f"in {start + i}", "de": f"out {i}"} for i in range(60)])

    monkeypatch.setattr(hub, "reachable", lambda: True)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name, config: ["train", "dev"])
    monkeypatch.setattr(datasets, "load_dataset", load)
    task = {"data": "somebody/pairs", "data_config": "en-de", "source_column": "en", "target_column": "de"}
    _read_texts.cache_clear()
    found = read_texts(TaskConfig(**task, validation_split="dev"))
    assert set(asked) == {("somebody/pairs", "en-de", "train"), ("somebody/pairs", "en-de", "dev")}
    assert len(found.validation) == 60 and len(found.train) < 60
    assert any("has no test split" in note for note in found.notes)
    with pytest.raises(InvalidInput, match="validation split must be in the data when it is named, but got 'dve'"):
        read_texts(TaskConfig(**task, validation_split="dve"))
    with pytest.raises(InvalidInput, match="train split must be one of train, dev, but got trian"):
        read_texts(TaskConfig(**task, train_split="trian", validation_split="dev"))
    _read_texts.cache_clear()


@pytest.mark.parametrize("name", DATA_FORMATS)
def test_a_missing_file_of_any_format_is_a_file_and_no_hub_id(name):
    assert hub.is_local(f"missing/train.{name.lower()}")
