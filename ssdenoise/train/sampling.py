"""Patches of the volumes of a training, and the batches made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
from ssdenoise.train.pool import FRAMES, PATCHES_PER_PART, POOL_BYTES, Part, Pool, parts_of

#: Share of the cells, each a patch large, that no training patch touches, and the batches that this is at most.
HELD_OUT, VALIDATED = 0.05, 4

#: Patches that are drawn of a part before it is left.
DRAWS = 1000

#: Probability of a photon to go to the first image of a thinned pair.
THINNING = 0.5

#: Number of a scene, a time point, and an index along Z, Y, X.
Cell = tuple[int, ...]


class Sampler:
    """Random patches of noisy volumes, in normalised units; a pure function of the step.

    Parameters
    ----------
    spec : TrainSpec
    method : TrainedMethod
    scenes : sequence of sequence of Volume
        Of each scene the noisy volume and, where there is one, the target: the second realization or the clean volume.
    normalization : Normalization
        Of the noisy volumes; the targets are normalised by it too.
    stride : sequence of int
        Of the network, per spatial axis: patches are cut to a multiple of it.
    photons : sequence of sequence of pair of float, optional
        For pairs by thinning: of each scene the gain and offset of each channel.

    Raises
    ------
    FormatError
        If a volume is smaller than the stride.

    Notes
    -----
    Volumes are cut into cells of a patch's size. A few cells are held out for validation, and training patches that
    touch one are drawn again. Of a scene of few cells none is held out, as little would be left beside it; if there are
    no others, validation is on what training sees. Patches are cut from the parts that the pool holds, each as often as
    it is large; none lies across two parts, so that voxels near the ends of a part are drawn less often.
    """

    def __init__(
        self,
        spec: TrainSpec,
        method: TrainedMethod,
        scenes: Sequence[Sequence[Volume]],
        normalization: Normalization,
        stride: Sequence[int],
        photons: Sequence[Sequence[tuple[float, float]]] = (),
    ) -> None:
        self.spec, self.method, self.scenes, self.normalization = spec, method, scenes, normalization
        self.photons = photons or [[(1.0, 0.0)] * scenes[0][0].shape[1]] * len(scenes)
        self.pairing = spec.pairing if method.target == "pair" else "volume"
        # time points that make pairs show the same scene: a cell is held out of all of them
        self.still = self.pairing in ("repeats", "interleaved")
        self.patches = method.patches_per_step(spec.ndim)
        self.patch = self._patch(stride)
        self.validation_cells, self.held_out = self._chosen_cells()
        self.pool = self._pool()

    def batch(self, step: int) -> tuple[Batch, torch.Generator]:
        """Training patches of a step, randomly turned and flipped, and the generator for the loss."""
        rng = stream(self.spec.seed, self.spec.dataset, self.spec.noise, self.method.name, "step", step)
        held = self.pool.at(step)
        share = np.array([part.voxels for part, _ in held]) / sum(part.voxels for part, _ in held)
        pairs: list[list[npt.NDArray[np.float32]]] = []
        while len(pairs) < self.patches:
            part, volumes = held[int(rng.choice(len(held), p=share)) if len(held) > 1 else 0]
            if (place := self._place(part, rng)) is None:
                continue  # few patches of this part touch no held-out cell
            within = tuple(a - s.start for a, s in zip(place, part.region, strict=True))
            pairs.append(self._pair(volumes, part.scene, within, rng, augment=True))
        return self._collate(pairs), torch.Generator().manual_seed(int(rng.integers(2**63)))

    def validation(self) -> list[tuple[Batch, torch.Generator]]:
        """Held-out patches, the same at each call."""
        batches = []
        for first in range(0, len(self.validation_cells), self.patches):
            rng = stream(self.spec.seed, self.spec.dataset, "validation", first)
            pairs = []
            for scene, frame, *cell in self.validation_cells[first : first + self.patches]:
                place = (frame, *(i * p for i, p in zip(cell, self.patch, strict=True)))
                volumes = [volume.array for volume in self.scenes[scene]]
                pairs.append(self._pair(volumes, scene, place, rng, augment=False))
            batches.append((self._collate(pairs), torch.Generator().manual_seed(first)))
        return batches

    def _patch(self, stride: Sequence[int]) -> tuple[int, ...]:
        """Size of patches: what is wanted, cut to the smallest volume and to whole strides."""
        wanted = self.method.patch_size(self.spec.ndim)
        *in_z, y, x = stride
        steps = (*(in_z or [1]), y * self.method.patch_factor, x * self.method.patch_factor)
        size = [min(n) for n in zip(*(volumes[0].shape[2:] for volumes in self.scenes), strict=True)]
        patch = tuple(min(p, n) // s * s for p, n, s in zip(wanted, size, steps, strict=True))
        if 0 in patch:
            smallest = min((volumes[0] for volumes in self.scenes), key=lambda volume: math.prod(volume.shape[2:]))
            raise FormatError(
                f"{smallest.path} has {smallest.shape[2:]} voxels (ZYX) and the patch {wanted}; {self.method.name} "
                f"needs at least {steps} of each"
            )
        return patch

    def _chosen_cells(self) -> tuple[list[Cell], set[Cell]]:
        """Cells to validate on, and those of them that are held out of training."""
        grids = [
            (1 if self.still else t, *(n // p for n, p in zip(size, self.patch, strict=True)))
            for t, _, *size in (volumes[0].shape for volumes in self.scenes)
        ]
        cells = [math.prod(grid) for grid in grids]
        if max(cells) * HELD_OUT >= 1:
            cells = [number if number * HELD_OUT >= 1 else 0 for number in cells]
            held = min(int(HELD_OUT * sum(cells)), VALIDATED * self.patches)
        else:
            held = 0
        ends = np.cumsum(cells)
        rng = stream(self.spec.seed, self.spec.dataset, "held out")
        chosen = []
        for number in rng.choice(ends[-1], held or min(self.patches, int(ends[-1])), replace=False):
            scene = int(np.searchsorted(ends, number, side="right"))
            within = number - (ends[scene] - cells[scene])
            chosen.append((scene, *map(int, np.unravel_index(within, grids[scene]))))
        return chosen, set(chosen[:held])

    def _pool(self) -> Pool:
        """The pool: of all volumes, if they fit into it, or of their shards."""
        bytes_of = [sum(volume.array.nbytes for volume in volumes) for volumes in self.scenes]
        parts = []
        for scene, volumes in enumerate(self.scenes):
            t, _, *size = volumes[0].shape
            if sum(bytes_of) <= POOL_BYTES:
                parts.append(Part(scene, tuple(slice(0, n) for n in (t, *size))))
            else:
                frames = min(t, FRAMES) if self.still else 1
                parts += parts_of(scene, (t, *size), volumes[0].layout.shard[2:], self.patch, frames)
        # a small part may be covered by held-out cells
        rng = stream(self.spec.seed, self.spec.dataset, "room")
        roomy = [part for part in parts if self._place(part, rng) is not None]
        if not roomy:
            self.held_out = set()
        parts = roomy or parts
        voxel = max(b // math.prod(volumes[0].shape) for b, volumes in zip(bytes_of, self.scenes, strict=True))
        largest = voxel * self.scenes[0][0].shape[1] * max(part.voxels for part in parts)
        held = len(parts) if sum(bytes_of) <= POOL_BYTES else max(1, POOL_BYTES // largest)
        steps = max(1, PATCHES_PER_PART // self.patches)
        return Pool(parts, held, steps, self._read, (self.spec.seed, self.spec.dataset))

    def _read(self, part: Part) -> list[npt.NDArray[Any]]:
        """A part of each of its scene's volumes, TCZYX."""
        t, *zyx = part.region
        return [volume.read((t, slice(None), *zyx)) for volume in self.scenes[part.scene]]

    def _place(self, part: Part, rng: np.random.Generator) -> tuple[int, ...] | None:
        """Time point and origin of a patch that touches no held-out cell, T, Z, Y, X; None if many draws found none."""
        frames, *zyx = part.region
        for _ in range(DRAWS):
            frame = int(rng.integers(frames.start, frames.stop))
            origin = [int(rng.integers(s.start, s.stop - p + 1)) for s, p in zip(zyx, self.patch, strict=True)]
            touched = product(*(range(o // p, (o + p - 1) // p + 1) for o, p in zip(origin, self.patch, strict=True)))
            where = (part.scene, 0 if self.still else frame)
            if not any((*where, *cell) in self.held_out for cell in touched):
                return (frame, *origin)
        return None

    def _pair(
        self, volumes: Sequence[Any], scene: int, place: Sequence[int], rng: np.random.Generator, *, augment: bool
    ) -> list[npt.NDArray[np.float32]]:
        """A patch of the noisy volume and, where the method has one, of its target, (C, [Z,] Y, X).

        `volumes` are arrays TCZYX, in memory or on disk, in which the patch begins at `place` (T, Z, Y, X).
        """
        frame, box = place[0], tuple(slice(o, o + p) for o, p in zip(place[1:], self.patch, strict=True))
        patches = [np.asarray(volume[(slice(frame, frame + 1), slice(None), *box)])[0] for volume in volumes]
        if self.pairing == "thinning":
            gain, offset = (np.array(n)[:, None, None, None] for n in zip(*self.photons[scene], strict=True))
            patches = list(thin(patches[0], THINNING, rng, gain, offset))
        elif self.pairing in ("repeats", "interleaved"):
            other = self._partner(frame, volumes[0].shape[0], rng)
            patches = [patches[0], np.asarray(volumes[0][(slice(other, other + 1), slice(None), *box)])[0]]
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

    def _partner(self, frame: int, frames: int, rng: np.random.Generator) -> int:
        """Another time point of the same scene: any of the repeats, or one of the two neighbours."""
        others = [frame - 1, frame + 1] if self.pairing == "interleaved" else range(frames)
        others = [other for other in others if other != frame and 0 <= other < frames]
        return others[int(rng.integers(len(others)))]

    @staticmethod
    def _collate(pairs: Sequence[Sequence[npt.NDArray[np.float32]]]) -> Batch:
        return Batch(*(torch.from_numpy(np.stack(patches)) for patches in zip(*pairs, strict=True)))


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
