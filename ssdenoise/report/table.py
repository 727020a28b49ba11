"""The comparison of a run as the page shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ssdenoise.metrics import psnr
from ssdenoise.provenance import file_digest, read_json
from ssdenoise.report.collect import Scene

KEYS = ("dataset", "noise", "method", "seed")

#: Heads and formats of the columns that a reader looks at first; others get their name and four digits.
FIRST = {
    "dataset": ("dataset", "{}"),
    "noise": ("noise", "{}"),
    "method": ("method", "{}"),
    "seed": ("seed", "{}"),
    "psnr": ("PSNR/dB", "{:.2f}"),
    "psnr_gain": ("gain/dB", "{:+.2f}"),
    "published_psnr": ("published", "{:.2f}"),
    "ssim": ("SSIM", "{:.3f}"),
    "residual_ratio": ("residual ratio", "{:.2f}"),
    "residual_correlation_y": ("corr. Y", "{:+.2f}"),
    "residual_correlation_x": ("corr. X", "{:+.2f}"),
    "train_seconds": ("train/s", "{:.0f}"),
    "denoise_seconds": ("denoise/s", "{:.1f}"),
}
#: Columns of the file that say the same of all rows of a dataset.
LEFT_OUT = ("situation",)

UNFINISHED = (
    "The comparison of this run is not made yet. PSNR is here the mean over planes of each plane's, SSIM the mean over "
    "planes, from the scores there are; `compare` may average otherwise, and adds intervals."
)


@dataclass(frozen=True)
class Column:
    """A column: its name in `comparison.csv`, its head, and whether it is shown before all are asked for."""

    name: str
    head: str
    numeric: bool
    first: bool


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and what it is sorted by; None comes last."""

    text: str
    value: float | str | None


@dataclass(frozen=True)
class Table:
    """Columns, rows of as many cells, and paragraphs to stand below."""

    columns: list[Column]
    rows: list[list[Cell]]
    caption: list[str]

    def psnr(self, scene: Scene) -> dict[str, str]:
        """PSNR in decibels of each method entry's first seed on a scene, as text."""
        names = [column.name for column in self.columns]
        if "psnr" not in names:
            return {}
        at, found = names.index("psnr"), dict[str, str]()
        for row in self.rows:
            dataset, noise, method = (row[names.index(key)].text for key in KEYS[:3])
            if (dataset, noise) == (scene.dataset, scene.noise) and row[at].value is not None:
                found.setdefault(method, f"{row[at].text} dB")
        return found


def comparison(run: Path, scenes: Sequence[Scene]) -> Table | None:
    """The run's `comparison.csv` or, where it is not there or older than the scores, means over these; None without."""
    files = [file for scene in scenes for file in scene.scores.values()]
    if _is_up_to_date(run, files):
        text = {key: str for key in KEYS[:3]}  # a dataset's name may be a number, or `NA`
        table = pd.read_csv(run / "comparison.csv", dtype=text, keep_default_na=False, na_values=[""])
        # that of an earlier run may have more rows
        done = {(scene.dataset, scene.noise, *job) for scene in scenes for job in scene.scores}
        table = table[[key in done for key in zip(*(table[name] for name in KEYS), strict=True)]]
        caption = _caption(run / "comparison.md")
    elif files:
        table, caption = _means(files), [UNFINISHED]
    else:
        return None
    place = {(scene.dataset, scene.noise): number for number, scene in enumerate(scenes)}
    keys = zip(table["dataset"], table["noise"], strict=True)
    order = np.argsort([place.get(key, len(place)) for key in keys], kind="stable")
    return Table(*_laid_out(table.iloc[order]), caption)


