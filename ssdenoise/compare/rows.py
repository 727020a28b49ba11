"""From scores of planes to one row for each denoised volume."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ssdenoise.metrics import SAMPLED, Rings, Runs, psnr, resolution, ring_correlation
from ssdenoise.noise import stream

Values = npt.NDArray[np.float64]

#: Columns of planes that are averaged over the channels of a plane, then over planes.
AVERAGED = (
    "mean_squared_error",
    "fitted_squared_error",
    "reference_square",
    "ssim",
    "ms_ssim",
    "micro_ssim",
    "pair_error",
    "pair_difference",
    "sibling_difference",
    "unfitted_error",
    "stated_variance",
    "within_95",
)
COSTS = (
    "parameters",
    "train_seconds",
    "denoise_seconds",
    "train_joules",
    "denoise_joules",
    "megavoxels_per_second",
    "peak_memory_mb",
    "clipped_share",
)

#: Scores that say nothing where the reference is in other units.
OF_NOISY_UNITS = ("upsnr", "seed_variance", "z_rms", "within_95")

#: Scores that get an interval.
WITH_INTERVAL = ("psnr", "ssim", "upsnr")


@dataclass(frozen=True)
class Cell:
    """A dataset at one noise level: the planes of each method entry and seed, and how they are resampled.

    Attributes
    ----------
    dataset, situation, noise : str
    planes : DataFrame
        Rows of all methods and seeds.
    average : {"error", "psnr"}
    runs : Runs
    fixed : bool
        Whether the length of runs was given; if not, that of a paired test follows from the differences, which are
        less correlated than the planes are.
    """

    dataset: str
    situation: str
    noise: str
    planes: pd.DataFrame
    average: str
    runs: Runs
    fixed: bool = False

    @property
    def fitted(self) -> bool:
        """Whether the reference is in other units than the noisy volume."""
        return bool(self.planes["reference_fit"].iloc[0] == "affine")

    @classmethod
    def of(cls, planes: pd.DataFrame, average: str, block: int | str) -> Cell:
        """The cell that all these rows belong to; `block` is the length of runs, or `auto`."""
        first = planes.iloc[0]
        pictures = [pictures_of(part) for _, part in planes.groupby(["method", "seed"], sort=False)]
        n = len(pictures[0])
        if block == "auto":
            values = [np.asarray(_level(one), np.float64) for one in pictures]
            each = [Runs.of(one) for one in values if np.isfinite(one).all()] or [Runs(n, 1)]
            # the same planes are resampled for all methods, so that rows can be compared
            runs = Runs(n, max(one.block for one in each), max(one.correlation for one in each))
        else:
            # of few planes, runs that long would all be the whole volume
            runs = Runs(n, min(int(block), max(1, n // 4)))
        return cls(first["dataset"], first["situation"], first["noise"], planes, average, runs, block != "auto")

    @property
    def data_range(self) -> float:
        """Of PSNR and SSIM."""
        return float(self.planes["data_range"].iloc[0])

    def names(self) -> dict[str, object]:
        """First columns of each row."""
        return {"dataset": self.dataset, "situation": self.situation, "noise": self.noise}


def pictures_of(part: pd.DataFrame) -> pd.DataFrame:
    """Scores of each plane: its channels are one picture, its error is over all of them."""
    return part.groupby(["t", "z"])[list(AVERAGED)].mean()


def _level(pictures: pd.DataFrame) -> pd.Series[float]:
    """What tells how alike neighbouring planes are: the error, or without a truth the other realization's."""
    known = pictures["mean_squared_error"].notna().all()
    return pictures["mean_squared_error" if known else "pair_error"]


def measures(cell: Cell) -> Mapping[str, Callable[[Mapping[str, Values]], Values]]:
    """Scores, each as a function of the means of columns over planes; NaN where it cannot be told."""

    def square_root(values: Values) -> Values:
        with np.errstate(invalid="ignore"):
            return np.sqrt(values)

    def upsnr(means: Mapping[str, Values]) -> Values:
        # Marcos-Morales et al., ICML 2023, arXiv:2210.05553: the other realization's own noise is half of what the two
        # differ by, if both have the same
        error = means["pair_error"] - means["pair_difference"] / 2
        return psnr(np.where(error > 0, error, np.nan), cell.data_range)

    known: dict[str, Callable[[Mapping[str, Values]], Values]] = {
        "mean_squared_error": lambda m: m["mean_squared_error"],
        "psnr": lambda m: m["psnr"] if cell.average == "psnr" else psnr(m["mean_squared_error"], cell.data_range),
        "psnr_fitted": lambda m: psnr(m["fitted_squared_error"], cell.data_range),
        "ssim": lambda m: m["ssim"] / m["ssim_known"],
        "ms_ssim": lambda m: m["ms_ssim"],
        "micro_ssim": lambda m: m["micro_ssim"],
        "nrmse": lambda m: square_root(m["mean_squared_error"] / m["reference_square"]),
        "upsnr": upsnr,
        "seed_variance": lambda m: m["sibling_difference"] / 2,
        "z_rms": lambda m: square_root(m["unfitted_error"] / m["stated_variance"]),
        "within_95": lambda m: m["within_95"],
    }
    if cell.fitted:  # errors in the units of the noisy volume, of which the data range tells nothing
        known |= dict.fromkeys(OF_NOISY_UNITS, lambda m: m["psnr"] * np.nan)
    return known


