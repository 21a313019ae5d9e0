"""A finished folder exists whole or not at all."""

import os

import pytest

from nash_search.search import manifest


@pytest.fixture
def finished(tmp_path):
    scratch = tmp_path / ".tmp-a"
    (scratch / "weights").mkdir(parents=True)
    (scratch / "weights" / "model.bin").write_bytes(b"x" * 1000)
    (scratch / "record.json").write_text("{}")
    manifest.commit(scratch, tmp_path / "a", {"question": "q"})
    return tmp_path / "a"


def test_a_commit_names_every_file_and_leaves_no_scratch(finished):
    found = manifest.read(finished)
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
        (finished / manifest.NAME).unlink()
    else:
        text = (finished / manifest.NAME).read_text()
        (finished / manifest.NAME).write_text(text[: len(text) // 2])
    assert manifest.read(finished) is None


def test_a_whole_folder_wins_over_a_second_one_and_a_damaged_one_is_replaced(finished, tmp_path):
    again = tmp_path / ".tmp-a"
    again.mkdir()
    (again / "record.json").write_text('{"second": 1}')
    manifest.commit(again, finished, {})
    assert (finished / "record.json").read_text() == "{}" and not again.exists()
    (finished / "record.json").unlink()
    again.mkdir()
    (again / "record.json").write_text('{"second": 1}')
    manifest.commit(again, finished, {})
    assert (finished / "record.json").read_text() == '{"second": 1}'


def test_dropped_weights_leave_a_valid_folder(finished):
    manifest.drop(finished, "weights/")
    assert manifest.read(finished)["dropped"] == ["weights/"]
    assert not (finished / "weights").exists() and (finished / "record.json").exists()


def test_a_failed_write_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "f.json"
    manifest.write_atomic(path, "old")
    assert path.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        manifest.write_atomic(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["f.json"]


def test_no_symbolic_link_is_followed_on_writing(tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "f.json").symlink_to(target)
    manifest.write_atomic(tmp_path / "f.json", "new")
    assert target.read_text() == "mine" and not (tmp_path / "f.json").is_symlink()
