"""Export: a model as a package of the BioImage Model Zoo, whose ONNX file runs without this software."""

from __future__ import annotations

import inspect
import logging
import re
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ssdenoise.errors import ConfigError, FormatError
from ssdenoise.grid import ceil_to
from ssdenoise.methods import Method, TrainedMethod
from ssdenoise.model import Model, load_model
from ssdenoise.provenance import read_json
from ssdenoise.store import Volume

FloatArray = npt.NDArray[np.float32]

NOISY, DENOISED, UNCERTAINTY = "noisy", "denoised", "uncertainty"

#: Version of ONNX's set of operators.
OPSET = 20

#: Most that the ONNX file may differ from the model, in standard deviations of the image.
TOLERANCE = 1e-4


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
    v0_5, onnxruntime = _packages()
    if output.exists():
        raise ConfigError(f"{output} exists already; remove it, or write to another place")
    loaded, volume, description = load_model(model), Volume(noisy), read_json(model / "model.json")
    if not isinstance(loaded.method, TrainedMethod):
        raise ConfigError(f"{model} holds {loaded.method.name}, which has no network; only trained models are exported")
    if loaded.channels != volume.shape[1]:
        raise FormatError(f"{volume.path} has {volume.shape[1]} channels, the model {model} {loaded.channels}")
    graph = InIntensities(loaded)
    image = test_image(volume, loaded)
    with torch.no_grad():
        expected = [part.numpy() for part in graph(torch.from_numpy(image))]
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        write_onnx(graph, loaded, folder / "weights.onnx")
        session = onnxruntime.InferenceSession(folder / "weights.onnx", providers=["CPUExecutionProvider"])
        for ours, theirs in zip(expected, session.run(None, {NOISY: image}), strict=True):
            scale = np.reshape(loaded.normalization.scale, (-1, *(1,) * loaded.ndim))
            worst = float((np.abs(ours - theirs) / scale).max())
            if not worst <= TOLERANCE:
                raise RuntimeError(f"the ONNX file differs from the model by {worst:.1e} standard deviations")
        for tensor, values in zip((NOISY, DENOISED, UNCERTAINTY), (image, *expected), strict=False):
            np.save(folder / f"{tensor}.npy", values)
        name = name or _name(description)
        (folder / "README.md").write_text(_readme(loaded, description, name))
        _package(v0_5, folder, output, loaded, volume, description, name=name, authors=authors, license=license)
    return output


