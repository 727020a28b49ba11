"""HQ-SSL: a blind-spot network, a noise model and Bayes' rule."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssdenoise.methods.base import Batch, Estimate, TrainedMethod
from ssdenoise.networks import BlindSpot, Network
from ssdenoise.noise import NoiseModels

#: Fewest photons that photon noise is computed for: below, a normal distribution is no picture of a Poisson's, and a
#: variance near zero would make the likelihood of an empty background infinite and its posterior ill-conditioned.
MIN_PHOTONS = 0.5
MIN_VARIANCE = 1e-6

#: Weight of the term that credits variance to the noise where its parameters are unknown. The paper's 0.1 is for
#: images in [0, 1]; ours have unit standard deviation, so that the same number weighs about five times as much, which
#: suits trainings that are a thousand times shorter. The noise's standard deviation s comes out too large by s / 40.
BALANCE = 0.1

#: The unknown noise parameters are scalars among 10^5 weights and would hardly move at the weights' learning rate in
#: the few thousand steps that a volume needs (the paper trains for 500,000); their gradient is scaled up by this.
UNKNOWN_SPEED = 20.0


class HQSSL(TrainedMethod):
    """High-quality self-supervised denoising (Laine et al. 2019).

    Notes
    -----
    The network sees the surroundings of a voxel but never the voxel itself, and predicts a normal distribution of the
    clean value x: mean mu and variance ``var_x = a**2``. The noisy value is x plus noise of variance ``var_n``, so that
    given the surroundings ``y ~ N(mu, var_x + var_n)`` (equation 4 of [1]_), and the loss is the negative
    log-likelihood of y, at every voxel. After training, Bayes' rule combines the prediction with the voxel that the
    network did not see: the posterior mean ``(mu * var_n + y * var_x) / (var_x + var_n)`` (equation 6) and variance
    ``var_x * var_n / (var_x + var_n)``.

    The noise is ``var_n = gain * max(mu - offset, 0) + read_noise**2``: Gaussian, Poisson or both; it is held at that
    of half a photon where it would be less (see `MIN_PHOTONS`). Its parameters are
    calibrated from the noisy volume, known (benchmarks: those the noise was synthesized with), or learned; then a term
    ``- BALANCE * std_n`` credits variance to the noise rather than to the prior, as the two are otherwise
    interchangeable. Channels are taken as independent.

    With ``likelihood="none"`` the loss is ``(y - mu)**2`` and the output mu: the paper's ablation without posterior,
    and what the posterior gains is the difference.

    `network="paper"`: depth 5, 48 and 96 channels, 1x1 convolutions of 384 and 96 channels. In 3-D see
    `ssdenoise.networks.BlindSpot`.

    References
    ----------
    .. [1] S. Laine, T. Karras, J. Lehtinen and T. Aila, "High-Quality Self-Supervised Deep Image Denoising",
       NeurIPS 2019, arXiv:1901.10277.
    """

    name: Literal["hqssl"] = "hqssl"
    steps: int = Field(250, ge=1, description="Optimiser steps.")
    likelihood: Literal["gaussian", "poisson", "poisson_gaussian", "none"] = Field(
        "poisson_gaussian",
        description="What the noise is taken to be; `none`: the network predicts the mean alone, by squared error, and "
        "the voxel itself is never used.",
    )
    parameters: Literal["calibrated", "known", "unknown"] = Field(
        "calibrated",
        description="Noise parameters: `calibrated` from the noisy volume, `known` from the synthesis (benchmarks "
        "only), `unknown`: learned with the network.",
    )

    @property
    def probabilistic(self) -> bool:
        return self.likelihood != "none"

    @property
    def true_noise(self) -> str | None:
        return self.likelihood if self.parameters == "known" and self.probabilistic else None

    def build(self, channels: int, ndim: int, noise: NoiseModels) -> Network:
        outputs = 2 * channels if self.probabilistic else channels
        if self.network == "paper":
            net = BlindSpot(ndim, channels, outputs, width=48, depth=5, head=(96, 96), mix=(384, 96))
        else:
            net = BlindSpot(ndim, channels, outputs, width=16, depth=3, head=(16, 16), mix=(32, 16))
        if self.likelihood == "none":
            return net
        model = getattr(noise, self.likelihood)
        return BlindSpotWithNoise(
            net,
            gain=model.gain,
            offset=model.offset,
            read_noise=model.read_noise,
            learn_gain=self.parameters == "unknown" and self.likelihood != "gaussian",
            learn_read_noise=self.parameters == "unknown" and self.likelihood != "poisson",
        )

    def loss(self, net: Network, batch: Batch, rng: torch.Generator, progress: float) -> Tensor:
        if self.likelihood == "none":
            return functional.mse_loss(net(batch.noisy), batch.noisy)
        y = batch.noisy.double()
        mu, var_x = _prior(net, batch.noisy)
        var_n = net.variance(mu)  # type: ignore[operator]
        var_y = var_x + var_n
        loss = ((y - mu).square() / var_y + var_y.log()).mean()
        if self.parameters == "unknown":
            loss = loss - BALANCE * var_n.sqrt().mean()
        return loss  # type: ignore[no-any-return]

    def denoise(self, net: Network, noisy: Tensor) -> Estimate:
        if self.likelihood == "none":
            return Estimate(net(noisy))
        mu, var_x = _prior(net, noisy)
        var_n = net.variance(mu)  # type: ignore[operator]
        weight = var_x / (var_x + var_n)  # how far to trust the voxel itself
        mean = mu + weight * (noisy - mu)
        return Estimate(mean.float(), (weight * var_n).sqrt().float())


def _prior(net: Network, noisy: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance that the network predicts from the surroundings, float64."""
    mu, a = net(noisy).double().chunk(2, dim=1)
    return mu, a.square()


class BlindSpotWithNoise(Network):
    """A blind-spot network and the noise's parameters, in normalised units, fixed or learned."""

    gain: Tensor
    offset: Tensor
    read_noise: Tensor

    def __init__(
        self,
        net: BlindSpot,
        *,
        gain: float,
        offset: float,
        read_noise: float,
        learn_gain: bool,
        learn_read_noise: bool,
    ) -> None:
        super().__init__()
        self.net, self.halo, self.stride = net, net.halo, net.stride
        self.register_buffer("gain", torch.tensor(gain, dtype=torch.float64))
        self.register_buffer("offset", torch.tensor(offset, dtype=torch.float64))
        self.register_buffer("read_noise", torch.tensor(read_noise, dtype=torch.float64))
        start = torch.tensor(-2.0 / UNKNOWN_SPEED)  # softplus(-2) = 0.13 of the signal's standard deviation
        self.raw_gain = nn.Parameter(start.clone()) if learn_gain else None
        self.raw_read_noise = nn.Parameter(start.clone()) if learn_read_noise else None

    def forward(self, noisy: Tensor) -> Tensor:
        return self.net(noisy)  # type: ignore[no-any-return]

    def variance(self, mu: Tensor) -> Tensor:
        """Variance of the noise at the predicted mean; the gradient flows through both."""
        gain, read_noise = self.gain, self.read_noise
        if self.raw_gain is not None:
            gain = functional.softplus(UNKNOWN_SPEED * self.raw_gain.double())
        if self.raw_read_noise is not None:
            read_noise = functional.softplus(UNKNOWN_SPEED * self.raw_read_noise.double())
        variance = gain * (mu - self.offset).clamp(min=0) + read_noise.square()
        return torch.maximum(variance, MIN_PHOTONS * gain.square() + MIN_VARIANCE)
