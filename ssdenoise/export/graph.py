"""The network as one ONNX graph from intensities to intensities, of any size."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ssdenoise.grid import ceil_to
from ssdenoise.model import Model
from ssdenoise.store import Volume

NOISY, DENOISED, UNCERTAINTY = "noisy", "denoised", "uncertainty"

#: Version of ONNX's set of operators.
OPSET = 20

#: Most that the ONNX file may differ from the model, in standard deviations of the image.
TOLERANCE = 1e-4


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


def sample_image(volume: Volume, model: Model) -> npt.NDArray[np.float32]:
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


def verify_onnx(
    path: Path, model: Model, noisy: npt.NDArray[np.float32], expected: Sequence[npt.NDArray[np.float32]]
) -> None:
    """Run the file on an image of another size than it was traced with, and compare with what the model made of it."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    scale = np.reshape(model.normalization.scale, (-1, *(1,) * model.ndim))
    for ours, theirs in zip(expected, session.run(None, {NOISY: noisy}), strict=True):
        worst = float((np.abs(ours - theirs) / scale).max())
        if not worst <= TOLERANCE:
            raise RuntimeError(f"the ONNX file differs from the model by {worst:.1e} standard deviations")
