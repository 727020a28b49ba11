"""Spatially adaptive self-supervised learning, for noise that is correlated between pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssdenoise.methods.base import Batch, TrainedMethod
from ssdenoise.networks import BlindSpot, Chain, Conv, Network, Plain, UNet
from ssdenoise.noise import correlated_offsets

#: Pixels a side of the window in which the first network's output counts as flat or textured.
WINDOW = 7

#: Spread within the window below which a place is flat, and above which it is textured, in the paper's 8-bit units.
FLAT, TEXTURED = 1.0, 5.0

#: How many 8-bit units the normalised unit, one standard deviation of the image, stands for. Photographs, for which the
#: paper chose its thresholds, spread by about a quarter of their range.
EIGHT_BIT = 64.0


class SASL(TrainedMethod):
    """Spatially adaptive self-supervised learning (Li et al. 2023).

    Notes
    -----
    Three trainings one after the other, a third of `steps` each, all with absolute differences [1]_. First a blind-spot
    network that does not see the pixels around (`radius`; the paper's 4: 9x9), so that noise correlated over less than
    that cannot be predicted; its output is right where the image is flat and blurred where it is not, and a spot that
    lies wholly in the hole is lost: so the hole is no wider than the calibrated correlation asks for. Then a network
    that sees 3x3 pixels only learns the first one's output from the noisy image: too near-sighted to average noise over
    distance, it keeps texture. Then a U-Net learns from both: from the first where its output is flat, from the second
    where it is textured, ``|(1 - a) * (first - f(y))| + |a * (second - f(y))|``, with a from the spread of the first
    output in 7x7 pixels (supplement, equation 4). Only the U-Net denoises.

    Thresholds of the spread are the paper's, which are in 8-bit units; here one standard deviation of the image counts
    as 64 of them, so that they hold for any dtype. In volumes the blind neighbourhood is in the plane: between planes
    noise is taken as independent.

    `network="paper"`: depth 5, 48 and 96 channels; 64 channels and six residual blocks in the near-sighted network.

    References
    ----------
    .. [1] J. Li et al., "Spatially Adaptive Self-Supervised Learning for Real-World Image Denoising", CVPR 2023,
       arXiv:2303.14934.
    """

    stages: ClassVar[int] = 3
    independent_along: ClassVar[str] = "z"

    name: Literal["sasl"] = "sasl"
    steps: int = Field(1500, ge=3, description="Optimiser steps of the three trainings together.")
    radius: Annotated[int, Field(ge=0)] | Literal["calibrated"] = Field(
        "calibrated",
        description="Pixels around that the blind-spot network does not see; 4: 9x9. `calibrated`: as far as noise was "
        "found correlated along Y or X, but at least 1.",
    )

    def calibrated(self, calibration: Mapping[str, Any]) -> Self:
        return self.model_copy(update={"radius": reach(calibration)}) if self.radius == "calibrated" else self

    def architecture(self, inputs: int, channels: int, ndim: int, beside: Sequence[int] = ()) -> Network:
        assert self.radius != "calibrated", "the train stage fills the radius in"
        if self.network == "paper":
            blind = BlindSpot(
                ndim,
                inputs,
                channels,
                width=48,
                depth=5,
                head=(96, 96),
                mix=(384, 96),
                beside=beside,
                radius=self.radius,
            )
            unet = UNet(ndim, inputs, width=48, depth=5, head=(96, 96), skips="pooled")
            return ThreeNetworks(blind, NearSighted(ndim, inputs, channels, width=64, blocks=6), unet, channels)
        blind = BlindSpot(
            ndim,
            inputs,
            channels,
            width=16,
            depth=3,
            head=(16, 16),
            mix=(32, 16),
            beside=beside,
            radius=self.radius,
            flat=True,
        )
        unet = UNet(ndim, inputs, width=24, depth=3, head=(24, 24), up=24, skips="pooled", flat=True)
        return ThreeNetworks(blind, NearSighted(ndim, inputs, channels, width=32, blocks=3), unet, channels)

    def loss(self, net: Network, batch: Batch, rng: torch.Generator, progress: float) -> Tensor:
        y, (stage, _) = batch.noisy, self.stage(progress)
        if stage == 0:
            return functional.l1_loss(net(y, part="blind"), y)
        with torch.no_grad():
            first = net(y, part="blind")
        if stage == 1:
            return functional.l1_loss(net(y, part="near"), first)
        with torch.no_grad():
            second = net(y, part="near")
            a = texture(first)
        denoised = net(y)
        loss: Tensor = ((1 - a) * (first - denoised)).abs().mean() + (a * (second - denoised)).abs().mean()
        return loss


def reach(calibration: Mapping[str, Any]) -> int:
    """How many pixels along Y or X the noise of any channel is correlated over, at least 1."""
    return max((max(abs(y), abs(x)) for z, y, x in correlated_offsets(calibration) if z == 0), default=1)


def texture(image: Tensor) -> Tensor:
    """Weight of the near-sighted network's output, from the spread of an image (B, C, [Z,] Y, X) in 7x7 pixels."""
    mean = (EIGHT_BIT * image).mean(dim=1, keepdim=True)
    moments = [
        functional.avg_pool2d(m.flatten(0, -3)[:, None], WINDOW, 1, WINDOW // 2, count_include_pad=False)
        for m in (mean, mean.square())
    ]
    spread = (moments[1] - moments[0].square()).clamp(min=0).sqrt().view(mean.shape)
    a = torch.full_like(spread, 0.5)
    a = torch.where(spread < FLAT, (spread - FLAT).sigmoid(), a)
    return torch.where(spread > TEXTURED, (spread - TEXTURED).sigmoid(), a)


class ThreeNetworks(Network):
    """The blind-spot network, the near-sighted one and the U-Net, which alone is run at inference."""

    def __init__(self, blind: BlindSpot, near: nn.Module, unet: UNet, outputs: int) -> None:
        super().__init__()
        self.blind, self.near, self.plain = blind, near, Plain(unet, outputs)
        self.halo, self.stride = self.plain.halo, self.plain.stride

    def forward(self, x: Tensor, part: Literal["blind", "near", "plain"] = "plain") -> Tensor:
        return getattr(self, part)(x)  # type: ignore[no-any-return]


class NearSighted(nn.Module):
    """Network with a single 3x3 convolution: 1x1, 3x3, residual blocks of 1x1 with channel attention, 1x1."""

    def __init__(self, ndim: int, inputs: int, outputs: int, *, width: int, blocks: int) -> None:
        super().__init__()
        self.first = Chain(
            Conv(ndim, inputs, width, kernel=1, slope=0.0),
            Conv(ndim, width, width, kernel=3, slope=0.0),
        )
        self.blocks = nn.ModuleList(AttentionBlock(ndim, width) for _ in range(blocks))
        self.after = Conv(ndim, width, width, kernel=1, slope=None)
        self.last = Conv(ndim, width, outputs, kernel=1, slope=None)

    def forward(self, x: Tensor) -> Tensor:
        x = first = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(first + self.after(x))  # type: ignore[no-any-return]


class AttentionBlock(nn.Module):
    """Two 1x1 convolutions whose output channels are weighted by what their means over the image say."""

    def __init__(self, ndim: int, width: int, reduction: int = 16) -> None:
        super().__init__()
        narrow = max(1, width // reduction)
        self.body = Chain(Conv(ndim, width, width, kernel=1, slope=0.0), Conv(ndim, width, width, kernel=1, slope=None))
        self.gate = Chain(
            Conv(ndim, width, narrow, kernel=1, slope=0.0), Conv(ndim, narrow, width, kernel=1, slope=None)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        mean = y.mean(dim=tuple(range(2, y.ndim)), keepdim=True)
        return x + y * self.gate(mean).sigmoid()  # type: ignore[no-any-return]
