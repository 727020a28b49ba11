"""What a method is: options, and functions of arrays. Tiling, storage and scheduling are outside.

Tensors are BCYX in 2-D and BCZYX in 3-D, float32, in normalised units (see `ssdenoise.intensity.Normalization`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ssdenoise.networks import Network
from ssdenoise.noise import NoiseModels


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
    half_turns_only : bool
        Whether training patches may only be turned by 180 degrees: where quarter turns and flips would not keep the
        directions that a method is about.
    patch_factor : int
        Training patches are multiples of this many strides in Y and X.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    target: ClassVar[Literal["pair", "clean"] | None] = None
    trainable: ClassVar[bool] = False
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

    def build(self, channels: int, ndim: int, noise: NoiseModels) -> Network:
        """Make the untrained network for `channels` channels of `ndim`-dimensional images."""
        raise NotImplementedError

    def loss(self, net: Network, batch: Batch, rng: torch.Generator, progress: float) -> Tensor:
        """Training loss, a scalar; `progress` runs from 0 to 1 over the training."""
        raise NotImplementedError

    def fit(self, net: Network, sample: Tensor) -> None:
        """Set learned values from sample images of shape (B, C, [Z,] Y, X); only where `trainable` is false."""
        raise NotImplementedError

    def denoise(self, net: Network, noisy: Tensor) -> Estimate:
        """Denoise a batch; a pure function of the network and the voxels within its halo."""
        raise NotImplementedError


class TrainedMethod(Method):
    """Options common to all methods that train a network."""

    trainable: ClassVar[bool] = True

    network: Literal["small", "paper"] = Field(
        "small",
        description="`paper`: the published network; `small`: the same construction with fewer channels and levels, "
        "for CPUs and small data.",
    )
    steps: int = Field(400, ge=1, description="Optimiser steps.")
    batch: int | None = Field(
        None, ge=1, description="Patches per step; the default is 8 planes, or 1 volume, which has as many voxels."
    )
    patch: tuple[int, int, int] = Field(
        (8, 64, 64), description="Patch size in voxels, ZYX; 2-D training uses YX. Cut to the volume's size."
    )
    learning_rate: float = Field(2e-3, gt=0, description="Peak learning rate of Adam.")

    def patches_per_step(self, ndim: int) -> int:
        """`batch`, or its default."""
        return self.batch or (8 if ndim == 2 else 1)
