"""Scores without a reference: what they assume, and how far they can be trusted to rank methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

#: A method this close to the best, in dB, is as good.
CLOSE = 0.15


@dataclass(frozen=True)
class Criterion:
    """A score that needs no reference.

    Attributes
    ----------
    value : callable
        Of rows of the comparison; higher is better.
    assumes : str
    level : str or None
        Column in which it is an estimate of the PSNR.
    """

    value: Callable[[pd.DataFrame], pd.Series[float]]
    assumes: str
    level: str | None = None


def _correlation(rows: pd.DataFrame) -> pd.Series[float]:
    """How far the residual's correlations are from the noise's own, which stand in the row of the noisy input."""
    noise = rows.loc[rows["method"] == "noisy"].iloc[0]
    axes = [rows[f"residual_correlation_{axis}"] - noise[f"residual_correlation_{axis}"] for axis in "yx"]
    return pd.Series(-np.hypot(*axes))


CRITERIA: Mapping[str, Criterion] = {
    "upsnr": Criterion(lambda rows: rows["upsnr"], "another realization with the same, independent noise", "upsnr"),
    "risk": Criterion(
        lambda rows: -rows["risk"],
        "independent noise between voxels, of the calibrated gain, offset and read noise",
        "risk_psnr",
    ),
    "blind error": Criterion(lambda rows: -rows["blind_error"], "independent noise between voxels"),
    "thinned error": Criterion(lambda rows: -rows["thinned_error"], "photon counts of the calibrated gain and offset"),
    "thinned resolution": Criterion(
        lambda rows: -rows["resolution_thinned"],
        "photon counts of the calibrated gain and offset; that finer is better",
    ),
    "residual ratio": Criterion(
        lambda rows: -np.abs(np.log(rows["residual_ratio"])), "that the calibrated noise variance is right"
    ),
    "residual correlation": Criterion(
        _correlation, "that structure is correlated between neighbours, unlike the noise"
    ),
}


def _known(table: pd.DataFrame) -> dict[tuple[str, str, int], pd.DataFrame]:
    """Rows of methods whose PSNR is known, by dataset, noise level and seed; without lots, in those of all seeds."""
    known = table[table["psnr"].notna() & (table["method"] != "noisy") & table["chosen"].isna()]
    cells = {}
    for (dataset, noise), part in known.groupby(["dataset", "noise"], sort=False):
        for seed in part["seed"].unique():
            own = part[part["seed"] == seed]
            others = part[~part["method"].isin(own["method"])].drop_duplicates("method")
            cells[str(dataset), str(noise), int(seed)] = pd.concat([own, others])
    return cells


def trust(table: pd.DataFrame) -> pd.DataFrame:
    """How well each criterion ranks the methods of datasets whose true PSNR is known.

    Parameters
    ----------
    table : DataFrame
        The comparison, one row for each dataset, noise level, method entry and seed.

    Returns
    -------
    DataFrame
        Per criterion: Kendall's tau between its ranking and that by PSNR, mean over cells of dataset, noise level and
        seed, methods without lots in the cells of all seeds; in how many cells its favourite is the best method or
        within `CLOSE` dB of it; the number of cells; by how much it is above the PSNR, if it is an estimate of that;
        and what it assumes. Empty without such datasets.
    """
    noisy = table[table["method"] == "noisy"].set_index(["dataset", "noise"], drop=False)
    cells = [
        (rows, pd.concat([rows, noisy.loc[[(dataset, noise)]]]))
        for (dataset, noise, _), rows in _known(table).items()
        if len(rows) > 1
    ]
    found = []
    for name, criterion in CRITERIA.items():
        taus, close, above = [], [], []
        for rows, with_noisy in cells:
            values = criterion.value(with_noisy)[: len(rows)].to_numpy(float)
            if np.isfinite(values).all():
                taus.append(float(stats.kendalltau(values, rows["psnr"]).statistic))  # NaN, if all are equal
                close.append(rows["psnr"].max() - rows["psnr"].iloc[int(np.argmax(values))] <= CLOSE)
                if criterion.level:
                    above.append(float((rows[criterion.level] - rows["psnr"]).mean()))
        if taus:
            found.append(
                {
                    "criterion": name,
                    "kendall_tau": float(np.nanmean(taus)) if np.isfinite(taus).any() else np.nan,
                    "right": int(sum(close)),
                    "cells": len(taus),
                    "bias_db": float(np.mean(above)) if above else np.nan,
                    "assumes": criterion.assumes,
                }
            )
    return pd.DataFrame(found, columns=["criterion", "kendall_tau", "right", "cells", "bias_db", "assumes"])


def choices(table: pd.DataFrame) -> pd.DataFrame:
    """What `auto` entries chose against what was best by PSNR, where that is known.

    Parameters
    ----------
    table : DataFrame
        The comparison, one row for each dataset, noise level, method entry and seed.

    Returns
    -------
    DataFrame
        For each entry, method chosen and best method of the run: the number of cells, in how many of them the chosen
        one is within `CLOSE` dB of the best, and how far behind it is at most.
    """
    made = table[table["chosen"].notna() & table["psnr"].notna()]
    found, cells = [], _known(table)
    for _, row in made.iterrows():
        rows = cells.get((str(row["dataset"]), str(row["noise"]), int(row["seed"])))
        scores = pd.Series(dtype=float) if rows is None else rows.set_index("method")["psnr"]
        if row["chosen"] in scores:
            behind = scores.max() - scores[row["chosen"]]
            found.append({"entry": row["method"], "chosen": row["chosen"], "best": scores.idxmax(), "behind": behind})
    if not found:
        return pd.DataFrame(columns=["entry", "chosen", "best", "cells", "close", "behind"])
    groups = pd.DataFrame(found).groupby(["entry", "chosen", "best"], sort=False)["behind"]
    return groups.agg(cells="count", close=lambda behind: int((behind <= CLOSE).sum()), behind="max").reset_index()
