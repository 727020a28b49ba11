"""What a method is: options, and functions of arrays. Tiling, storage and scheduling are outside.

Tensors are BCYX in 2-D and BCZYX in 3-D, float32, in normalised units (see `ssdenoise.intensity.Normalization`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from ssdenoise.networks import Network, PerChannel, Planes
from ssdenoise.noise import NoiseModels


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError(f"{size} is even; a window with a voxel in its middle has an odd side")
    return size


#: Side of a window around a voxel.
Odd = Annotated[int, AfterValidator(_odd)]

PositiveInt = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Batch:
    """Training patches: `noisy` of shape (B, C, [Z,] Y, X); `target` what it is compared with, if not itself."""

    noisy: Tensor
    target: Tensor | None = None


class Estimate(NamedTuple):
    """Denoised mean and, from methods that have one, its standard deviation; shapes as the input."""

    mean: Tensor
    std: Tensor | None = None


class Method(BaseModel):
    """Base of all methods: a frozen set of options whose functions are the method.

    Attributes
    ----------
    target : {"pair", "clean"} or None
        What `loss` needs as `Batch.target`: an independent realization of the same scene, or the clean image.
    trainable : bool
        Whether `loss` is minimised by gradient steps; if not, `fit` sets the network's buffers from a sample.
    stages : int
        Number of trainings one after the other, equally long, each with a course of the learning rate of its own.
    independent_along : str
        Axes, of `zyx`, along which the method takes noise as independent between voxels, and keeps it where it is not.
    half_turns_only : bool
        Whether training patches may only be turned by 180 degrees: where quarter turns and flips would not keep the
        directions that a method is about.
    patch_factor : int
        Training patches are multiples of this many strides in Y and X.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    target: ClassVar[Literal["pair", "clean"] | None] = None
    trainable: ClassVar[bool] = False
    stages: ClassVar[int] = 1
    independent_along: ClassVar[str] = ""
    half_turns_only: ClassVar[bool] = False
    patch_factor: ClassVar[int] = 1

    name: str

    @property
    def probabilistic(self) -> bool:
        """Whether `denoise` also returns a standard deviation."""
        return False

    @property
    def true_noise(self) -> str | None:
        """Likelihood for which `build` must get the parameters of the synthesis; None: calibrated ones."""
        return None

    def calibrated(self, calibration: Mapping[str, Any]) -> Self:
        """The method with the options filled in that it leaves to the calibration."""
        return self

    def build(self, channels: int, ndim: int, noise: Sequence[NoiseModels]) -> Network:
        """Make the untrained network for `channels` channels of `ndim`-dimensional images; `noise` is by channel."""
        raise NotImplementedError

    def loss(self, net: Network, batch: Batch, rng: torch.Generator, progress: float) -> Tensor:
        """Training loss, a scalar; `progress` runs from 0 to 1 over the training."""
        raise NotImplementedError

    def stage(self, progress: float) -> tuple[int, float]:
        """Number of the training that is going on, from 0, and the progress within it."""
        index = max(0, math.ceil(progress * self.stages) - 1)
        return index, progress * self.stages - index

    def fit(self, net: Network, sample: Tensor) -> None:
        """Set learned values from sample images of shape (B, C, [Z,] Y, X); only where `trainable` is false."""
        raise NotImplementedError

    def denoise(self, net: Network, noisy: Tensor) -> Estimate:
        """Denoise a batch; a pure function of the network and the voxels within its halo."""
        return Estimate(net(noisy))

    def estimate(self, net: Network, noisy: Tensor) -> Estimate:
        """`denoise`, with what the options ask for besides."""
        return self.denoise(net, noisy)

    @property
    def averages_pair(self) -> bool:
        """Whether the denoised volume is the mean of what both realizations give."""
        return False


