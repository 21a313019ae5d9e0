"""Runs where nash-search is not installed: what optimum writes from folders of ours, as JSON.

    python with_optimum.py QUESTION ANSWER

Question: `beams`, `longest` (new tokens), `folders`, by name a folder, token ids padded to one length, and their mask.
Answer: by name and by number of beams the output of each row.
"""

import json
import sys

import torch
from optimum.onnxruntime import ORTModelForSeq2SeqLM


def main(question: str, answer: str) -> None:
    with open(question) as file:
        asked = json.load(file)
    found = {}
    for name, (folder, ids, mask) in asked["folders"].items():
        model = ORTModelForSeq2SeqLM.from_pretrained(folder)
        inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
        found[name] = {
            beams: model.generate(**inputs, num_beams=beams, max_new_tokens=asked["longest"]).tolist()
            for beams in asked["beams"]
        }
    with open(answer, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
