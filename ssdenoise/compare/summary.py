"""One row for each method over all its seeds, and whether methods differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from ssdenoise.compare.rows import Cell, pictures_of, scored
from ssdenoise.metrics import SIGNIFICANT, Runs, holm, paired, psnr, run_means

Values = npt.NDArray[np.float64]


def summary_rows(cell: Cell, baseline: str | None) -> list[dict[str, object]]:
    """One row for each method entry of a cell: the mean of its seeds, compared with the baseline or the best one."""
    methods: dict[str, pd.DataFrame] = {}
    spread: dict[str, tuple[int, float]] = {}
    for method, part in cell.planes.groupby("method", sort=False):
        seeds = [pictures_of(one) for _, one in part.groupby("seed", sort=False)]
        methods[str(method)] = sum(seeds[1:], seeds[0]) / len(seeds)
        values = [scored(cell, one)["psnr"] for one in seeds]
        spread[str(method)] = len(seeds), float(np.std(values, ddof=1)) if len(seeds) > 1 else np.nan
    rows = {
        name: cell.names()
        | {"method": name, "seeds": spread[name][0], "planes": len(pictures)}
        | scored(cell, pictures)
        for name, pictures in methods.items()
    }
    untested: dict[str, object] = {
        "baseline": None,
        "psnr_difference": np.nan,
        "p_value": np.nan,
        "effect_size": np.nan,
        "best": False,
    }
    for name, row in rows.items():
        row |= untested | {"psnr_seed_std": spread[name][1], "rank": np.nan}
    # an automatic choice is one of the others again
    chosen = {m for m, part in cell.planes.groupby("method") if "chosen" in part and part["chosen"].notna().any()}
    own = {name: row for name, row in rows.items() if name not in chosen}
    _ranked(own)
    _tested(cell, own, methods, baseline)
    return list(rows.values())


def _ranked(rows: Mapping[str, dict[str, object]]) -> None:
    """The rank of each method within its cell, 1 is best; the noisy input is none."""
    ranks = pd.Series({name: row["psnr"] for name, row in rows.items() if name != "noisy"}).rank(ascending=False)
    for name, row in rows.items():
        row["rank"] = float(ranks.get(name, np.nan))


def _tested(
    cell: Cell, rows: Mapping[str, dict[str, object]], pictures: Mapping[str, pd.DataFrame], baseline: str | None
) -> None:
    """Paired comparison of each method with the baseline or, without one, the best; and whether the best stands out."""
    levels = {name: psnr(pictures[name]["mean_squared_error"], cell.data_range) for name in rows}
    best = next((name for name, row in rows.items() if row["rank"] == 1), None)
    if best is None:
        return
    against_best = _against(cell, levels, best)
    others = [p for name, (p, _) in against_best.items() if name != "noisy"]
    rows[best]["best"] = bool(others) and all(p < SIGNIFICANT for p in others)
    against = baseline if baseline in levels else best
    for name, (p, effect) in (against_best if against == best else _against(cell, levels, against)).items():
        difference = float(np.mean(levels[name]) - np.mean(levels[against]))
        rows[name] |= {"baseline": against, "psnr_difference": difference, "p_value": p, "effect_size": effect}


def _against(cell: Cell, levels: Mapping[str, Values], one: str) -> dict[str, tuple[float, float]]:
    """P value, corrected for the number of methods, and effect size of each other method against one."""

    def tested(name: str) -> tuple[float, float]:
        # half of what an interval takes: of few planes it would leave too few runs to test
        block = cell.runs.block if cell.fixed else -(-Runs.of(levels[name] - levels[one]).block // 2)
        return paired(run_means(levels[name], block), run_means(levels[one], block))

    names = [name for name in levels if name != one]
    found = [tested(name) for name in names]
    corrected = holm([p for p, _ in found])
    return {name: (float(p), effect) for name, p, (_, effect) in zip(names, corrected, found, strict=True)}


def summarised(cells: Sequence[Cell], baseline: str | None) -> pd.DataFrame:
    """The aggregated table."""
    return pd.DataFrame([row for cell in cells for row in summary_rows(cell, baseline)])
