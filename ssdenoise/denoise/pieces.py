"""Pieces: what passes the network at once. A tile is read once; its pieces are as large as the memory allows."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ssdenoise.device import Device
from ssdenoise.errors import TooLittleMemory
from ssdenoise.grid import Region, blocks, ceil_to, extent, tile
from ssdenoise.methods import Network
from ssdenoise.model import Model

log = logging.getLogger(__name__)

#: Size of the sample whose memory is measured, in voxels ZYX, before it is cut to the network's stride.
SAMPLE = (16, 64, 64)

#: Memory that the libraries under torch take besides the tensors, as a share of these.
WORKSPACE = 0.25

Array = npt.NDArray[np.float32]


def spatial(net: Network) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Halo and stride of a network in TCZYX; planes have neither in Z."""
    missing = 5 - len(net.stride)
    return (0,) * missing + tuple(net.halo), (1,) * missing + tuple(net.stride)


def piece_shape(
    core: Sequence[int], around: Sequence[int], halo: Sequence[int], stride: Sequence[int], voxels: int
) -> tuple[int, ...]:
    """Size of pieces of a tile's core: halved, along the axis whose halo then costs least, until they are small enough.

    Parameters
    ----------
    core, around : sequence of int
        The core of the tile, and all that is read of it, TCZYX.
    halo, stride : sequence of int
        Of the network.
    voxels : int
        Most voxels of a piece with its halo, over T, Z, Y, X, unless that is less than one stride takes.
    """
    piece = list(core)
    while voxels_read(piece, around, halo, stride) > voxels:
        axes = [a for a in (0, 2, 3, 4) if piece[a] > stride[a]]
        if not axes:
            break
        axis = min(axes, key=lambda a: halo[a] / piece[a])
        piece[axis] = ceil_to(-(-piece[axis] // 2), stride[axis])
    return tuple(piece)


def voxels_read(piece: Sequence[int], around: Sequence[int], halo: Sequence[int], stride: Sequence[int]) -> int:
    """Voxels of a piece with its halo, over T, Z, Y, X."""
    t, _, *zyx = (min(p + 2 * ceil_to(h, s), a) for p, a, h, s in zip(piece, around, halo, stride, strict=True))
    return t * math.prod(zyx)


class Pieces:
    """Runs a model over tiles, piece by piece; smaller ones from then on, if memory does not suffice.

    Parameters
    ----------
    model : Model
        Made ready for inference on the device.
    device : Device
    voxels : int
        Most voxels of a piece with its halo.
    """

    def __init__(self, model: Model, device: Device, voxels: int) -> None:
        self.model, self.device, self.voxels = model, device, voxels
        self.halo, self.stride = spatial(model.net)

    def run(self, noisy: npt.NDArray[Any], core: Region, wanted: npt.NDArray[np.bool_] | None = None) -> list[Array]:
        """Denoise the core of a tile.

        Parameters
        ----------
        noisy : array
            What was read for the tile, TCZYX, in intensities.
        core : Region
            Where the core lies in it.
        wanted : array of bool, optional
            Of the core's shape but for one channel; pieces without a voxel that is wanted are left at zero.

        Returns
        -------
        list of array
            Mean and, from probabilistic methods, standard deviation of the core, in intensities.

        Raises
        ------
        TooLittleMemory
            If not even a piece of one stride fits into memory.
        """
        found = [np.zeros(extent(core), np.float32) for _ in range(1 + self.model.method.probabilistic)]
        todo = [tuple(slice(0, n) for n in extent(core))]
        while todo:
            region = todo.pop()
            piece = piece_shape(extent(region), noisy.shape, self.halo, self.stride, self.voxels)
            if piece != extent(region):
                todo += [_within(inner, region) for _, inner in blocks(extent(region), piece)][::-1]
            elif wanted is None or wanted[:, :, *region[2:]].any():
                self._one(noisy, region, core, found, todo)
        return found

    def _one(
        self, noisy: npt.NDArray[Any], region: Region, core: Region, found: list[Array], todo: list[Region]
    ) -> None:
        """Denoise one piece, or put it back to be done in halves."""
        try:
            parts = self._denoise(noisy, _within(region, core))
        except torch.OutOfMemoryError:
            self.voxels = voxels_read(extent(region), noisy.shape, self.halo, self.stride) // 2
            if all(n <= s for n, s in zip(extent(region)[2:], self.stride[2:], strict=True)):
                raise TooLittleMemory(
                    f"{self.device.name} has too little memory for {extent(region)} voxels (TCZYX) and their halo of "
                    f"{self.halo}; use a smaller network, or grant a device with more memory"
                ) from None
            log.warning("out of memory on %s: going on with pieces of at most %d voxels", self.device.name, self.voxels)
            self.device.release()
            todo.append(region)
            return
        for whole, part in zip(found, parts, strict=True):
            whole[region] = part

    def _denoise(self, noisy: npt.NDArray[Any], core: Region) -> list[Array]:
        """Mean and standard deviation of one piece."""
        one = tile(core, noisy.shape, self.halo, self.stride)
        units = self.model.normalization.apply(noisy[one.read])
        mean, std = estimate(self.model, filled_up(units, one.pad, self.model.net), self.device)
        parts = [self.model.normalization.invert(mean[one.crop])]
        return parts if std is None else [*parts, self.model.normalization.invert_std(std[one.crop])]


def _within(inner: Region, outer: Region) -> Region:
    """A region counted from the start of another, counted as that one is."""
    return tuple(slice(i.start + o.start, i.stop + o.start) for i, o in zip(inner, outer, strict=True))


def filled_up(values: Array, pad: Sequence[int], net: Network) -> Array:
    """Voxels TCZYX with so many more at the end of each axis, as the network wants them."""
    return np.pad(values, [(0, n) for n in pad], mode=net.padding) if any(pad) else values


@torch.no_grad()
def estimate(model: Model, noisy: Array, device: Device) -> tuple[Array, Array | None]:
    """Run the network over an array TCZYX in normalised units whose sizes are multiples of the stride."""
    t, c, z, y, x = noisy.shape
    samples = torch.from_numpy(noisy)
    if model.ndim == 2:
        samples = samples.transpose(1, 2).reshape(t * z, c, y, x)  # planes are samples
    found = model.method.estimate(model.net, device.send_for_inference(samples))

    def array(tensor: Tensor) -> Array:
        tensor = tensor.cpu()
        if model.ndim == 2:
            tensor = tensor.reshape(t, z, c, y, x).transpose(1, 2)
        return tensor.numpy()

    return array(found.mean), None if found.std is None else array(found.std)


class _Footprint(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.alive[storage._cdata] = (
                    torch.multiprocessing.reductions.StorageWeakRef(storage),
                    storage.nbytes(),
                )
        self.alive = {key: (weak, n) for key, (weak, n) in self.alive.items() if not weak.expired()}
        self.peak = max(self.peak, sum(n for _, n in self.alive.values()))
        return out


def footprint(call: Callable[[], object]) -> float:
    """Bytes of the most tensors that are alive at once in a call, and of what the libraries take besides."""
    with _Footprint() as counted:
        call()
    return float((1 + WORKSPACE) * counted.peak)


@torch.no_grad()
def bytes_per_voxel(model: Model) -> float:
    """Memory that inference takes for each voxel (all channels) of a piece, measured on a small sample."""
    size = [ceil_to(n, s) for n, s in zip(SAMPLE[3 - model.ndim :], model.net.stride, strict=True)]
    sample = torch.zeros(1, model.channels, *size)
    return footprint(lambda: model.method.estimate(model.net, sample)) / math.prod(size)
