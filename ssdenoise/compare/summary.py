"""One row for each method over all its seeds, and whether methods differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from ssdenoise.compare.rows import Cell, pictures_of, scored
from ssdenoise.metrics import SIGNIFICANT, Runs, holm, least_p, paired, psnr, run_means

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
        | {"independent_planes": cell.runs.independent}
        | scored(cell, pictures)
        for name, pictures in methods.items()
    }
    untested: dict[str, object] = {
        "baseline": None,
        "psnr_difference": np.nan,
        "p_value": np.nan,
        "effect_size": np.nan,
        "least_p": np.nan,
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
    # which is the best was seen from the same planes, hence any pair might have been tested
    pairs = _tests(cell, levels, list(combinations(levels, 2)))
    of_best = {name: _turned(pairs, name, best) for name in levels if name != best}
    others = [test for name, test in of_best.items() if name != "noisy"]
    # by most planes, too: a single one can rule the pooled error
    rows[best]["best"] = bool(others) and all(one.p < SIGNIFICANT and one.effect < 0 for one in others)
    against = baseline if baseline in levels else best
    named = [(name, against) for name in levels if name != against]
    found = of_best if against == best else {name: test for (name, _), test in _tests(cell, levels, named).items()}
    for name, test in found.items():
        difference = float(np.mean(levels[name]) - np.mean(levels[against]))
        rows[name] |= {"baseline": against, "psnr_difference": difference}
        rows[name] |= {"p_value": test.p, "effect_size": test.effect, "least_p": test.least}


class Test(NamedTuple):
    """P value, corrected for the number of tests; effect, above 0 if the first is better; the least p possible."""

    p: float
    effect: float
    least: float


def _tests(cell: Cell, levels: Mapping[str, Values], pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Test]:
    """Paired tests of methods, corrected together."""

    def tested(a: str, b: str) -> tuple[float, float, int]:
        # half of what an interval takes: of few planes it would leave too few runs to test
        block = cell.runs.block if cell.fixed else -(-Runs.of(levels[a] - levels[b]).block // 2)
        runs = run_means(levels[a], block), run_means(levels[b], block)
        return *paired(*runs), len(runs[0])

    found = [tested(*pair) for pair in pairs]
    corrected = holm([p for p, *_ in found])
    return {
        pair: Test(float(p), effect, least_p(runs, len(pairs)))
        for pair, p, (_, effect, runs) in zip(pairs, corrected, found, strict=True)
    }


def _turned(pairs: Mapping[tuple[str, str], Test], a: str, b: str) -> Test:
    """The test of two methods, as of the first against the second."""
    if (a, b) in pairs:
        return pairs[a, b]
    return pairs[b, a]._replace(effect=-pairs[b, a].effect)


def summarised(cells: Sequence[Cell], baseline: str | None) -> pd.DataFrame:
    """The aggregated table."""
    return pd.DataFrame([row for cell in cells for row in summary_rows(cell, baseline)])
