"""Checkpoints of a training: all state of the loop as tensors; nothing is pickled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ssdenoise.model import save_tensors

#: Step, learning rate, training loss, validation loss.
History = list[tuple[int, float, float, float]]


def save_checkpoint(
    path: Path,
    key: str,
    step: int,
    seconds: float,
    modules: Mapping[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    history: History,
    losses: Sequence[float],
) -> None:
    """Write weights, Adam's moments, the history and the losses since, and how far and how long the loop has run."""
    tensors = {
        f"{module}.{name}": tensor for module, net in modules.items() for name, tensor in net.state_dict().items()
    }
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{name}": value for name, value in state.items()}
    tensors["history"] = torch.tensor(history, dtype=torch.float64)
    tensors["losses"] = torch.tensor(losses, dtype=torch.float64)
    save_tensors(tensors, path, {"key": key, "step": str(step), "seconds": str(seconds)})


def load_checkpoint(
    path: Path, key: str, modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer
) -> tuple[int, float, History, list[float]]:
    """Step, seconds, history and losses to go on from; zero for a checkpoint of other options, inputs or code."""
    if not path.is_file():
        return 0, 0.0, [], []
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    if metadata.get("key") != key:
        return 0, 0.0, [], []
    tensors = load_file(path)
    for module, net in modules.items():
        prefix = f"{module}."
        net.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("adam."):
            _, index, field = name.split(".")
            state.setdefault(int(index), {})[field] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    history = [(int(row[0]), *row[1:]) for row in tensors["history"].tolist()]
    return int(metadata["step"]), float(metadata["seconds"]), history, tensors["losses"].tolist()
