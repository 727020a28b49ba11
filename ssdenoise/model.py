"""A trained model on disk: safetensors for the weights, JSON for everything else; nothing is ever unpickled."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save
from torch import Tensor

from ssdenoise.errors import FormatError, MissingInputError
from ssdenoise.intensity import Normalization
from ssdenoise.methods import METHODS, Method, Network
from ssdenoise.noise import ImpulseModel, NoiseModel, NoiseModels
from ssdenoise.provenance import digest, file_digest, read_json


@dataclass(frozen=True)
class Model:
    """A method, its trained network, and what inference needs to know; no config."""

    method: Method
    net: Network
    channels: int
    ndim: int
    normalization: Normalization
    digest: str


def load_model(folder: Path) -> Model:
    """Read `model.json` and `model.safetensors` of a folder.

    Raises
    ------
    MissingInputError
        If one of them is not there.
    FormatError
        If the weights do not fit the network that the JSON describes.
    """
    description, weights = folder / "model.json", folder / "model.safetensors"
    for path in (description, weights):
        if not path.is_file():
            raise MissingInputError(f"no {path}; train the model first")
    value = read_json(description)
    method = METHODS[value["method"]["name"]].model_validate(value["method"])
    # the true parameters of the noise are buffers among the weights
    net = method.build(value["channels"], value["ndim"], [placeholder_noise()] * value["channels"])
    try:
        net.load_state_dict(load_file(weights))
    except RuntimeError as error:
        raise FormatError(f"{weights} does not fit {description}: {' '.join(str(error).split())}") from None
    net.eval()
    # only what inference depends on: the JSON also holds times and paths
    key = digest(file_digest(weights), json.dumps([value["method"], value["normalization"], value["ndim"]]))
    return Model(
        method,
        net,
        value["channels"],
        value["ndim"],
        Normalization(**{k: tuple(v) for k, v in value["normalization"].items()}),
        key,
    )


def placeholder_noise() -> NoiseModels:
    """Noise parameters to build a network with that gets, or needs, others."""
    signal = NoiseModel(0.0, 0.0, 1.0)
    return NoiseModels(signal, signal, signal, ImpulseModel(0.5, 0.0, 1.0))


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write safetensors whole or not at all."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    # `save_file` would make a file that only its owner can read
    partial.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata))
    partial.replace(path)
