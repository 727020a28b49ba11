"""Confidence intervals by resampling planes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Runs:
    """How planes are resampled: in runs, as neighbours are alike and independent draws make intervals too narrow.

    Attributes
    ----------
    planes : int
    block : int
        Planes per run.
    correlation : float
        Of neighbours; what is left of it between runs widens the interval.
    """

    planes: int
    block: int
    correlation: float = 0.0

    @classmethod
    def of(cls, values: Values) -> Runs:
        """Runs as long as the correlation of neighbours asks for.

        Twice the length that is best for the variance of an autoregressive series of first order (Carlstein, Annals of
        Statistics 14:1171, 1986), as what counts here is that intervals hold what they say; four runs at least.

        Parameters
        ----------
        values : array of shape (n,)
            One value per plane, in plane order.
        """
        n, deviations = len(values), values - values.mean()
        square = float(deviations @ deviations)
        found = float(deviations[1:] @ deviations[:-1]) / square if square else 0.0
        r = float(np.clip(found + (1 + 3 * found) / n, 0, 0.95))  # a short series seems less correlated than it is
        best = (2 * r / (1 - r * r)) ** (2 / 3) * n ** (1 / 3)
        return cls(n, int(np.clip(round(2 * best), 1, max(1, n // 4))), r)

    @property
    def independent(self) -> float:
        """How many independent planes would tell as much of a mean."""
        return self.planes * (1 - self.correlation) / (1 + self.correlation)

    def means(self, values: Values, rng: np.random.Generator, draws: int = 2000) -> Values:
        """Means of resampled planes: circular block bootstrap (Politis & Romano 1992).

        Parameters
        ----------
        values : array of shape (n, ...)
            One value, or several, per plane, in plane order.
        rng : numpy.random.Generator
        draws : int

        Returns
        -------
        array of shape (draws, ...)
        """
        starts = rng.integers(0, self.planes, (draws, -(-self.planes // self.block), 1))
        index = ((starts + np.arange(self.block)) % self.planes).reshape(draws, -1)[:, : self.planes]
        times = np.stack([np.bincount(one, minlength=self.planes) for one in index])  # that a draw holds a plane
        return np.asarray(np.tensordot(times, values, 1) / self.planes)

    def interval(self, value: float, drawn: Values, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval of a mean, or of a function of means, from what it is of resampled planes.

        The quantiles of what was drawn, further from `value` by three factors: few runs are spread less around their
        own mean than around the true one, and are known less well (t instead of normal quantiles: Hesterberg, The
        American Statistician 69:371, 2015, section 3.2), and runs that follow each other are a little correlated (by
        this at most twice as far).

        Parameters
        ----------
        value : float
            Of the planes as they are.
        drawn : array of shape (draws,)
        level : float

        Returns
        -------
        float, float
            NaN where there are less than two runs.
        """
        runs = self.planes / self.block
        if runs < 2:
            return float("nan"), float("nan")
        tails = (1 - level) / 2, (1 + level) / 2
        wider = np.sqrt(runs / (runs - 1)) * stats.t.ppf(tails[1], runs - 1) / stats.norm.ppf(tails[1])
        lags, r = np.arange(1, self.block), self.correlation
        seen = 1 + 2 * np.sum((1 - lags / self.block) * r**lags)  # of the variance of a long mean, (1 + r) / (1 - r)
        wider *= min(2.0, np.sqrt((1 + r) / (1 - r) / seen))
        low, high = value + wider * (np.quantile(drawn, tails) - value)
        return float(low), float(high)
