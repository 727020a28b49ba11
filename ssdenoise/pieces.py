"""Pieces: what passes the network at once. A tile is read once; its pieces are as large as the memory allows."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ssdenoise.device import Device
from ssdenoise.errors import TooLittleMemory
from ssdenoise.grid import Region, Tile, blocks, ceil_to, extent, tile
from ssdenoise.methods import Network
from ssdenoise.model import Model

log = logging.getLogger(__name__)

#: Size of the sample whose memory is measured, in voxels ZYX, before it is cut to the network's stride.
SAMPLE = (16, 64, 64)

#: Memory that is taken besides the tensors that are alive at once, as a share of these: what convolutions use for
#: themselves and, most of it, the holes that pieces of slightly different sizes leave in the heap.
WORKSPACE = 2.0

Array = npt.NDArray[np.float32]


def spatial(net: Network) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Halo and stride of a network in TCZYX; planes have neither in Z."""
    missing = 5 - len(net.stride)
    return (0,) * missing + tuple(net.halo), (1,) * missing + tuple(net.stride)


def pieces_of(
    core: Region, around: Sequence[int], halo: Sequence[int], stride: Sequence[int], voxels: int
) -> list[Tile]:
    """Cut a tile's core into pieces: of the sizes that are small enough, the one whose halos cost least.

    Parameters
    ----------
    core : Region
        Of the tile, in what is read of it.
    around : sequence of int
        Shape of what is read of it, TCZYX.
    halo, stride : sequence of int
        Of the network.
    voxels : int
        Most voxels of a piece with its halo, over Z, Y, X, unless that is less than one stride takes.
    """
    z_cuts, y_cuts, x_cuts = (_cuts(*axis) for axis in zip(core[2:], around[2:], halo[2:], stride[2:], strict=True))
    best: tuple[int, int, tuple[int, ...]] | None = None
    for z, y in product(z_cuts, y_cuts):
        # of X the longest that fits: more cuts cost more
        if x := next((x for x in x_cuts if z.read * y.read * x.read <= voxels), None):
            found = (z.total * y.total * x.total, z.number * y.number * x.number, (z.size, y.size, x.size))
            best = min(best, found) if best else found
    zyx = best[2] if best else (z_cuts[-1].size, y_cuts[-1].size, x_cuts[-1].size)
    shape = (*extent(core)[:2], *zyx)
    return [tile(_within(part, core), around, halo, stride) for _, part in blocks(extent(core), shape)]


class _Cut(NamedTuple):
    """An axis cut into pieces: their number and size, what the largest reads, and what all read together."""

    number: int
    size: int
    read: int
    total: int


def _cuts(core: slice, around: int, halo: int, stride: int) -> list[_Cut]:
    """Ways to cut an axis into pieces of equal size, the largest first."""
    length, reach = core.stop - core.start, ceil_to(halo, stride)
    sizes = dict.fromkeys(min(length, ceil_to(-(-length // number), stride)) for number in range(1, length + 1))
    cuts = []
    for size in sizes:
        starts = range(core.start, core.stop, size)
        reads = [min(start + size + reach, around) - max(start - reach, 0) for start in starts]
        cuts.append(_Cut(len(reads), size, max(reads), sum(reads)))
    return cuts


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
        todo = self._cut(core, noisy.shape)
        while todo:
            one = todo.pop()
            place = tuple(slice(s.start - c.start, s.stop - c.start) for s, c in zip(one.core, core, strict=True))
            if wanted is not None and not wanted[:, :, *place[2:]].any():
                continue
            if (parts := self._fitting(noisy, one)) is None:
                self._shrink(one)
                todo = [smaller for larger in (*todo, one) for smaller in self._cut(larger.core, noisy.shape)]
                continue
            for whole, part in zip(found, parts, strict=True):
                whole[place] = part
        return found

    def _cut(self, core: Region, around: Sequence[int]) -> list[Tile]:
        return pieces_of(core, around, self.halo, self.stride, self.voxels)

    def _shrink(self, one: Tile) -> None:
        """Halve the largest piece, as this one did not fit."""
        if all(n <= s for n, s in zip(extent(one.core)[2:], self.stride[2:], strict=True)):
            raise TooLittleMemory(
                f"{self.device.name} has too little memory for {extent(one.read)[2:]} voxels (ZYX), the least that "
                "this network can denoise; use a smaller network, or grant a device with more memory"
            )
        self.voxels = math.prod(extent(one.read)[2:]) // 2
        log.warning("out of memory on %s: going on with pieces of %d voxels at most", self.device.name, self.voxels)
        self.device.release()

    def _fitting(self, noisy: npt.NDArray[Any], one: Tile) -> list[Array] | None:
        """What `_denoise` gives; None if memory did not suffice, by then without what the failed attempt held."""
        try:
            return self._denoise(noisy, one)
        except torch.OutOfMemoryError:
            return None

    def _denoise(self, noisy: npt.NDArray[Any], one: Tile) -> list[Array]:
        """Mean and standard deviation of one piece."""
        return [whole[one.crop].cpu().numpy() for whole in estimate(self.model, noisy[one.read], one.pad, self.device)]


def _within(inner: Region, outer: Region) -> Region:
    """A region counted from the start of another, counted as that one is."""
    return tuple(slice(i.start + o.start, i.stop + o.start) for i, o in zip(inner, outer, strict=True))


@torch.no_grad()
def estimate(model: Model, noisy: npt.NDArray[Any], pad: Sequence[int], device: Device) -> list[Tensor]:
    """Run a model over an array: normalised, filled up, and brought back to intensities where the network runs.

    Parameters
    ----------
    model : Model
        Made ready for inference on the device.
    noisy : array
        TCZYX, in intensities.
    pad : sequence of int
        By how many voxels each axis is filled up at its end, to a multiple of the network's stride.
    device : Device

    Returns
    -------
    list of Tensor
        Mean and, from probabilistic methods, standard deviation in intensities, float32, TCZYX, with the voxels that
        were filled up; on the device.
    """
    offset, scale = (
        torch.tensor(values, device=device.where).view(-1, 1, 1, 1)
        for values in (model.normalization.offset, model.normalization.scale)
    )
    units = (device.send_intensities(noisy) - offset) / scale
    units = filled_up(units, pad, model.net.padding)
    t, c, z, y, x = units.shape
    if model.ndim == 2:
        units = units.transpose(1, 2).reshape(t * z, c, y, x)  # planes are samples
    found = model.method.estimate(model.net, device.send_for_inference(units))

    def volume(tensor: Tensor) -> Tensor:
        return tensor if model.ndim == 3 else tensor.view(t, z, c, y, x).transpose(1, 2)

    mean = volume(found.mean) * scale + offset
    return [mean] if found.std is None else [mean, volume(found.std) * scale]


def filled_up(units: Tensor, pad: Sequence[int], padding: str) -> Tensor:
    """Voxels TCZYX with so many more at the end of each axis: mirrored (however small the image), or zeros."""
    if padding == "constant":
        return functional.pad(units, [n for more in reversed(pad) for n in (0, more)]) if any(pad) else units
    for axis, more in enumerate(pad):
        if more:
            mirrored = np.pad(np.arange(units.shape[axis]), (0, more), mode="reflect")
            units = units.index_select(axis, torch.from_numpy(mirrored).to(units.device))
    return units


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
                    StorageWeakRef(storage),
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
