"""Patches of a volume, read straight from its store."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssdenoise.config.models import TrainSpec
from ssdenoise.errors import FormatError
from ssdenoise.intensity import Normalization
from ssdenoise.methods import Batch, TrainedMethod
from ssdenoise.noise import stream, thin
from ssdenoise.store import Volume

#: Share of the volume's cells, a patch large, that no training patch touches, and the batches that this is at most.
HELD_OUT, VALIDATED = 0.05, 4

#: Probability of a photon to go to the first image of a thinned pair.
THINNING = 0.5

#: Bytes of decoded chunks that a sampler keeps.
CACHE_BYTES = 256 * 2**20


class Sampler:
    """Random patches of a noisy volume, in normalised units; a pure function of the step.

    Parameters
    ----------
    spec : TrainSpec
    method : TrainedMethod
    volumes : sequence of Volume
        The noisy volume and, where there is one, the target: the second realization or the clean volume.
    normalization : Normalization
        Of the noisy volume; the target is normalised by it too.
    stride : sequence of int
        Of the network, per spatial axis: patches are cut to a multiple of it.
    photons : sequence of pair of float
        Gain and offset of each channel, for pairs by thinning.

    Raises
    ------
    FormatError
        If the volume is smaller than the stride.

    Notes
    -----
    The volume is cut into cells of a patch's size. A few cells are held out for validation, and training patches
    that touch one are drawn again. Of a volume of few cells none is held out, as little would be left beside it: then
    validation is on what training sees. Decoded chunks are kept in a bounded cache, least recently used out first.
    """

    def __init__(
        self,
        spec: TrainSpec,
        method: TrainedMethod,
        volumes: Sequence[Volume],
        normalization: Normalization,
        stride: Sequence[int],
        photons: Sequence[tuple[float, float]] = ((1.0, 0.0),),
    ) -> None:
        self.spec, self.method, self.normalization = spec, method, normalization
        self.gain, self.offset = (np.array(values)[:, None, None, None] for values in zip(*photons, strict=True))
        self.pairing = spec.pairing if method.target == "pair" else "volume"
        t, _, *self.size = volumes[0].shape
        wanted = method.patch_size(spec.ndim)
        *in_z, y, x = stride
        steps = (*(in_z or [1]), y * method.patch_factor, x * method.patch_factor)
        self.patch = tuple(min(p, n) // s * s for p, n, s in zip(wanted, self.size, steps, strict=True))
        if 0 in self.patch:
            raise FormatError(
                f"{volumes[0].path} has {self.size} voxels (ZYX) and the patch {wanted}; {method.name} needs at least "
                f"{steps} of each"
            )
        self.readers = [_cached_reader(volume, CACHE_BYTES // len(volumes)) for volume in volumes]
        # time points that make pairs show the same scene: a cell is held out of all of them
        self.still = self.pairing in ("repeats", "interleaved")
        frames = 1 if self.still else t
        cells = list(product(range(frames), *(range(n // p) for n, p in zip(self.size, self.patch, strict=True))))
        self.frames = t
        self.patches = method.patches_per_step(spec.ndim)
        held = min(int(HELD_OUT * len(cells)), VALIDATED * self.patches)
        order = stream(spec.seed, spec.dataset, "held out").permutation(len(cells))
        self.validation_cells = [cells[i] for i in order[: held or self.patches]]
        self.held_out = set(self.validation_cells[:held])

    def batch(self, step: int) -> tuple[Batch, torch.Generator]:
        """Training patches of a step, randomly turned and flipped, and the generator for the loss."""
        rng = stream(self.spec.seed, self.spec.dataset, self.spec.noise, self.method.name, "step", step)
        pairs = [self._pair(*self._place(rng), rng, augment=True) for _ in range(self.patches)]
        return self._collate(pairs), torch.Generator().manual_seed(int(rng.integers(2**63)))

    def validation(self) -> list[tuple[Batch, torch.Generator]]:
        """Held-out patches, the same at each call."""
        batches = []
        for first in range(0, len(self.validation_cells), self.patches):
            rng = stream(self.spec.seed, self.spec.dataset, "validation", first)
            chosen = self.validation_cells[first : first + self.patches]
            pairs = [
                self._pair(cell[0], tuple(i * p for i, p in zip(cell[1:], self.patch, strict=True)), rng, augment=False)
                for cell in chosen
            ]
            batches.append((self._collate(pairs), torch.Generator().manual_seed(first)))
        return batches

    def _place(self, rng: np.random.Generator) -> tuple[int, tuple[int, ...]]:
        """Frame and origin of a patch that touches no held-out cell."""
        while True:
            frame = int(rng.integers(self.frames))
            origin = tuple(int(rng.integers(n - p + 1)) for n, p in zip(self.size, self.patch, strict=True))
            touched = product(*(range(o // p, (o + p - 1) // p + 1) for o, p in zip(origin, self.patch, strict=True)))
            where = 0 if self.still else frame
            if not any((where, *cell) in self.held_out for cell in touched):
                return frame, origin

    def _pair(
        self, frame: int, origin: Sequence[int], rng: np.random.Generator, *, augment: bool
    ) -> list[npt.NDArray[np.float32]]:
        """A patch of the noisy volume and, where the method has one, of its target, (C, [Z,] Y, X)."""
        patches = [read(frame, origin, self.patch) for read in self.readers]
        if self.pairing == "thinning":
            patches = list(thin(patches[0], THINNING, rng, self.gain, self.offset))
        elif self.pairing in ("repeats", "interleaved"):
            patches = [patches[0], self.readers[0](self._partner(frame, rng), origin, self.patch)]
        if self.method.target == "pair" and augment and rng.integers(2):
            patches.reverse()  # either realization can be the input
        quarter, flip = (int(rng.integers(4)), int(rng.integers(2))) if augment else (0, 0)
        if self.patch[1] != self.patch[2] or self.method.half_turns_only:
            quarter -= quarter % 2  # a quarter turn would change the shape, or the direction
        if self.method.half_turns_only:
            flip = 0
        out = []
        for patch in patches if self.method.target else patches[:1]:
            turned = np.rot90(self.normalization.apply(patch), quarter, (-2, -1))
            turned = turned[..., ::-1] if flip else turned
            out.append(np.ascontiguousarray(turned if self.spec.ndim == 3 else turned[:, 0]))
        return out

    def _partner(self, frame: int, rng: np.random.Generator) -> int:
        """Another time point of the same scene: any of the repeats, or one of the two neighbours."""
        others = [frame - 1, frame + 1] if self.pairing == "interleaved" else range(self.frames)
        others = [other for other in others if other != frame and 0 <= other < self.frames]
        return others[int(rng.integers(len(others)))]

    @staticmethod
    def _collate(pairs: Sequence[Sequence[npt.NDArray[np.float32]]]) -> Batch:
        return Batch(*(torch.from_numpy(np.stack(patches)) for patches in zip(*pairs, strict=True)))


def _cached_reader(volume: Volume, cache_bytes: int) -> Callable[[int, Sequence[int], Sequence[int]], npt.NDArray[Any]]:
    """Function of frame, origin and size (ZYX) that returns (C, Z, Y, X), with a cache of decoded chunks."""
    _, channels, *size = volume.shape
    chunk = volume.layout.chunk[2:]
    chunk_bytes = channels * math.prod(chunk) * volume.array.dtype.itemsize

    @lru_cache(maxsize=max(8, cache_bytes // chunk_bytes))
    def decoded(frame: int, *index: int) -> npt.NDArray[Any]:
        place = (slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(index, chunk, size, strict=True))
        return np.asarray(volume.read((slice(frame, frame + 1), slice(None), *place))[0])

    def read(frame: int, origin: Sequence[int], shape: Sequence[int]) -> npt.NDArray[Any]:
        out = np.empty((channels, *shape), volume.array.dtype)
        spans = [range(o // c, (o + n - 1) // c + 1) for o, n, c in zip(origin, shape, chunk, strict=True)]
        for index in product(*spans):
            block = decoded(frame, *index)
            source, target = [], []
            for i, c, o, n in zip(index, chunk, origin, shape, strict=True):
                start, stop = max(o, i * c), min(o + n, (i + 1) * c)
                source.append(slice(start - i * c, stop - i * c))
                target.append(slice(start - o, stop - o))
            out[(slice(None), *target)] = block[(slice(None), *source)]
        return out

    return read


def central_crops(volume: Volume, ndim: int, normalization: Normalization) -> Tensor:
    """Central crops for baselines: 8 planes of 256x256, or one block of 16x128x128 in 3-D; (B, C, [Z,] Y, X)."""
    t, _, *size = volume.shape
    wanted = (1, 256, 256) if ndim == 2 else (16, 128, 128)
    crop = [min(w, n) for w, n in zip(wanted, size, strict=True)]
    starts = [(n - c) // 2 for n, c in zip(size, crop, strict=True)]
    planes = np.unique(np.linspace(0, size[0] - 1, 8).round().astype(int)) if ndim == 2 else [starts[0]]
    blocks = []
    for z in planes:
        place = (slice(int(s), int(s) + c) for s, c in zip((z, *starts[1:]), crop, strict=True))
        block = normalization.apply(volume.read((slice(t // 2, t // 2 + 1), slice(None), *place)))[0]
        blocks.append(block[:, 0] if ndim == 2 else block)
    return torch.from_numpy(np.stack(blocks))
