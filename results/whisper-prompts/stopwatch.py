"""A stopwatch that shares no code with nash-search: `python stopwatch.py eager|int8 DENSE EXPORT...`, one thread, 8 tokens.

Each model hears as long a window as its encoder has, noise instead of speech, batch 1. int8 is CTranslate2's, by its own
converter. A process loads one model and does nothing else, as one that serves it; three of each, in turn. For a window of
30 s takes and gives back large blocks of memory at every call, and how many of them the C library hands back to the
kernel depends on what else the process has done (with a converter in it 30 s take 1,310 instead of 1,480 ms in int8).
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time

TOKENS, PROCESSES = 8, 3


def eager(path):
    """A call that writes 8 tokens."""
    import torch
    from transformers import WhisperForConditionalGeneration

    torch.set_num_threads(1)
    model = WhisperForConditionalGeneration.from_pretrained(path).eval()
    heard = torch.randn(1, model.config.num_mel_bins, 2 * model.config.max_source_positions)

    def call():
        with torch.no_grad():
            model.generate(heard, min_new_tokens=TOKENS, max_new_tokens=TOKENS)

    return call


def int8(path):
    """The same by CTranslate2, whose limit counts the prompt's four tokens and stops half way (4.8.5: 16 gives 8)."""
    import ctranslate2
    import numpy as np

    with open(f"{path}/sizes.json") as file:
        bins, positions, end = json.load(file)
    heard = np.random.default_rng(0).standard_normal((1, bins, 2 * positions), dtype=np.float32)
    served = ctranslate2.models.Whisper(path, intra_threads=1, compute_type="int8_float32")
    prompt = [50258, 50259, 50359, 50363]  # start, English, transcribe, no time stamps

    def call():
        sound = ctranslate2.StorageView.from_array(heard)
        found = served.generate(sound, [prompt], beam_size=1, max_length=2 * TOKENS, suppress_tokens=[end])
        assert len(found[0].sequences_ids[0]) == TOKENS, found

    return call


def converted(path, folder):
    """What CTranslate2 loads, in `folder`."""
    from ctranslate2.converters import TransformersConverter
    from transformers import WhisperConfig

    TransformersConverter(path).convert(folder, quantization="int8")
    config = WhisperConfig.from_pretrained(path)
    with open(f"{folder}/sizes.json", "w") as file:
        json.dump([config.num_mel_bins, config.max_source_positions, config.eos_token_id], file)


def timed(engine, path):
    """Median milliseconds of 20 calls; five before them warm up."""
    call, taken_ms = {"eager": eager, "int8": int8}[engine](path), []
    for _ in range(25):
        began = time.perf_counter()
        call()
        taken_ms.append(1e3 * (time.perf_counter() - began))
    return statistics.median(taken_ms[5:])


def main(engine, *paths):
    """Prints each model's median of three processes, and its share of the first model's."""
    taken_ms = {path: [] for path in paths}
    with tempfile.TemporaryDirectory() as scratch:
        served = {path: path if engine == "eager" else f"{scratch}/{index}" for index, path in enumerate(paths)}
        for path, folder in served.items():
            if engine == "int8":
                converted(path, folder)
        for turn in range(PROCESSES):
            for path in paths if turn % 2 == 0 else reversed(paths):
                command = [sys.executable, __file__, "timed", engine, served[path]]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                taken_ms[path].append(float(done.stdout.splitlines()[-1]))
    dense_ms = statistics.median(taken_ms[paths[0]])
    for path, each_ms in taken_ms.items():
        own_ms, each = statistics.median(each_ms), ", ".join(f"{ms:.0f}" for ms in each_ms)
        print(f"{path}: {own_ms:.1f} ms ({each}), {own_ms / dense_ms:.3f} of {paths[0]}")


if __name__ == "__main__":
    if sys.argv[1] == "timed":
        print(timed(*sys.argv[2:]))
    else:
        main(*sys.argv[1:])
