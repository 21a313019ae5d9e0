"""A large split is tokenised once on a machine: the next process maps the same ids."""

import multiprocessing
import os

import numpy as np
import pytest

from nash_search.files import cache_folder
from nash_search.tasks import g2p, kept_tokens, task
from nash_search.tasks.kept_tokens import encode_once

TEXTS = ["cat", "a", "", "horses", "dog", "bird"]


@pytest.fixture(autouse=True)
def few_are_many(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kept_tokens, "LEAST_TEXTS", 3)
    monkeypatch.setattr(task, "AT_ONCE", 4)


def kept():
    return sorted(path.name for path in cache_folder().glob("tokens-*"))


@pytest.fixture
def asked(monkeypatch):
    """How many texts each call of a tokenizer had."""
    once, seen = task._encoded, []
    monkeypatch.setattr(task, "_encoded", lambda t, some, *rest: seen.append(len(some)) or once(t, some, *rest))
    return seen


def test_the_second_time_nothing_is_tokenised_and_the_ids_lie_in_a_file(asked):
    tokens = g2p.build_tokenizer()
    first = encode_once(tokens, TEXTS, None)
    assert asked == [4, 2]
    second = encode_once(g2p.build_tokenizer(), TEXTS, None)
    assert asked == [4, 2] and len(kept()) == 1
    assert first == second == task.encode(tokens, TEXTS, None)
    assert all(isinstance(rows.ids, np.memmap) and not rows.ids.flags.writeable for rows in (first, second, first[2:4]))
    assert first.padded(np.array([3, 0]), 0)[0].tolist() == [[*first[3]], [*first[0], 0, 0, 0]]


def test_whatever_changes_the_ids_is_another_entry(asked):
    tokens = g2p.build_tokenizer()
    other = g2p.build_tokenizer()
    other.add_tokens(["horses"])
    from_the_end = g2p.build_tokenizer()
    from_the_end.truncation_side = "left"
    questions = [
        (tokens, TEXTS, None, False),
        (tokens, TEXTS, 3, False),
        (from_the_end, TEXTS, 3, False),
        (tokens, TEXTS, None, True),
        (other, TEXTS, None, False),
        (tokens, [*TEXTS[1:], TEXTS[0]], None, False),
        (tokens, ["ca", "ta", *TEXTS[2:]], None, False),
    ]
    for n, (who, texts, most, target) in enumerate(questions, 1):
        assert encode_once(who, texts, most, as_target=target) == task.encode(who, texts, most, as_target=target)
        assert len(kept()) == n


def test_a_tokenizer_that_was_asked_for_less_before_is_the_same_one(asked):
    tokens = g2p.build_tokenizer()
    encode_once(tokens, TEXTS, None)
    tokens(TEXTS, truncation=True, max_length=2, padding=True)  # leaves both in the tokenizer's own state
    encode_once(tokens, TEXTS, None)
    assert asked == [4, 2] and len(kept()) == 1


def test_the_language_a_text_is_written_in_is_part_of_it(tmp_path):
    """NLLB puts the language's own token before the text, in its post-processor and in `src_lang`."""
    from transformers import NllbTokenizer

    vocabulary = {w: i for i, w in enumerate(["<s>", "<pad>", "</s>", "<unk>", "▁", "a", "eng_Latn", "deu_Latn"])}
    tokens = NllbTokenizer(
        vocab=vocabulary,
        merges=[],
        src_lang="eng_Latn",
        tgt_lang="deu_Latn",
        extra_special_tokens=["eng_Latn", "deu_Latn"],
    )
    english, target = encode_once(tokens, ["a"] * 3, None), encode_once(tokens, ["a"] * 3, None, as_target=True)
    tokens.src_lang = "deu_Latn"
    german = encode_once(tokens, ["a"] * 3, None)
    assert english[0][0] == 6 and german[0][0] == 7 and target[0][0] == 7 and len(kept()) == 3


def test_few_texts_and_a_tokenizer_that_cannot_say_what_it_is_are_not_kept(monkeypatch):
    tokens = g2p.build_tokenizer()
    assert encode_once(tokens, TEXTS[:2], None) == task.encode(tokens, TEXTS[:2], None)
    monkeypatch.setattr(type(tokens), "is_fast", False)
    assert encode_once(tokens, TEXTS, None) == task.encode(tokens, TEXTS, None)
    assert not kept()


@pytest.mark.parametrize("broken", [kept_tokens.IDS, kept_tokens.LENGTHS])
def test_a_file_cut_short_is_made_again(asked, broken):
    tokens = g2p.build_tokenizer()
    found = list(encode_once(tokens, TEXTS, None))
    (folder,) = cache_folder().glob("tokens-*")
    (folder / broken).write_bytes((folder / broken).read_bytes()[:-4])
    assert encode_once(tokens, TEXTS, None) == found and asked == [4, 2, 4, 2]


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    tokens = g2p.build_tokenizer()
    assert encode_once(tokens, TEXTS, None) == task.encode(tokens, TEXTS, None)


def test_texts_of_no_token_at_all_are_kept():
    tokens = g2p.build_tokenizer()
    tokens.backend_tokenizer.post_processor = None
    found = [encode_once(tokens, [""] * 3, None) for _ in range(2)]
    assert found == [[[], [], []]] * 2 and len(kept()) == 1


def _worker(start, done, calls):
    once = task._encoded

    def counted(*given):
        with calls:
            calls.value += 1
        return once(*given)

    task._encoded = counted  # this process's own
    start.wait()
    rows = encode_once(g2p.build_tokenizer(), TEXTS, None)
    task._encoded = once
    done.put((rows == task.encode(g2p.build_tokenizer(), TEXTS, None), isinstance(rows.ids, np.memmap)))


def test_of_workers_that_begin_together_one_tokenises(tmp_path):
    """Forked, for they then have this test's settings."""
    fork = multiprocessing.get_context("fork")
    start, done, calls = fork.Event(), fork.Queue(), fork.Value("i", 0)
    workers = [fork.Process(target=_worker, args=(start, done, calls)) for _ in range(3)]
    for worker in workers:
        worker.start()
    start.set()
    assert [done.get(timeout=60) for _ in workers] == [(True, True)] * 3 and len(kept()) == 1
    assert calls.value == 2  # both parts of the texts, once
    for worker in workers:
        worker.join()


def test_an_entry_that_is_used_stays_and_one_that_is_not_goes_when_another_is_made(asked):
    tokens = g2p.build_tokenizer()
    for most in (None, 2):
        encode_once(tokens, TEXTS, most)
    for name in kept():
        os.utime(cache_folder() / name, (0, 0))
    encode_once(tokens, TEXTS, 2)
    rows = encode_once(tokens, TEXTS, 3)
    assert len(kept()) == 2 and rows == task.encode(tokens, TEXTS, 3)
    assert encode_once(tokens, TEXTS, 2) == task.encode(tokens, TEXTS, 2) and len(kept()) == 2
