"""A finished folder exists whole or not at all."""

import os
import shutil

import pytest
import torch
from safetensors.torch import save_file

from nash_search.files import write_atomic
from nash_search.storage import artifacts


@pytest.fixture
def finished(tmp_path):
    scratch = tmp_path / ".tmp-a"
    (scratch / "weights").mkdir(parents=True)
    (scratch / "weights" / "model.bin").write_bytes(b"x" * 1000)
    (scratch / "record.json").write_text("{}")
    artifacts.commit(scratch, tmp_path / "a", {"question": "q"})
    return tmp_path / "a"


def test_a_commit_names_every_file_and_leaves_no_scratch(finished):
    found = artifacts.read(finished)
    assert set(found["files"]) == {"record.json", "weights/model.bin"} and found["question"] == "q"
    assert not (finished.parent / ".tmp-a").exists()


@pytest.mark.parametrize("damage", ["altered", "shorter", "missing", "no manifest", "manifest cut"])
def test_any_damage_is_seen(finished, damage):
    path = finished / "weights" / "model.bin"
    if damage == "altered":
        path.write_bytes(b"y" * 1000)
    elif damage == "shorter":
        path.write_bytes(b"x" * 999)
    elif damage == "missing":
        path.unlink()
    elif damage == "no manifest":
        (finished / artifacts.NAME).unlink()
    else:
        text = (finished / artifacts.NAME).read_text()
        (finished / artifacts.NAME).write_text(text[: len(text) // 2])
    assert artifacts.read(finished) is None


def test_a_whole_folder_wins_over_a_second_one_and_a_damaged_one_is_replaced(finished, tmp_path):
    again = tmp_path / ".tmp-a"
    again.mkdir()
    (again / "record.json").write_text('{"second": 1}')
    artifacts.commit(again, finished, {})
    assert (finished / "record.json").read_text() == "{}" and not again.exists()
    (finished / "record.json").unlink()
    again.mkdir()
    (again / "record.json").write_text('{"second": 1}')
    artifacts.commit(again, finished, {})
    assert (finished / "record.json").read_text() == '{"second": 1}'


def test_dropped_weights_leave_a_valid_folder(finished):
    artifacts.drop(finished, "weights/")
    assert artifacts.read(finished)["dropped"] == ["weights/"]
    assert not (finished / "weights").exists() and (finished / "record.json").exists()


def test_weights_that_go_are_not_read(finished):
    """They may be gigabytes; a changed byte in them is no reason to keep them."""
    (finished / "weights" / "model.bin").write_bytes(b"y" * 1000)
    artifacts.drop(finished, "weights/")
    assert artifacts.read(finished)["dropped"] == ["weights/"]
    assert not (finished / "weights").exists()
    (finished / artifacts.NAME).write_text("[]")
    artifacts.drop(finished, "record")
    assert (finished / "record.json").exists()


def test_a_failed_write_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "f.json"
    write_atomic(path, "old")
    assert path.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["f.json"]


def test_no_symbolic_link_is_followed_on_writing(tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "f.json").symlink_to(target)
    write_atomic(tmp_path / "f.json", "new")
    assert target.read_text() == "mine" and not (tmp_path / "f.json").is_symlink()


def test_a_second_folder_is_the_same_files_and_outlives_the_first(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "SMALL_BYTES", 1000)
    first, second, copied = finished / "weights" / "model.bin", tmp_path / "second", tmp_path / "copied"
    assert artifacts.second_bytes([finished], tmp_path) == 0
    artifacts.second(finished, second)
    assert os.path.samefile(first, second / "weights" / "model.bin")
    assert first.stat().st_mode & 0o222 == 0, "nobody writes into both at once"
    assert not os.path.samefile(finished / "record.json", second / "record.json"), "small files are copied"
    (second / "record.json").write_text("other")
    save_file({"x": torch.ones(1000)}, tmp_path / "new")
    os.replace(tmp_path / "new", second / "weights" / "model.bin")
    assert artifacts.read(finished) is not None, "replacing one leaves the other as it is"
    monkeypatch.setattr(os, "link", lambda *a, **k: (_ for _ in ()).throw(OSError(18, "Invalid cross-device link")))
    assert artifacts.second_bytes([finished, finished], tmp_path) == 2000
    artifacts.second(finished, copied)
    assert not os.path.samefile(first, copied / "weights" / "model.bin")
    shutil.rmtree(finished)
    assert (copied / "weights" / "model.bin").read_bytes() == b"x" * 1000
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")], "no litter"


def test_saving_weights_over_a_linked_file_leaves_the_other_name_alone(tmp_path):
    (tmp_path / "a").mkdir()
    save_file({"x": torch.zeros(2**21)}, tmp_path / "a" / "model.safetensors")
    before = (tmp_path / "a" / "model.safetensors").read_bytes()
    artifacts.second(tmp_path / "a", tmp_path / "b")
    assert os.path.samefile(tmp_path / "a" / "model.safetensors", tmp_path / "b" / "model.safetensors")
    save_file({"x": torch.ones(2**21)}, tmp_path / "b" / "model.safetensors")
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == before
