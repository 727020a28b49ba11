"""Export: a model as a package of the BioImage Model Zoo, whose ONNX file runs without this software."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from ssdenoise.errors import ConfigError, FormatError
from ssdenoise.export.graph import DENOISED, NOISY, UNCERTAINTY, InIntensities, sample_image, verify_onnx, write_onnx
from ssdenoise.export.package import default_name, readme, write_package
from ssdenoise.methods import TrainedMethod
from ssdenoise.model import load_model
from ssdenoise.provenance import read_json
from ssdenoise.store import Volume


def export(
    model: Path, noisy: Path, output: Path, *, authors: Sequence[str], license: str, name: str | None = None
) -> Path:
    """Write a model as a package of the BioImage Model Zoo.

    Its network is one ONNX graph from intensities to intensities: normalisation, noise parameters and posterior are
    inside, so that who runs it passes voxels as they are. Sizes are free, in multiples of the stride.

    Parameters
    ----------
    model : Path
        Folder of a trained model.
    noisy : Path
        Store of a noisy volume, the middle of which becomes the package's test image.
    output : Path
        A file that ends in `.zip`, or a folder; neither may exist.
    authors : sequence of str
        Who made the model.
    license : str
        SPDX identifier of the licence that the model is given under, e.g. ``CC-BY-4.0``.
    name : str, optional
        Name of the model; letters, digits, spaces and ``_+-()``.

    Returns
    -------
    Path
        `output`.

    Raises
    ------
    ConfigError
        If the method has no network, the packages for the export are not installed, the output exists, or the
        specification refuses a name or a licence.
    FormatError
        If the volume does not have the model's channels.
    """
    _require_packages()
    if output.exists():
        raise ConfigError(f"{output} exists already; remove it, or write to another place")
    loaded, volume, description = load_model(model), Volume(noisy), read_json(model / "model.json")
    if not isinstance(loaded.method, TrainedMethod):
        raise ConfigError(f"{model} holds {loaded.method.name}, which has no network; only trained models are exported")
    if loaded.channels != volume.shape[1]:
        raise FormatError(f"{volume.path} has {volume.shape[1]} channels, the model {model} {loaded.channels}")
    graph = InIntensities(loaded)
    image = sample_image(volume, loaded)
    with torch.no_grad():
        expected = [part.numpy() for part in graph(torch.from_numpy(image))]
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        write_onnx(graph, loaded, folder / "weights.onnx")
        verify_onnx(folder / "weights.onnx", loaded, image, expected)
        for tensor, values in zip((NOISY, DENOISED, UNCERTAINTY), (image, *expected), strict=False):
            np.save(folder / f"{tensor}.npy", values)
        name = name or default_name(description)
        (folder / "README.md").write_text(readme(loaded, description, name))
        write_package(folder, output, loaded, volume, description, name=name, authors=authors, license=license)
    return output


def _require_packages() -> None:
    """Say which of the packages is missing that only the export needs."""
    for name in ("onnx", "onnxruntime", "onnxscript", "bioimageio.spec"):
        try:
            import_module(name)
        except ImportError:
            raise ConfigError(f"export needs {name}; `pip install ssdenoise[export]`") from None
