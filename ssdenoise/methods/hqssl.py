"""HQ-SSL: a blind-spot network, a noise model and Bayes' rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from ssdenoise.covariance import MIN_VARIANCE, Covariance, covariance, entries_of, log_density
from ssdenoise.errors import ConfigError
from ssdenoise.methods.base import Batch, Estimate, TrainedMethod
from ssdenoise.networks import BlindSpot, BlockMean, Network, PerChannel, Plain, UNet
from ssdenoise.noise import NoiseModels

#: Fewest photons that photon noise is computed for: below, a normal distribution is no picture of a Poisson's, and a
#: variance near zero would make the likelihood of an empty background infinite and its posterior ill-conditioned.
MIN_PHOTONS = 0.5

#: Weight of the term that credits variance to the noise where its parameters are unknown. The paper's 0.1 is for
#: images in [0, 1]; ours have unit standard deviation, so that the same number weighs about five times as much, which
#: suits trainings that are a thousand times shorter. A standard deviation s of the noise, in normalised units, comes
#: out too large by a share of s / 40.
BALANCE = 0.1

#: The unknown noise parameters are scalars among 10^5 weights and would hardly move at the weights' learning rate in
#: the few thousand steps that a volume needs (the paper trains for 500,000); what is trained is them divided by this.
UNKNOWN_SPEED = 20.0

#: Where unknown parameters start, before softplus or sigmoid: at 0.13 of the signal's standard deviation, or 0.12.
START = -2.0

#: Parameters of each likelihood that a training can find. An offset is none of them: gain and offset are all but
#: interchangeable where the network learns the mean as well, so it stays calibrated.
PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "gaussian": ("read_noise",),
    "poisson": ("gain",),
    "poisson_gaussian": ("gain", "read_noise"),
    "impulse": ("share",),
}


class HQSSL(TrainedMethod):
    """High-quality self-supervised denoising (Laine et al. 2019).

    Notes
    -----
    The network sees the surroundings of a voxel but never the voxel itself, and predicts a normal distribution of the
    clean value x: mean mu and covariance ``S = A A'`` of the channels (full for up to three, diagonal for more). The
    noisy value is x plus noise of covariance N, so that given the surroundings ``y ~ N(mu, S + N)`` (equation 4 of
    [1]_), and the loss is the negative log-likelihood of y, at every voxel: ``(y-mu)' (S+N)**-1 (y-mu) +
    log det(S+N)``, divided by the number of channels. After training, Bayes' rule combines the prediction with the
    voxel that the network did not see: posterior mean ``mu + S (S+N)**-1 (y-mu)`` (equation 6) and covariance
    ``S (S+N)**-1 N``, of which the standard deviations are returned.

    Noise of the detector is ``N = gain * max(mu - offset, 0) + read_noise**2``: Gaussian, Poisson or both; it is held
    at that of half a photon where it would be less (see `MIN_PHOTONS`). With impulse noise a voxel keeps its value or,
    with probability `share`, loses it to one drawn uniformly from a range; y has then the first two moments of that
    mixture (appendix C), and the posterior is mu where the voxel was lost and y where not, weighted by how likely
    either is.

    The parameters are calibrated from the noisy volume, known (benchmarks: those the noise was synthesized with), or
    learned: as constants, or by a second network that sees the voxels themselves, whose output is averaged over blocks
    of 64x64 pixels (the paper averages over the image, which tiles could not do). Where they are learned, a term
    ``- BALANCE * std_n`` credits variance to the noise rather than to the prior, as the two are otherwise
    interchangeable.

    With ``likelihood="none"`` the loss is ``(y - mu)**2`` and the output mu: the paper's ablation without posterior,
    and what the posterior gains is the difference.

    `network="paper"`: depth 5, 48 and 96 channels, 1x1 convolutions of 384 and 96 channels. In 3-D see
    `ssdenoise.networks.BlindSpot`.

    References
    ----------
    .. [1] S. Laine, T. Karras, J. Lehtinen and T. Aila, "High-Quality Self-Supervised Deep Image Denoising",
       NeurIPS 2019, arXiv:1901.10277.
    """

    independent_along: ClassVar[str] = "zyx"

    name: Literal["hqssl"] = "hqssl"
    steps: int = Field(500, ge=1, description="Optimiser steps.")
    likelihood: Literal["gaussian", "poisson", "poisson_gaussian", "impulse", "none"] = Field(
        "poisson_gaussian",
        description="What the noise is taken to be; `none`: the network predicts the mean alone, by squared error, and "
        "the voxel itself is never used.",
    )
    parameters: Literal["calibrated", "known", "unknown", "unknown_per_image"] = Field(
        "calibrated",
        description="Noise parameters: `calibrated` from the noisy volume, `known` from the synthesis (benchmarks "
        "only), `unknown`: learned as constants (but for the offset, which stays calibrated), `unknown_per_image`: "
        "estimated by a second network, for noise that varies from plane to plane.",
    )

    @model_validator(mode="after")
    def _impulses_are_not_calibrated(self) -> Self:
        if self.likelihood == "impulse" and self.parameters == "calibrated":
            raise ValueError("calibration says nothing of impulses; needed `parameters: known`, `unknown` or so")
        return self

    @property
    def probabilistic(self) -> bool:
        return self.likelihood != "none"

    @property
    def true_noise(self) -> str | None:
        return self.likelihood if self.parameters == "known" and self.probabilistic else None

    def architecture(self, inputs: int, channels: int, ndim: int, beside: Sequence[int] = ()) -> Network:
        entries = channels if self.channels == "independent" else entries_of(channels)
        outputs = channels + entries if self.probabilistic else channels
        if self.network == "paper":
            return BlindSpot(ndim, inputs, outputs, width=48, depth=5, head=(96, 96), mix=(384, 96), beside=beside)
        # deeper, it would look further than a patch of 64 pixels reaches, and do worse on whole images than on patches
        return BlindSpot(
            ndim, inputs, outputs, width=16, depth=2, head=(16, 16), mix=(64, 32), beside=beside, flat=True
        )

    def build(self, channels: int, ndim: int, noise: Sequence[NoiseModels]) -> Network:
        net = super().build(channels, ndim, noise)
        if self.likelihood == "none":
            return net
        models = [getattr(one, self.likelihood) for one in noise]
        unknown = PARAMETERS[self.likelihood] if self.parameters.startswith("unknown") else ()
        fields = ("share", "low", "high") if self.likelihood == "impulse" else ("gain", "offset", "read_noise")
        known = {name: [getattr(model, name) for model in models] for name in fields if name not in unknown}
        if any(value is None for values in known.values() for value in values):
            raise ConfigError("the share of impulses is not known; take `parameters: unknown`")
        estimator: Network | None = None
        if self.parameters == "unknown_per_image":
            if self.channels == "joint" or self.likelihood == "impulse":
                estimator = self._estimator(channels, sum(columns(unknown, channels)), ndim)
            else:
                estimator = PerChannel([self._estimator(1, len(unknown), ndim) for _ in range(channels)])
        return BlindSpotWithNoise(net, NoiseParameters(ndim, channels, known, unknown, estimator))

    def _estimator(self, channels: int, outputs: int, ndim: int) -> Network:
        """The network that sees the voxels themselves and tells their noise."""
        small = self.network == "small"
        unet = UNet(ndim, channels, width=16 if small else 48, depth=3, head=(16, 16), skips="pooled", flat=small)
        return BlockMean(Plain(unet, outputs))

    def loss(self, net: Network, batch: Batch, rng: torch.Generator, progress: float) -> Tensor:
        if self.likelihood == "none":
            return functional.mse_loss(net(batch.noisy), batch.noisy)
        y, channels = batch.noisy.double(), batch.noisy.shape[1]
        mu, prior = _prior(net, batch.noisy)
        noise = net.noise(batch.noisy)  # type: ignore[operator]
        if self.likelihood == "impulse":
            mean, spread = impulse_moments(mu, prior, noise)
            return spread.deviance(y - mean).mean() / channels
        var_n = variance(noise, mu)
        loss = prior.plus(var_n).deviance(y - mu).mean() / channels
        if self.parameters.startswith("unknown"):
            # no noise is stronger than the noisy image: without this bound, infinite noise would have the least loss
            loss = loss - BALANCE * var_n.sqrt().clamp(max=1).mean()
        return loss

    def denoise(self, net: Network, noisy: Tensor) -> Estimate:
        if self.likelihood == "none":
            return Estimate(net(noisy))
        mu, prior = _prior(net, noisy)
        noise = net.noise(noisy)  # type: ignore[operator]
        if self.likelihood == "impulse":
            mean, var = impulse_posterior(mu, prior, noise, noisy.double())
        else:
            shift, var = prior.posterior(variance(noise, mu), noisy - mu)
            mean = mu + shift
        return Estimate(mean.float(), var.clamp(min=0).sqrt().float())  # of singular covariances rounding leaves less


def _prior(net: Network, noisy: Tensor) -> tuple[Tensor, Covariance]:
    """Mean and covariance that the network predicts from the surroundings, float64."""
    outputs, channels = net(noisy), noisy.shape[1]
    return outputs[:, :channels].double(), covariance(outputs[:, channels:], channels)


def variance(noise: Mapping[str, Tensor], mu: Tensor) -> Tensor:
    """Variance of the detector's noise at the predicted mean; the gradient flows through both."""
    gain, read_noise, offset = noise["gain"], noise["read_noise"], noise["offset"]
    value = gain * (mu - offset).clamp(min=0) + read_noise.square()
    return torch.maximum(value, MIN_PHOTONS * gain.square() + MIN_VARIANCE)


