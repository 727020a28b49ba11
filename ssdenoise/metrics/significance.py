"""Whether methods differ: paired tests, effect sizes, ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

Values = npt.NDArray[np.float64]

#: Under this p value a difference counts.
SIGNIFICANT = 0.05


def paired(a: Values, b: Values) -> tuple[float, float]:
    """P value and effect size of the difference of paired scores.

    Parameters
    ----------
    a, b : array of shape (n,)
        Scores of the same planes, or means of the same runs of planes, as neighbours are no independent samples.

    Returns
    -------
    float, float
        Of the two-sided Wilcoxon signed-rank test; and the matched-pairs rank-biserial correlation, from -1 (`b` is
        better throughout) to 1 (`a` is), Kerby 2014. NaN of less than six pairs, which cannot be significant at 5 %.
    """
    difference = a - b
    if len(difference) < 6:
        return float("nan"), float("nan")
    difference = difference[difference != 0]  # as the test does
    if not len(difference):
        return 1.0, 0.0
    ranks = stats.rankdata(np.abs(difference))
    effect = float(np.sum(np.sign(difference) * ranks) / ranks.sum())
    return float(stats.wilcoxon(difference).pvalue), effect


def holm(p: Sequence[float]) -> Values:
    """P values of a family of tests, corrected by Holm's method; NaN ones are no tests."""
    from statsmodels.stats.multitest import multipletests  # half a second to import

    values = np.array(p, np.float64)
    tested = np.isfinite(values)
    if tested.any():
        values[tested] = multipletests(values[tested], method="holm")[1]
    return values


def least_p(pairs: int, tests: int) -> float:
    """The smallest p value that so many pairs can reach, the first of so many tests corrected together."""
    return min(1.0, tests * 2.0 ** (1 - pairs))


def run_means(values: Values, block: int) -> Values:
    """Means over runs of `block` planes along the first axis; what is left over joins the last run."""
    runs = max(1, len(values) // block)
    return np.stack([values[i * block : (i + 1) * block if i < runs - 1 else None].mean(axis=0) for i in range(runs)])


def critical_difference(methods: int, cells: int, level: float = 0.05) -> float:
    """By how much mean ranks must differ to be significant (Nemenyi's test; Demšar, JMLR 7:1, 2006, section 3.2.2)."""
    q = stats.studentized_range.ppf(1 - level, methods, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * cells)))
