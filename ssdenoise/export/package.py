"""What the BioImage Model Zoo asks of a package: the description of its tensors, and a page for readers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssdenoise.errors import ConfigError
from ssdenoise.export.graph import DENOISED, NOISY, OPSET, TOLERANCE, UNCERTAINTY, smallest
from ssdenoise.methods import Method
from ssdenoise.model import Model
from ssdenoise.store import Volume

#: Most volumes that the page for readers names.
NAMED = 10


def write_package(
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
    from bioimageio.spec.model import v0_5
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
                    axes=_axes(model, volume, None),
                    test_tensor=file(f"{NOISY}.npy"),
                )
            ],
            outputs=[
                v0_5.OutputTensorDescr(
                    id=tensor,
                    description=what,
                    axes=_axes(model, volume, NOISY),
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


def _axes(model: Model, volume: Volume, like: str | None) -> list[Any]:
    """Axes of the input or, with `like` the input's name, of an output."""
    from bioimageio.spec.model import v0_5

    axes: list[Any] = [v0_5.BatchAxis(), v0_5.ChannelAxis(channel_names=list(volume.metadata.channels))]
    voxel = volume.metadata.voxel_size_um
    lengths = smallest(model)
    for i, axis in enumerate("zyx"[-model.ndim :]):
        space: dict[str, Any] = {"id": axis}
        if voxel:
            space |= {"unit": "micrometer", "scale": voxel[i - model.ndim]}
        if like is None:
            sizes = v0_5.ParameterizedSize(min=lengths[i], step=model.net.stride[i])
            axes.append(v0_5.SpaceInputAxis(size=sizes, **space))
            continue
        same = v0_5.SizeReference(tensor_id=like, axis_id=axis)
        halo = model.net.halo[i]
        axes.append(
            v0_5.SpaceOutputAxisWithHalo(halo=halo, size=same, **space)
            if halo
            else v0_5.SpaceOutputAxis(size=same, **space)
        )
    return axes


def citations(method: Method) -> list[tuple[str, str]]:
    """Papers of a method and where they are, from its docstring."""
    text = inspect.getdoc(type(method)) or ""
    entries = [" ".join(entry.split()) for entry in re.split(r"\.\. \[\d+\]", text)[1:]]
    kinds = ((r"arXiv:(\d{4}\.\d{4,5})", "https://arxiv.org/abs/"), (r"doi:(10\.\S+?)\.?$", "https://doi.org/"))
    found = ((entry, re.search(pattern, entry), place) for entry in entries for pattern, place in kinds)
    return [(entry, place + match[1]) for entry, match, place in found if match]


def default_name(description: dict[str, Any]) -> str:
    """Method, dataset or group, and noise level, in characters that the zoo takes."""
    trained_on = _trained_on(description)
    name = f"{description['method']['name']} of {trained_on['dataset']} {trained_on['noise']}"
    return re.sub(r"[^A-Za-z0-9_+() -]", "-", name)


def _trained_on(description: dict[str, Any]) -> dict[str, Any]:
    """What a `model.json` says of the volumes; older ones say it in their options, and name no volumes."""
    found: dict[str, Any] = description.get("trained_on") or description["provenance"]["spec"]
    return found


def volumes_said(description: dict[str, Any]) -> str:
    """The volumes that a model was trained on, for people."""
    trained_on = _trained_on(description)
    volumes = trained_on.get("volumes", [])
    if len(volumes) == 1:
        kind, names = "dataset", ""
    elif volumes:
        more = f", and {len(volumes) - NAMED} more" if len(volumes) > NAMED else ""
        kind, names = "group", f" of {len(volumes)} volumes ({', '.join(f'`{one}`' for one in volumes[:NAMED])}{more})"
    else:
        kind, names = "dataset or group", ""
    return f"the {kind} `{trained_on['dataset']}`{names} at the noise level `{trained_on['noise']}`"


def readme(model: Model, description: dict[str, Any], name: str) -> str:
    """The documentation that the package carries."""
    axes = "ZYX"[-model.ndim :]
    version = description["provenance"]["version"]

    def each(values: Sequence[float]) -> str:
        return ", ".join(f"{value:.6g}" for value in values)

    def by_axis(values: Sequence[int]) -> str:
        return ", ".join(f"{axis} {value}" for axis, value in zip(axes, values, strict=True))

    method = (inspect.getdoc(type(model.method)) or "").partition("\n")[0]
    learned_from = {None: "noisy images alone", "pair": "pairs of noisy images", "clean": "clean images"}
    filling = "by mirrored voxels" if model.net.padding == "reflect" else "with the offset, never with mirrored voxels"
    uncertainty = "\nThe second output is the standard deviation of the first.\n" if model.method.probabilistic else ""
    return f"""# {name}

{method}
Trained by ssdenoise {version} on {learned_from[model.method.target]}:
{volumes_said(description)}.

Input are intensities as the microscope gives them, float32, axes B, C, {", ".join(axes)}.
Output is in the same units.
{uncertainty}
The constants of normalisation, those of the whole training volume, are part of the network
(offset {each(model.normalization.offset)}; scale {each(model.normalization.scale)}): do not normalise again.
The model suits images of the same instrument, structure and exposure, and no others.

Sizes must be multiples of the stride ({by_axis(model.net.stride)}).
Tiles that overlap by the halo ({by_axis(model.net.halo)}) and are cropped by it give what the whole image gives.
Where an image ends, fill it up to such a multiple {filling}.

## Validation

The test tensors are the middle of a noisy volume and what ssdenoise makes of it. On new data, look at the residual,
noisy minus denoised: it must show no structure, and have the variance that the camera's noise is known to have.
"""
