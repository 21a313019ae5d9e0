"""Runs where nash-search is not installed: what CTranslate2's documented usage writes from folders of ours, as JSON.

    python with_ctranslate2.py QUESTION ANSWER

Question: `beams`, `longest` (new tokens); `texts`, by name a folder and texts; `heard`, by name a folder, a file of
features and the prompt's words; `lines`, by name lines of Python; `words`, by name a tokenizer's folder and a text.
Answer: by name and by number of beams the token ids of each output; by name what the lines print, and the text's ids.
"""

import contextlib
import io
import json
import sys

import ctranslate2
import numpy
import transformers


def written(folder: str, texts: list[str], beams: int, longest: int) -> list[list[int]]:
    """As in CTranslate2's guide to transformers."""
    translator = ctranslate2.Translator(f"{folder}/ctranslate2")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    sources = [tokenizer.convert_ids_to_tokens(tokenizer.encode(text)) for text in texts]
    results = translator.translate_batch(sources, beam_size=beams, max_decoding_length=longest)
    return [tokenizer.convert_tokens_to_ids(result.hypotheses[0]) for result in results]


def heard(folder: str, features: str, words: list[str], beams: int, longest: int) -> list[list[int]]:
    """As in the same guide, for Whisper; its `max_length` counts twice."""
    model = ctranslate2.models.Whisper(f"{folder}/ctranslate2")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    sounds = numpy.load(features)
    prompts = [tokenizer.convert_tokens_to_ids(words)] * len(sounds)
    given = ctranslate2.StorageView.from_array(sounds)
    results = model.generate(given, prompts, beam_size=beams, max_length=2 * longest)
    return [result.sequences_ids[0] for result in results]


def printed(lines: list[str]) -> str:
    """What a card's lines print."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec("\n".join(lines), {})
    return out.getvalue()


def main(question: str, answer: str) -> None:
    with open(question) as file:
        asked = json.load(file)
    found = {}
    for ask, of in ((written, "texts"), (heard, "heard")):
        for name, given in asked.get(of, {}).items():
            found[name] = {beams: ask(*given, beams, asked["longest"]) for beams in asked["beams"]}
    found |= {name: printed(lines) for name, lines in asked.get("lines", {}).items()}
    for name, (folder, text) in asked.get("words", {}).items():
        found[name] = transformers.AutoTokenizer.from_pretrained(folder)(text).input_ids
    assert "torch" not in sys.modules and "nash_search" not in sys.modules
    with open(answer, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