def _packages() -> tuple[Any, Any]:
    """The packages that only the export needs."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
        from bioimageio.spec.model import v0_5
    except ImportError as error:
        raise ConfigError(f"export needs {error.name}; `pip install ssdenoise[export]`") from None
    return v0_5, onnxruntime


class InIntensities(nn.Module):
    """A model as one function of intensities, (B, C, [Z,] Y, X), float32."""

    offset: Tensor
    scale: Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.method, self.net = model.method, model.net
        for name in ("offset", "scale"):
            values = torch.tensor(getattr(model.normalization, name), dtype=torch.float32)
            self.register_buffer(name, values.view(1, -1, *(1,) * model.ndim))

    def forward(self, noisy: Tensor) -> tuple[Tensor, ...]:
        """The denoised image and, from probabilistic methods, its standard deviation."""
        mean, std = self.method.estimate(self.net, (noisy - self.offset) / self.scale)
        mean = mean * self.scale + self.offset
        return (mean,) if std is None else (mean, std * self.scale)


def smallest(model: Model) -> tuple[int, ...]:
    """Smallest size of an input of which a voxel is left when the halo is cropped, ([Z,] Y, X)."""
    return tuple(ceil_to(2 * h + s, s) for h, s in zip(model.net.halo, model.net.stride, strict=True))


def test_image(volume: Volume, model: Model) -> FloatArray:
    """The middle of the volume, (1, C, [Z,] Y, X): a little more than the smallest input, repeated where it is less."""
    sizes = tuple(n + 2 * s for n, s in zip(smallest(model), model.net.stride, strict=True))
    wanted = (1,) * (3 - model.ndim) + sizes
    middle = tuple(slice(max(0, (n - w) // 2), (n + w) // 2) for n, w in zip(volume.shape[2:], wanted, strict=True))
    image = volume.read((slice(0, 1), slice(None), *middle)).astype(np.float32)
    pad = [(0, 0)] * 2 + [(0, w - n) for n, w in zip(image.shape[2:], wanted, strict=True)]
    image = np.pad(image, pad, mode="symmetric")
    return image if model.ndim == 3 else image[:, :, 0]


def write_onnx(graph: InIntensities, model: Model, path: Path) -> None:
    """Trace the graph with free sizes."""
    strides = model.net.stride
    sizes = [n + s for n, s in zip(smallest(model), strides, strict=True)]
    example = torch.zeros(2, model.channels, *sizes) + graph.offset
    free = {0: torch.export.Dim("batch")}
    for axis, stride in enumerate(strides, 2):
        units = torch.export.Dim(f"size{axis}", min=1)
        free[axis] = stride * units if stride > 1 else units
    for chatty in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            dynamic_shapes=(free,),
            input_names=[NOISY],
            output_names=[DENOISED, UNCERTAINTY] if model.method.probabilistic else [DENOISED],
        )
    assert program is not None
    for part in (program.model.graph, *program.model.functions.values()):
        for node in part:
            node.metadata_props.clear()  # where each line of code lies on this machine
    program.save(path)


def _package(
    v0_5: Any,
    folder: Path,
    output: Path,
    model: Model,
    volume: Volume,
    description: dict[str, Any],
    *,
    name: str,
    authors: Sequence[str],
    license: str,
) -> None:
    """Describe the files of a folder as the zoo asks, check the description, and write all to the output."""
    from bioimageio.spec import save_bioimageio_package, save_bioimageio_package_as_folder
    from bioimageio.spec.common import FileDescr
    from pydantic import ValidationError

    def file(name: str) -> Any:
        return FileDescr(source=folder / name)

    tolerance = v0_5.ReproducibilityTolerance(
        relative_tolerance=1e-3, absolute_tolerance=TOLERANCE * max(model.normalization.scale)
    )
    outputs = [(DENOISED, "denoised intensities")]
    if model.method.probabilistic:
        outputs.append((UNCERTAINTY, "standard deviation of the denoised intensities"))
    try:
        made = v0_5.ModelDescr(
            name=name,
            description=f"Denoises images like those it was trained on, by {model.method.name}.",
            authors=[v0_5.Author(name=author) for author in authors],
            license=license,
            documentation=file("README.md"),
            tags=["denoising", "self-supervised", model.method.name, f"{model.ndim}d"],
            cite=[v0_5.CiteEntry(text=text, url=url) for text, url in citations(model.method)],
            inputs=[
                v0_5.InputTensorDescr(
                    id=NOISY,
                    description="noisy intensities, as they are",
                    axes=_axes(v0_5, model, volume, None),
                    test_tensor=file(f"{NOISY}.npy"),
                )
            ],
            outputs=[
                v0_5.OutputTensorDescr(
                    id=tensor,
                    description=what,
                    axes=_axes(v0_5, model, volume, NOISY),
                    test_tensor=file(f"{tensor}.npy"),
                )
                for tensor, what in outputs
            ],
            weights=v0_5.WeightsDescr(onnx=v0_5.OnnxWeightsDescr(source=folder / "weights.onnx", opset_version=OPSET)),
            config=v0_5.Config(
                bioimageio=v0_5.BioimageioConfig(
                    task="denoising",
                    model_parameter_count=description["parameters"],
                    reproducibility_tolerance=[tolerance],
                ),
                ssdenoise=description["provenance"],
            ),
        )
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise ConfigError(f"the specification of the BioImage Model Zoo refuses {faults[0]}") from None
    save = save_bioimageio_package if output.suffix == ".zip" else save_bioimageio_package_as_folder
    output.parent.mkdir(parents=True, exist_ok=True)
    save(made, output_path=output)


def _axes(v0_5: Any, model: Model, volume: Volume, like: str | None) -> list[Any]:
    """Axes of the input or, with `like` the input's name, of an output."""
    axes: list[Any] = [v0_5.BatchAxis(), v0_5.ChannelAxis(channel_names=list(volume.metadata.channels))]
    voxel = volume.metadata.voxel_size_um
    lengths = smallest(model)
    for i, axis in enumerate("zyx"[-model.ndim :]):
        space: dict[str, Any] = {"id": axis}
        if voxel:
            space |= {"unit": "micrometer", "scale": voxel[i - model.ndim]}
        if like is None:
            size = v0_5.ParameterizedSize(min=lengths[i], step=model.net.stride[i])
            axes.append(v0_5.SpaceInputAxis(size=size, **space))
            continue
        size = v0_5.SizeReference(tensor_id=like, axis_id=axis)
        halo = model.net.halo[i]
        axes.append(
            v0_5.SpaceOutputAxisWithHalo(halo=halo, size=size, **space)
            if halo
            else v0_5.SpaceOutputAxis(size=size, **space)
        )
    return axes