class TrainedMethod(Method):
    """Options common to all methods that train a network."""

    trainable: ClassVar[bool] = True

    network: Literal["small", "paper"] = Field(
        "small",
        description="`paper`: the published network; `small`: the same construction with fewer channels and scales, "
        "for CPUs and small data.",
    )
    channels: Literal["joint", "independent"] = Field(
        "joint", description="`joint`: one network sees all channels; `independent`: one network for each channel."
    )
    planes: int = Field(
        0,
        ge=0,
        description="In 3-D: 0 for 3-D convolutions; an odd number for a 2-D network that sees a plane and its "
        "neighbours as channels.",
    )
    steps: int = Field(800, ge=1, description="Optimiser steps.")
    batch: int | None = Field(None, ge=1, description="Patches per step; the default is 4 planes, or 1 volume.")
    patch: tuple[PositiveInt, PositiveInt, PositiveInt] | None = Field(
        None,
        description="Patch size in voxels, ZYX; 2-D training uses YX. Cut to the volume's size. The default is 64x64 "
        "in 2-D and 16x48x48 in 3-D.",
    )
    learning_rate: float = Field(4e-3, gt=0, description="Peak learning rate of Adam.")
    ramp_down: float = Field(
        0.5, gt=0, le=0.9, description="Share of the training, at its end, in which the learning rate falls to zero."
    )
    weight_average: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay per step of the exponential moving average of the weights that is kept as the model; 0: the "
        "last weights.",
    )
    test_time_augmentation: bool = Field(
        False,
        description="Average over the quarter turns and flips of the image at inference, eight times the work. A "
        "standard deviation is the mean of theirs, a little more than that of the average.",
    )

    @field_validator("planes")
    @classmethod
    def _odd(cls, planes: int) -> int:
        if planes and (planes % 2 == 0 or planes == 1):
            raise ValueError(f"{planes} planes have no middle with neighbours; needed 0 or an odd number from 3 on")
        return planes

    def patches_per_step(self, ndim: int) -> int:
        """`batch`, or its default."""
        return self.batch or (4 if ndim == 2 else 1)

    def patch_size(self, ndim: int) -> tuple[int, int, int]:
        """`patch`, or its default; a single plane in 2-D."""
        # in 3-D flatter ones score less (CONTRIBUTING.md): their voxels see little but the zeros around, along Z
        z, y, x = self.patch or ((1, 64, 64) if ndim == 2 else (16, 48, 48))
        return (z if ndim == 3 else 1, y, x)

    def architecture(self, inputs: int, channels: int, ndim: int, beside: Sequence[int] = ()) -> Network:
        """The network from `inputs` channels to what the method needs for `channels` denoised ones.

        `beside` are the inputs that hold nothing of the voxels to be estimated: a blind spot need not hide them.
        """
        raise NotImplementedError

    def build(self, channels: int, ndim: int, noise: Sequence[NoiseModels]) -> Network:
        def make(channels: int) -> Network:
            if ndim == 2 or not self.planes:
                return self.architecture(channels, channels, ndim)
            middle = range(self.planes // 2 * channels, (self.planes // 2 + 1) * channels)
            beside = [i for i in range(self.planes * channels) if i not in middle]
            return Planes(self.architecture(self.planes * channels, channels, 2, beside), self.planes)

        return make(channels) if self.channels == "joint" else PerChannel([make(1) for _ in range(channels)])

    def estimate(self, net: Network, noisy: Tensor) -> Estimate:
        if not self.test_time_augmentation:
            return self.denoise(net, noisy)
        turns, flips = ((0, 2), (False,)) if self.half_turns_only else (range(4), (False, True))
        views = [
            [
                _turned_back(part, turn, flip)
                for part in self.denoise(net, _turned(noisy, turn, flip))
                if part is not None
            ]
            for turn in turns
            for flip in flips
        ]
        return Estimate(*(torch.stack(parts).mean(0) for parts in zip(*views, strict=True)))


def _turned(image: Tensor, turn: int, flip: bool) -> Tensor:
    """The image flipped along X, then turned by quarter turns in its plane."""
    return (image.flip(-1) if flip else image).rot90(turn, (-2, -1)).contiguous()


def _turned_back(image: Tensor, turn: int, flip: bool) -> Tensor:
    turned = image.rot90(-turn, (-2, -1))
    return turned.flip(-1) if flip else turned