def impulse_moments(mu: Tensor, prior: Covariance, noise: Mapping[str, Tensor]) -> tuple[Tensor, Covariance]:
    """Mean and covariance of a voxel that with probability `share` was replaced by a uniformly drawn value.

    ``share * w**2 / 12 + (1 - share) * S + share * (1 - share) * (m - mu)(m - mu)'`` for a range of width w around m:
    the paper's sum of second moments less the product of means, without its cancellation.
    """
    share, low, high = noise["share"], noise["low"], noise["high"]
    middle = (low + high) / 2
    flat = (share * (high - low).square() / 12).expand(mu.shape)
    common = share[:, :1].expand_as(mu[:, :1])
    spread = prior.mixed(1 - common, middle - mu, common * (1 - common)).plus(flat)
    return share * middle + (1 - share) * mu, spread


def impulse_posterior(mu: Tensor, prior: Covariance, noise: Mapping[str, Tensor], y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the clean voxel: y if it was kept, normal with mean mu if it was replaced."""
    share, low, high = noise["share"], noise["low"], noise["high"]
    tiny = torch.full_like(mu, MIN_VARIANCE)
    uniform = -(high - low).log().expand_as(mu).sum(1, keepdim=True)
    chance = share[:, :1]
    odds = (1 - chance).log() + log_density(prior.plus(tiny), y - mu) - chance.log() - uniform
    kept = odds.sigmoid()  # probability that the voxel is what it was
    mean = mu + kept * (y - mu)
    return mean, (1 - kept) * prior.variances() + kept * (1 - kept) * (y - mu).square()


def columns(parameters: Sequence[str], channels: int) -> list[int]:
    """How many values of each parameter there are: one for each channel; an impulse strikes all channels at once."""
    return [1 if name == "share" else channels for name in parameters]


def softplus(value: Tensor) -> Tensor:
    """``log(1 + exp(value))``; torch's own has no float64 form in onnxruntime, which exported models run on."""
    return value.clamp(min=0) + (1 + (-value.abs()).exp()).log()


class NoiseParameters(nn.Module):
    """Parameters of the noise of each channel in normalised units: fixed, learned, or estimated from the image.

    Each channel is normalised by itself, so that even the same noise differs between channels in these units.
    Returns tensors that broadcast over (B, C, [Z,] Y, X).
    """

    def __init__(
        self,
        ndim: int,
        channels: int,
        known: Mapping[str, Sequence[float]],
        unknown: Sequence[str],
        estimator: Network | None,
    ) -> None:
        super().__init__()
        self.channels, self.known, self.unknown, self.estimator = channels, tuple(known), tuple(unknown), estimator
        for name, values in known.items():
            tensor = torch.tensor(values, dtype=torch.float64)
            self.register_buffer(name, tensor.view(1, -1, *(1,) * ndim))
        if unknown and estimator is None:
            shape = (1, sum(columns(unknown, channels)), *(1,) * ndim)
            self.raw = nn.Parameter(torch.full(shape, START / UNKNOWN_SPEED))

    def forward(self, noisy: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {name: getattr(self, name) for name in self.known}
        if not self.unknown:
            return found
        raw = UNKNOWN_SPEED * self.raw.double() if self.estimator is None else START + self.estimator(noisy).double()
        values = raw.split(columns(self.unknown, self.channels), dim=1)
        for name, value in zip(self.unknown, values, strict=True):
            found[name] = value.sigmoid() if name == "share" else softplus(value)
        return found


class BlindSpotWithNoise(Network):
    """A blind-spot network and the noise's parameters."""

    def __init__(self, net: Network, noise: NoiseParameters) -> None:
        super().__init__()
        self.net, self.noise = net, noise
        self.halo, self.stride, self.padding = net.halo, net.stride, net.padding
        if noise.estimator is not None:
            self.halo = tuple(map(max, net.halo, noise.estimator.halo))
            self.stride = tuple(map(max, net.stride, noise.estimator.stride))

    def forward(self, noisy: Tensor) -> Tensor:
        return self.net(noisy)  # type: ignore[no-any-return]
