"""What is written by path takes its name whole or not at all, and reaches the disk before the name does."""

from __future__ import annotations

import os
import time

import pytest

from nash_search import files


def fill(path, text):
    """One file, or a folder with one in a folder."""
    if path.is_dir():
        (path / "deep").mkdir()
        path = path / "deep" / "file"
    path.write_text(text)


def texts(path):
    return {p.relative_to(path).as_posix(): p.read_text() for p in path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("staged", [files.staged_file, files.staged_folder])
def test_a_reader_sees_the_old_until_the_new_is_whole(staged, tmp_path):
    target = tmp_path / "name"
    seen = []
    for text in ("old", "new"):
        with staged(target, durable=True) as scratch:
            fill(scratch, text)
            seen.append([words for name, words in texts(tmp_path).items() if name.startswith("name")])
    assert seen == [[], ["old"]]
    assert list(texts(tmp_path).values()) == ["new"]


@pytest.mark.parametrize("staged", [files.staged_file, files.staged_folder])
def test_an_error_leaves_the_old_and_no_litter(staged, tmp_path):
    target = tmp_path / "name"
    with staged(target, durable=False) as scratch:
        fill(scratch, "old")
    with pytest.raises(RuntimeError), staged(target, durable=False) as scratch:
        fill(scratch, "half")
        raise RuntimeError
    assert list(texts(tmp_path).values()) == ["old"] and [p.name for p in tmp_path.iterdir()] == ["name"]


@pytest.mark.parametrize("staged", [files.staged_file, files.staged_folder])
def test_a_durable_one_is_synced_before_it_takes_the_name_and_its_folder_after(staged, tmp_path, monkeypatch):
    target, synced = tmp_path / "name", []
    for name in ("fsync_file", "fsync_folder"):
        own = getattr(files, name)
        monkeypatch.setattr(files, name, lambda path, own=own: (own(path), synced.append((path.name, target.exists()))))
    with staged(target, durable=True) as scratch:
        fill(scratch, "text")
    inside = ["deep", "file", scratch.name] if staged is files.staged_folder else [scratch.name]
    assert synced == [*((name, False) for name in inside), (tmp_path.name, True)]
    synced.clear()
    with staged(target, durable=False) as scratch:
        fill(scratch, "text")
    assert not synced


@pytest.mark.parametrize("folder", [False, True])
def test_what_is_whole_takes_the_place_of_what_had_the_name(tmp_path, folder):
    path, scratch = tmp_path / "name", tmp_path / ".scratch"
    for place, text in ((path, "old"), (scratch, "new")):
        if folder:
            place.mkdir()
        fill(place, text)
    files.take_place(scratch, path, durable=True)
    assert set(texts(tmp_path).values()) == {"new"} and not scratch.exists()


def test_what_nobody_has_used_for_a_month_leaves_the_cache(tmp_path):
    old, used, other = tmp_path / "tokens-a", tmp_path / "features-b.npy", tmp_path / "recordings"
    old.mkdir()
    (old / "ids").touch()
    other.mkdir()
    used.touch()
    long_ago = time.time() - files.KEPT_S - 60
    for entry in (old, used, other):
        os.utime(entry, (long_ago, long_ago))
    files.mark_used(used, tmp_path / "never-made")
    files.forget_unused(tmp_path)
    assert sorted(tmp_path.iterdir()) == [used, other]


def test_a_user_without_a_home_has_a_cache_folder_too(monkeypatch, tmp_path):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(files.Path, "home", nowhere)
    monkeypatch.setattr(files.tempfile, "gettempdir", lambda: str(tmp_path))
    assert files.cache_folder().is_relative_to(tmp_path)


def test_a_stamp_changes_with_what_a_file_or_a_folder_holds(tmp_path):
    (tmp_path / "deep").mkdir()
    inner = tmp_path / "deep" / "rows.jsonl"
    inner.write_text("one")
    before = files.stamp(str(tmp_path)), files.stamp(str(inner))
    inner.write_text("one, two")
    assert all(a != b for a, b in zip(before, (files.stamp(str(tmp_path)), files.stamp(str(inner))), strict=True))
    assert files.stamp(None) == files.stamp("some/hub-name") == files.stamp("bad\0name") == ()