def tested(run: Path) -> list[tuple[str, list[str]]]:
    """Rows of the paired tests in `summary.csv`: what is compared, and its figures; none where nothing was tested."""
    if not (run / "summary.csv").is_file():
        return []
    rows = pd.read_csv(run / "summary.csv", dtype={key: str for key in KEYS[:3]}, keep_default_na=False, na_values=[""])
    rows = rows[rows["psnr_difference"].notna() & (rows["method"] != "noisy")]
    found = []
    for _, row in rows.iterrows():
        what = f"{row['dataset']} {row['noise']}: {row['method']} to {row['baseline']}"
        figures = (f"{row['psnr_difference']:+.2f}", _or_dash(row["p_value"]), _or_dash(row["effect_size"]))
        found.append((what, [text.replace("-", "−") for text in figures]))
    return found


def trusted(run: Path) -> list[tuple[str, list[str]]]:
    """Rows of `criteria.csv`: criterion, tau, where its favourite was good, its bias, and what it assumes."""
    if not (run / "criteria.csv").is_file():
        return []
    return [
        (
            row["criterion"],
            [
                _or_dash(row["kendall_tau"]).replace("-", "−"),
                f"{row['right']} of {row['cells']}",
                _or_dash(row["bias_db"]).replace("-", "−"),
                row["assumes"],
            ],
        )
        for _, row in pd.read_csv(run / "criteria.csv").iterrows()
    ]


def _or_dash(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.2g}"


def _is_up_to_date(run: Path, files: Sequence[Path]) -> bool:
    """Whether the comparison was made of all the scores there are."""
    if not (run / "comparison.csv").is_file() or not (run / "comparison.json").is_file():
        return False
    made_of = set(read_json(run / "comparison.json")["inputs"].values())
    return {file_digest(file) for file in files} <= made_of


def _means(files: Sequence[Path]) -> pd.DataFrame:
    """PSNR and SSIM of each volume as the mean over its planes."""
    planes = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    planes["psnr"] = psnr(planes["mean_squared_error"], planes["data_range"])
    return planes.groupby(list(KEYS), sort=False)[["psnr", "ssim"]].mean().reset_index()


def _laid_out(table: pd.DataFrame) -> tuple[list[Column], list[list[Cell]]]:
    columns: list[Column] = []
    cells: list[list[Cell]] = []
    names = [str(name) for name in table]
    order = [name for name in FIRST if name in names] + [name for name in names if name not in FIRST]
    bounds = {f"{name}_{end}" for name in names for end in ("lo", "hi") if {f"{name}_lo", f"{name}_hi"} <= {*names}}
    for name in order:
        if name in LEFT_OUT or name in bounds or (table[name].isna().all() and name not in KEYS):
            continue
        first = name in FIRST and not (name == "seed" and table[name].nunique() == 1)
        head, form = FIRST.get(name, (name.replace("_", " "), "{:.4g}"))
        numeric = bool(pd.api.types.is_numeric_dtype(table[name]))
        columns.append(Column(name, head, numeric, first))
        cells.append([_cell(value, form if numeric or name in FIRST else "{}", numeric) for value in table[name]])
        if f"{name}_lo" in bounds and not table[f"{name}_lo"].isna().all():
            columns.append(Column(f"{name}_lo", "95 % interval", True, name == "psnr"))
            ends = zip(table[f"{name}_lo"], table[f"{name}_hi"], strict=True)
            cells.append([_interval(low, high, form) for low, high in ends])
    return columns, [list(row) for row in zip(*cells, strict=True)]


def _cell(value: Any, form: str, numeric: bool) -> Cell:
    if pd.isna(value):
        return Cell("–", None)
    text = form.format(value)
    return Cell(text.replace("-", "−"), float(value)) if numeric else Cell(text, str(value))


def _interval(low: float, high: float, form: str) -> Cell:
    if not np.isfinite(low):
        return Cell("–", None)
    return Cell(f"{form.format(low)} to {form.format(high)}", float(low))


def _caption(markdown: Path) -> list[str]:
    """The paragraphs of `comparison.md` that are neither head nor table: what the columns mean."""
    if not markdown.is_file():
        return []
    paragraphs = (" ".join(part.split()) for part in markdown.read_text().split("\n\n"))
    return [text for text in paragraphs if text and not text.startswith(("#", "|"))]