def citations(method: Method) -> list[tuple[str, str]]:
    """Papers of a method and where they are, from its docstring."""
    text = inspect.getdoc(type(method)) or ""
    entries = [" ".join(entry.split()) for entry in re.split(r"\.\. \[\d+\]", text)[1:]]
    found = [(entry, re.search(r"arXiv:(\d{4}\.\d{4,5})", entry)) for entry in entries]
    return [(entry, f"https://arxiv.org/abs/{match[1]}") for entry, match in found if match]


def _name(description: dict[str, Any]) -> str:
    spec = description["provenance"]["spec"]
    return re.sub(r"[^A-Za-z0-9_+() -]", "-", f"{spec['method']['name']} of {spec['dataset']} {spec['noise']}")


def _readme(model: Model, description: dict[str, Any], name: str) -> str:
    """The documentation that the package carries."""
    axes = "ZYX"[-model.ndim :]
    provenance = description["provenance"]
    spec = provenance["spec"]

    def each(values: Sequence[float]) -> str:
        return ", ".join(f"{value:.6g}" for value in values)

    def by_axis(values: Sequence[int]) -> str:
        return ", ".join(f"{axis} {value}" for axis, value in zip(axes, values, strict=True))

    method = (inspect.getdoc(type(model.method)) or "").partition("\n")[0]
    learned_from = {None: "noisy images alone", "pair": "pairs of noisy images", "clean": "clean images"}
    uncertainty = "\nThe second output is the standard deviation of the first.\n" if model.method.probabilistic else ""
    return f"""# {name}

{method}
Trained by ssdenoise {provenance["version"]} on {learned_from[model.method.target]}:
the dataset `{spec["dataset"]}` at the noise level `{spec["noise"]}`.

Input are intensities as the microscope gives them, float32, axes B, C, {", ".join(axes)}.
Output is in the same units.
{uncertainty}
The constants of normalisation, those of the whole training volume, are part of the network
(offset {each(model.normalization.offset)}; scale {each(model.normalization.scale)}): do not normalise again.
The model suits images of the same instrument, structure and exposure, and no others.

Sizes must be multiples of the stride ({by_axis(model.net.stride)}).
Tiles that overlap by the halo ({by_axis(model.net.halo)}) and are cropped by it give what the whole image gives.
Where an image ends, pad it with the offset.

## Validation

The test tensors are the middle of a noisy volume and what ssdenoise makes of it. On new data, look at the residual,
noisy minus denoised: it must show no structure, and have the variance that the camera's noise is known to have.
"""
