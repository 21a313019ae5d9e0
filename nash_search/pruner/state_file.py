"""The one file that a killed training continues from: parameters, the optimizer's moments, and JSON beside them.

    state = StateFile(path=..., question=...)      snapshot -> write -> (killed) -> read -> restore

In safetensors, renamed into place when it is whole and on the disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from nash_search.files import staged_file


@dataclass(kw_only=True)
class StateFile:
    """Where a training is kept, and what is kept beside its parameters.

    Args:
        path: where; the folder is made when first needed.
        question: what is being trained; a file that answers another question is ignored.
        every_s: seconds of training between saves, and at least `training.SAVE_SPACING` times what the last one took;
            0 saves after every step.
        details: JSON kept beside the tensors for whoever resumes.
        also: tensors that a resume needs beside parameters and moments, restored in place.
    """

    path: Path
    question: str
    every_s: float = 20.0
    details: dict[str, Any] = field(default_factory=dict)
    also: dict[str, torch.Tensor] = field(default_factory=dict)

    def header(self) -> dict[str, Any] | None:
        """What is said beside the tensors, or None when there is nothing (for this question) to continue from."""
        if not self.path.is_file():
            return None
        with safe_open(self.path, framework="pt") as file:
            header: dict[str, Any] = json.loads((file.metadata() or {}).get("nash_search", "{}"))
        return header if header.get("question") == self.question else None

    def read(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
        """Header and tensors, or None as above; `also` is restored."""
        header = self.header()
        if header is None:
            return None
        with safe_open(self.path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        for name, tensor in self.also.items():
            tensor.copy_(tensors[f"also.{name}"])
        return header, tensors

    def write(self, header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Replace the file, durably."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"question": self.question, "details": self.details, **header})
        tensors = tensors | {f"also.{name}": tensor for name, tensor in self.also.items()}
        kept = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        with staged_file(self.path, durable=True) as staging:
            save_file(kept, staging, metadata={"nash_search": text})


def snapshot(parameters: Iterable[torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Parameters by number, and their moments by number and name."""
    tensors: dict[str, torch.Tensor] = {}
    for index, parameter in enumerate(parameters):
        tensors[f"{index}"] = parameter.data
        for name, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{index}.{name}"] = value
    return tensors


@torch.no_grad()
def restore(
    parameters: Iterable[torch.nn.Parameter], optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]
) -> None:
    """What `snapshot` gave, put back in place."""
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        if key and number != "also":
            moments.setdefault(int(number), {})[key] = tensor
    for index, parameter in enumerate(parameters):
        parameter.copy_(tensors[str(index)])
        if index in moments:
            optimizer.state[parameter] = {k: v.to(parameter.device) for k, v in moments[index].items()}
