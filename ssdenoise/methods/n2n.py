"""Noise2Noise: learn from pairs of noisy images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ssdenoise.methods.base import Batch, TrainedMethod
from ssdenoise.networks import Network, Plain, UNet

LOWEST_POWER = 0.5


class WithTarget(TrainedMethod):
    """What training on a second image has in common, whether that is noisy or clean: network, loss and its options."""

    learning_rate: float = Field(2e-3, gt=0, description="Peak learning rate of Adam; twice that is unsteady.")
    criterion: Literal["l2", "l1", "l0"] = Field(
        "l2", description="Loss: `l2` estimates the mean, `l1` the median, `l0` (annealed) the mode."
    )

    def architecture(self, inputs: int, channels: int, ndim: int, beside: Sequence[int] = ()) -> Network:
        if self.network == "paper":
            unet = UNet(ndim, inputs, width=48, depth=5, head=(64, 32), skips="pooled")
        else:
            unet = UNet(ndim, inputs, width=24, depth=3, head=(24, 24), up=24, skips="pooled", flat=True)
        return Plain(unet, channels, last_kernel=3)

    def loss(self, net: Network, batch: Batch, rng: torch.Generator, progress: float) -> Tensor:
        assert batch.target is not None, "the train stage gives a target to each method that has one"
        denoised = net(batch.noisy)
        if self.criterion == "l0":
            power = max(LOWEST_POWER, 2 * (1 - progress))
            return ((denoised - batch.target).abs() + 1e-8).pow(power).mean()  # type: ignore[no-any-return]
        criterion = functional.mse_loss if self.criterion == "l2" else functional.l1_loss
        return criterion(denoised, batch.target)


class N2N(WithTarget):
    """Noise2Noise (Lehtinen et al. 2018).

    Notes
    -----
    The loss is ``mean((f(x + n1) - (x + n2))**2)`` with independent, zero-mean n1 and n2 (equation 6 of [1]_). The
    target's noise averages out of the gradient, so the minimiser is the one that clean targets would give: the mean
    of the clean image given the noisy one. What the two realizations share is learnt as signal: fixed patterns, hot
    pixels. With ``criterion="l1"`` the minimiser is the median instead. With ``criterion="l0"`` it approaches the
    mode, which impulse noise leaves alone: ``(|difference| + 1e-8)**g`` with g falling from 2 over the training
    (section 3.2); it stops at `LOWEST_POWER`, as in Laine et al. 2019, since at 0 nothing is left to learn from.

    `network="paper"` is the U-Net of appendix A.1: depth 5, 48 and 96 channels, full-resolution head of 64 and 32.

    References
    ----------
    .. [1] J. Lehtinen et al., "Noise2Noise: Learning Image Restoration without Clean Data", ICML 2018,
       arXiv:1803.04189.
    """

    target: ClassVar[Literal["pair", "clean"] | None] = "pair"

    name: Literal["n2n"] = "n2n"
    both_directions: bool = Field(
        False,
        description="Denoise both realizations and average, where the pair is a volume: better, but from twice the "
        "data that other methods see.",
    )

    @property
    def averages_pair(self) -> bool:
        return self.both_directions
