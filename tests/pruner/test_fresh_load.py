"""Exports load in fresh offline processes, in the three ways a user has, to the same logits.

One process loads every family after `import nash_search.modeling_nash`. In the other `nash_search` cannot be imported:
it loads stock folders by plain `from_pretrained`, narrow ones with `trust_remote_code=True`. Both save the narrow
ones again, and what they saved is loaded once more in the second.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import KINDS, batch_of, logits_of, model_of, some_kept

from nash_search.pruner import cut, save, shorten
from nash_search.pruner.distillation import source_of

LOADER = """
import sys
way, root, folders = sys.argv[1], sys.argv[2], sys.argv[3:]
if way == "imported":
    import nash_search.modeling_nash
else:
    sys.modules["nash_search"] = None
import torch, transformers
from safetensors.torch import load_file, save_file
transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
batches = {name: load_file(root + f"/{name}.safetensors") for name in ("text", "speech")}
found = {}
for folder in folders:
    options = {} if way == "imported" or folder.endswith("-stock") else {"trust_remote_code": True}
    speech = "whisper" in folder
    auto = transformers.AutoModelForSpeechSeq2Seq if speech else transformers.AutoModelForSeq2SeqLM
    model = auto.from_pretrained(root + "/" + folder, **options).eval()
    batch = dict(batches["speech" if speech else "text"])
    with torch.no_grad():
        found[folder] = model(**batch).logits.contiguous()
        del batch["labels"]
        tokens = model.generate(**batch, max_new_tokens=6)
    found[folder + ".tokens"] = tokens.contiguous()
    if not folder.startswith("again"):
        model.save_pretrained(root + "/again-" + way + "-" + folder)
save_file(found, root + "/" + way + ".safetensors")
"""


def load_fresh(way, root, folders):
    """Logits by folder, from a new process without network and without caches."""
    environment = {
        "PATH": os.environ["PATH"],
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(root / "empty"),
        "HF_MODULES_CACHE": str(root / "modules"),
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p) if way == "imported" else "",
    }
    command = [sys.executable, "-c", LOADER, way, str(root), *folders]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(root / f"{way}.safetensors")


@pytest.mark.slow
def test_exports_load_in_fresh_offline_processes(tmp_path):
    expected, narrow, stock = {}, [], []
    save_file(batch_of(), tmp_path / "text.safetensors")
    save_file(batch_of(kind="whisper"), tmp_path / "speech.safetensors")
    for kind in KINDS:
        batch = batch_of(kind=kind)
        short = shorten(model_of(kind), 2)
        for model, name, names in ((short, f"{kind}-stock", stock), (cut(short, *some_kept(short)), kind, narrow)):
            save(model, tmp_path / name)
            names.append(name)
            expected[name] = logits_of(model, batch)
            expected[f"{name}.tokens"] = model.generate(**source_of(batch), max_new_tokens=6)
    again = [f"again-{way}-{name}" for way in ("imported", "trusted") for name in narrow]
    for way, folders in (("imported", narrow + stock), ("trusted", stock + narrow + again)):
        found = load_fresh(way, tmp_path, folders)
        assert set(found) == {name + tail for name in folders for tail in ("", ".tokens")}
        for name, tensor in found.items():
            source = name.split("-", 2)[2] if name.startswith("again") else name
            assert torch.equal(tensor, expected[source]), (way, name)
