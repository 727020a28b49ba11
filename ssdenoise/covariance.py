"""Covariance matrices of the channels, one per voxel, in closed form: sums, densities and Bayes' rule.

A library would loop over millions of tiny matrices; here a matrix is a few tensors, each of which holds one of its
entries for all voxels. Shapes are (B, C, [Z,] Y, X); everything is float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

#: Most channels whose covariance is modelled in full; of more, each is taken as independent of the others.
MOST_CORRELATED = 3

#: Smallest variance that is divided by.
MIN_VARIANCE = 1e-6

Triangle = list[list[Tensor]]
"""Entries (i, j) with j <= i; each tensor is (B, [Z,] Y, X)."""


class Covariance(Protocol):
    """What the likelihoods ask of a covariance S."""

    def plus(self, variance: Tensor) -> Covariance:
        """S + N, with the diagonal N of shape (B, C, ...)."""

    def mixed(self, scale: Tensor, vector: Tensor, weight: Tensor) -> Covariance:
        """``scale * S + weight * vector vector'``; `scale` and `weight` have one channel."""

    def deviance(self, difference: Tensor) -> Tensor:
        """``d' S**-1 d + log det S``, shape (B, 1, ...)."""

    def posterior(self, noise: Tensor, difference: Tensor) -> tuple[Tensor, Tensor]:
        """``S (S + N)**-1 d`` and the diagonal of ``S (S + N)**-1 N``, both (B, C, ...)."""

    def variances(self) -> Tensor:
        """The diagonal of S, (B, C, ...)."""


def covariance(entries: Tensor, channels: int) -> Covariance:
    """``A A'`` from the network's outputs, which is positive semi-definite whatever the network says.

    With C <= 3 channels, C (C + 1) / 2 outputs are the rows of an upper triangular A (Laine et al. 2019, appendix B);
    with more, C outputs are a diagonal A.
    """
    entries = entries.double()
    if entries.shape[1] == channels:
        return Diagonal(entries.square())
    rows, first = [], 0
    for i in range(channels):
        rows.append(entries[:, first : first + channels - i])  # row i, from the diagonal on
        first += channels - i
    # S = A A' of the upper triangular A, so that S_ij is the product of rows i and j where both are not zero
    return Full([[(rows[i] * rows[j][:, i - j :]).sum(1) for j in range(i + 1)] for i in range(channels)])


def entries_of(channels: int) -> int:
    """Number of outputs that `covariance` needs."""
    return channels * (channels + 1) // 2 if channels <= MOST_CORRELATED else channels


@dataclass(frozen=True)
class Diagonal:
    """Independent channels."""

    variance: Tensor

    def plus(self, variance: Tensor) -> Diagonal:
        return Diagonal(self.variance + variance)

    def mixed(self, scale: Tensor, vector: Tensor, weight: Tensor) -> Diagonal:
        return Diagonal(scale * self.variance + weight * vector.square())

    def deviance(self, difference: Tensor) -> Tensor:
        variance = self.variance.clamp(min=MIN_VARIANCE)
        return (difference.square() / variance + variance.log()).sum(1, keepdim=True)

    def posterior(self, noise: Tensor, difference: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.variance / (self.variance + noise)  # how far to trust the voxel itself
        return weight * difference, weight * noise

    def variances(self) -> Tensor:
        return self.variance


@dataclass(frozen=True)
class Full:
    """Correlated channels."""

    lower: Triangle

    def plus(self, variance: Tensor) -> Full:
        diagonal = variance.unbind(1)
        return Full([[s + diagonal[i] if i == j else s for j, s in enumerate(row)] for i, row in enumerate(self.lower)])

    def mixed(self, scale: Tensor, vector: Tensor, weight: Tensor) -> Full:
        v, scale, weight = vector.unbind(1), scale[:, 0], weight[:, 0]
        return Full([[scale * s + weight * v[i] * v[j] for j, s in enumerate(row)] for i, row in enumerate(self.lower)])

    def deviance(self, difference: Tensor) -> Tensor:
        factor = _cholesky(self.lower)
        white = _forward(factor, list(difference.unbind(1)))
        square = sum((z.square() for z in white), start=torch.zeros_like(white[0]))
        log_det = sum((2 * factor[i][i].log() for i in range(len(factor))), start=torch.zeros_like(square))
        return (square + log_det).unsqueeze(1)

    def posterior(self, noise: Tensor, difference: Tensor) -> tuple[Tensor, Tensor]:
        factor = _cholesky(self.plus(noise).lower)
        shift = self._times(_backward(factor, _forward(factor, list(difference.unbind(1)))))
        # the i-th column of (S + N)**-1 S, of which only the i-th entry is wanted
        trust = [_backward(factor, _forward(factor, self._column(i)))[i] for i in range(len(factor))]
        return torch.stack(shift, 1), torch.stack(trust, 1) * noise

    def variances(self) -> Tensor:
        return torch.stack([row[-1] for row in self.lower], 1)

    def _column(self, j: int) -> list[Tensor]:
        return [self.lower[max(i, j)][min(i, j)] for i in range(len(self.lower))]

    def _times(self, vector: list[Tensor]) -> list[Tensor]:
        products = [[s * v for s, v in zip(self._column(i), vector, strict=True)] for i in range(len(vector))]
        return [torch.stack(terms).sum(0) for terms in products]


def log_density(covariance: Covariance, difference: Tensor) -> Tensor:
    """Logarithm of the normal density at a distance from the mean, (B, 1, ...)."""
    return -0.5 * (covariance.deviance(difference) + difference.shape[1] * math.log(2 * math.pi))


def _cholesky(lower: Triangle) -> Triangle:
    """Lower triangular L with L L' = S; pivots that rounding made negative are raised to `MIN_VARIANCE`."""
    factor: Triangle = []
    for i, row in enumerate(lower):
        factor.append([])
        for j, s in enumerate(row):
            for k in range(j):
                s = s - factor[i][k] * factor[j][k]
            factor[i].append(s.clamp(min=MIN_VARIANCE).sqrt() if i == j else s / factor[j][j])
    return factor


def _forward(factor: Triangle, vector: list[Tensor]) -> list[Tensor]:
    """Solve L z = v."""
    solved: list[Tensor] = []
    for i, v in enumerate(vector):
        for k in range(i):
            v = v - factor[i][k] * solved[k]
        solved.append(v / factor[i][i])
    return solved


def _backward(factor: Triangle, vector: list[Tensor]) -> list[Tensor]:
    """Solve L' z = v."""
    solved: list[Tensor] = [*vector]
    for i in reversed(range(len(vector))):
        v = vector[i]
        for k in range(i + 1, len(vector)):
            v = v - factor[k][i] * solved[k]
        solved[i] = v / factor[i][i]
    return solved
