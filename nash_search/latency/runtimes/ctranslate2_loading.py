"""The lines that load an artefact of CTranslate2 without this package, as its record and card say them."""

from __future__ import annotations

from nash_search.config import Workload
from nash_search.latency.runtimes.ctranslate2_settings import NAME, Decoding
from nash_search.latency.runtimes.ctranslate2_words import Words


def loading(decoding: Decoding, words: Words, beams: int, workload: Workload) -> tuple[str, ...]:
    """How to write for one input with the engine alone, under the model's own settings."""
    if decoding.is_speech:
        return _speech(decoding, beams, workload)
    plain = Decoding(vocabulary=0, start=0, pad=0, ends=decoding.ends, special=()).options(words)
    own = {name: value for name, value in decoding.options(words).items() if value != plain[name]}
    own |= {"beam_size": beams, "min_decoding_length": decoding.shortest, "max_input_length": 0}
    if beams > 1:  # the end counts in an output's length, by which scores are divided
        own["return_end_token"] = True
    if decoding.longest is not None:
        own["max_decoding_length"] = decoding.longest
    if decoding.first is not None:
        own["target_prefix"] = [words.written([decoding.first])]
    apart = words.source != words.target  # the tokenizer's own lookup knows one side only
    vocabularies = (
        f'words = [json.load(open(f"{{folder}}/{NAME}/{{side}}_vocabulary.json")) for side in ("source", "target")]',
    )
    row = 'tokenizer("an input").input_ids'
    return (
        f"import {'json, ' if apart else ''}ctranslate2, transformers",
        f'engine = ctranslate2.Translator(f"{{folder}}/{NAME}"{_place(workload)}, intra_threads={workload.threads})',
        "tokenizer = transformers.AutoTokenizer.from_pretrained(folder)",
        *(vocabularies if apart else ()),
        f"options = dict({', '.join(f'{name}={value!r}' for name, value in own.items())})",
        f"row = [words[0][token] for token in {row}]" if apart else f"row = tokenizer.convert_ids_to_tokens({row})",
        "found = engine.translate_batch([row], **options)[0].hypotheses[0]",
        "ids = [words[1].index(word) for word in found]" if apart else "ids = tokenizer.convert_tokens_to_ids(found)",
        "print(tokenizer.decode(ids, skip_special_tokens=True))",
    )


def _speech(decoding: Decoding, beams: int, workload: Workload) -> tuple[str, ...]:
    """The lines of a model that hears; what is longer than its window is refused, not cut."""
    plain = Decoding(vocabulary=0, start=0, pad=0, ends=decoding.ends, special=(), window=decoding.window)
    neutral, options = plain.options(NO_WORDS), decoding.options(NO_WORDS)
    del options["suppress_tokens"]  # the engine's config.json has them, and they are its default
    own = {name: value for name, value in options.items() if value != neutral[name]}
    own |= {"beam_size": beams}
    if decoding.longest is not None:
        own["max_length"] = decoding.max_length(decoding.longest)
    assert decoding.window is not None
    frames, prompt = decoding.window[1], list(decoding.prompt)
    return (
        "import ctranslate2, soundfile, transformers",
        f'place, threads = f"{{folder}}/{NAME}", {workload.threads}',
        f"engine = ctranslate2.models.Whisper(place{_place(workload)}, intra_threads=threads)",
        "tokenizer = transformers.AutoTokenizer.from_pretrained(folder)",
        "extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)",
        'sound, rate = soundfile.read("clip.wav")  # one channel, at the extractor\'s sampling_rate',
        f'assert len(sound) <= {frames} * extractor.hop_length, "it hears no more"',
        'heard = extractor(sound, sampling_rate=rate, return_tensors="np").input_features.astype("float32")',
        f"options = dict({', '.join(f'{name}={value!r}' for name, value in own.items())})",
        f"found = engine.generate(ctranslate2.StorageView.from_array(heard), [{prompt}], **options)",
        "print(tokenizer.decode(found[0].sequences_ids[0], skip_special_tokens=True))",
    )


def _place(workload: Workload) -> str:
    device, _, index = workload.device.partition(":")
    return "" if device == "cpu" else f", {device!r}, device_index={int(index or 0)}"


NO_WORDS = Words(source=(), target=(), unknown="")
"""Speech goes in as features and comes out as ids."""
