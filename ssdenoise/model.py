"""A trained model on disk: safetensors for the weights, JSON for everything else; nothing is ever unpickled."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
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
        If the JSON describes no model, or the weights do not fit the network that it describes.
    """
    description, weights = folder / "model.json", folder / "model.safetensors"
    for path in (description, weights):
        if not path.is_file():
            raise MissingInputError(f"no {path}; train the model first")
    method, value = read_description(description)
    try:
        channels, ndim = int(value["channels"]), int(value["ndim"])
        normalization = Normalization(**{k: tuple(v) for k, v in value["normalization"].items()})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _undescribed(description, f"{type(error).__name__}: {error}") from None
    # the true parameters of the noise are buffers among the weights
    net = method.build(channels, ndim, [placeholder_noise()] * channels)
    try:
        net.load_state_dict(load_file(weights))
    except SafetensorError as error:
        raise FormatError(f"{weights} cannot be read ({error}); train the model again") from None
    except RuntimeError as error:
        raise FormatError(f"{weights} does not fit {description}: {' '.join(str(error).split())}") from None
    net.eval()
    # only what inference depends on: the JSON also holds times and paths
    key = digest(file_digest(weights), json.dumps([value["method"], value["normalization"], value["ndim"]]))
    return Model(method, net, channels, ndim, normalization, key)


def read_description(path: Path) -> tuple[Method, dict[str, Any]]:
    """The method of a `model.json`, and all that it says.

    Raises
    ------
    FormatError
        If it names no method with options that there are.
    """
    value = read_json(path)
    try:
        return METHODS[value["method"]["name"]].model_validate(value["method"]), value
    except ValidationError as error:
        fault = error.errors()[0]
        raise _undescribed(path, f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None
    except (KeyError, TypeError) as error:
        raise _undescribed(path, f"{type(error).__name__}: {error}") from None


def _undescribed(path: Path, fault: str) -> FormatError:
    return FormatError(
        f"{path} describes no model that this version of ssdenoise knows ({fault}); train it again, or take the "
        "version that trained it"
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