def scored(cell: Cell, pictures: pd.DataFrame) -> dict[str, float]:
    """All measures over planes, with the intervals of some."""
    columns = pictures.assign(
        psnr=psnr(pictures["mean_squared_error"], cell.data_range),
        ssim=pictures["ssim"].fillna(0),  # planes near the ends of a volume have no window of three dimensions
        ssim_known=pictures["ssim"].notna().astype(float),
    )
    values = columns.to_numpy(np.float64)
    names = [str(name) for name in columns]
    means = dict(zip(names, values.mean(axis=0), strict=True))
    drawn = cell.runs.means(values, stream("bootstrap", cell.dataset, cell.situation, cell.noise))
    resampled = dict(zip(names, drawn.T, strict=True))
    row: dict[str, float] = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        for name, measure in measures(cell).items():
            row[name] = float(measure(means))
            if name in WITH_INTERVAL:
                low, high = cell.runs.interval(row[name], measure(resampled))
                if name == "ssim":
                    low, high = max(low, -1.0), min(high, 1.0)
                row |= {f"{name}_lo": low, f"{name}_hi": high}
    return row


def seed_row(cell: Cell, method: object, seed: object, part: pd.DataFrame) -> dict[str, object]:
    """The row of one denoised volume."""
    pictures = pictures_of(part)
    head = cell.names() | {"method": method, "seed": seed, "planes": len(pictures), "data_range": cell.data_range}
    row: dict[str, object] = head | {"reference_fit": part["reference_fit"].iloc[0]} | scored(cell, pictures)
    row |= _residuals(part, noisy=method == "noisy") | _frequencies(part)
    row["noise_variance"] = float(part["noise_variance"].sum() / part["pixels"].sum())
    row["detector"] = part["detector"].iloc[0]
    row["chosen"] = part["chosen"].iloc[0] if "chosen" in part else None  # the noisy input is no method's
    return row | {name: part[name].iloc[0] if name in part else np.nan for name in COSTS}


def _residuals(part: pd.DataFrame, *, noisy: bool) -> dict[str, float]:
    """Scores of what was removed, pooled over planes: a ratio of single planes would be ruled by the darkest."""
    total = part.sum(numeric_only=True)
    if noisy:  # whose residual is zero and says nothing: the noise's own takes the place
        row = {"residual_ratio": np.nan, "variance_balance": np.nan}
        return row | {f"residual_correlation_{axis}": part[f"noise_correlation_{axis}"].mean() for axis in "yx"}
    expected = total["noise_variance"] or np.nan
    row = {"residual_ratio": total["residual_square"] / expected}
    # the noise's variance is that of what was removed and what the estimate says that it does not know
    stated = (part["stated_variance"] * part["pixels"]).sum(min_count=1)
    row["variance_balance"] = (total["residual_square"] + stated) / expected
    for axis in "yx":
        squares = np.sqrt(total[f"residual_first_square_{axis}"] * total[f"residual_second_square_{axis}"])
        row[f"residual_correlation_{axis}"] = total[f"residual_product_{axis}"] / squares if squares else np.nan
    return row


def _frequencies(part: pd.DataFrame) -> dict[str, float]:
    """Up to what period the volume agrees with the truth, and with another realization."""
    return {f"resolution_{other}": _resolution(part, other, THRESHOLDS[other]) for other in ("truth", "pair")}


#: Fourier ring correlations up to which images agree: with a truth without noise, half of the signal's amplitude; with
#: what has noise of its own, the figure for two halves, by which methods are compared, not more.
THRESHOLDS = {"truth": 0.5, "pair": 1 / 7, "thinned": 1 / 7}


def _resolution(part: pd.DataFrame, other: str, threshold: float) -> float:
    """Finest period up to which images agree with others, from the sums of Fourier rings in the rows that have any."""
    columns = [part[f"rings_{other}_{name}"] for name in ("cross", "first", "second")]
    known = [len(rings) > 0 for rings in columns[0]]
    if not any(known):
        return float("nan")
    sums = (np.stack(column[known].to_list()).sum(axis=0) for column in columns)
    return resolution(ring_correlation(Rings(*sums)), threshold)


def probed(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Scores by `probe` of its sample, by dataset, noise level, method entry and seed."""
    keys = ["dataset", "noise", "method", "seed"]
    if not parts:
        return pd.DataFrame(columns=[*keys, *SAMPLED, "resolution_thinned"], dtype=float).set_index(keys)
    groups = pd.concat(parts, ignore_index=True).groupby(keys, sort=False)
    sums = groups.sum(numeric_only=True, min_count=1)
    found = pd.DataFrame({name: sums[name] / sums[per] for name, per in SAMPLED.items()})
    return found.assign(resolution_thinned=[_resolution(part, "thinned", THRESHOLDS["thinned"]) for _, part in groups])
