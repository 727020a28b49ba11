"""Compare: gather the scores of all volumes into the tables of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import zarr

from ssdenoise.compare.criteria import CLOSE, choices, trust
from ssdenoise.compare.figure import draw
from ssdenoise.compare.printing import CHOICES, TRUST, caption, html, latex, markdown, printed
from ssdenoise.compare.rows import Cell, probed, seed_row
from ssdenoise.compare.summary import summarised
from ssdenoise.config.specs import CompareSpec
from ssdenoise.errors import ConfigError
from ssdenoise.metrics import psnr
from ssdenoise.provenance import Clock, code_hash, file_digest, record, write_json, write_text

CELL = ["dataset", "noise"]


def files_of(spec: CompareSpec, run: Path) -> tuple[list[Path], Path, list[Path]]:
    """Files of `score` in the folder of a run, that folder, and files of `probe`, as the spec expects them."""
    scores, probes = [], []
    for one in spec.expected:
        for scene in (run / dataset / noise for dataset in one.datasets for noise in one.noise):
            folders = [scene / method / f"seed-{seed}" for method, seed in one.jobs]
            scores += [scene / "noisy-scores.parquet", *(folder / "scores.parquet" for folder in folders)]
            probes += [folder / "probe.parquet" for folder in folders]
    if not scores:
        raise ConfigError("no scores: name files that `score` wrote, or what the run is expected to have (`expected`)")
    return scores, run, probes


def compare(spec: CompareSpec, scores: Sequence[Path], output: Path, probes: Sequence[Path] = ()) -> pd.DataFrame:
    """Write the tables of a run.

    - `comparison.csv`, `.parquet`: one row per dataset, noise level, method entry and seed; as `comparison.zarr` an
      xarray Dataset whose `score` has the dimensions dataset, noise, method, seed and metric.
    - `summary.csv`, `.parquet`: one row per dataset, noise level and method entry, over all seeds, with the paired
      comparison with the baseline; for people as `comparison.md`, `.tex` and `.html`.
    - `criteria.csv`: how well scores without a reference rank the methods, where the truth is known.
    - `levels`, `cost`, `ranks`, each `.png` and `.pdf`: scores against the level of the noise and against what they
      cost, and the critical-difference diagram.
    - `scores.parquet`: one row per plane. `comparison.json`: provenance.

    Parameters
    ----------
    spec : CompareSpec
    scores : sequence of Path
        Parquet files of `score`.
    output : Path
        Folder of the run.
    probes : sequence of Path
        Parquet files of `probe`.

    Returns
    -------
    DataFrame
        One row per dataset, noise level, method entry and seed.
    """
    clock = Clock()
    planes = pd.concat([pd.read_parquet(path) for path in scores], ignore_index=True)
    cells = [Cell.of(part, spec.average, spec.bootstrap_block) for _, part in planes.groupby(CELL, sort=False)]
    table = _levelled(
        spec,
        pd.DataFrame(
            [
                seed_row(cell, method, seed, part)
                for cell in cells
                for (method, seed), part in cell.planes.groupby(["method", "seed"], sort=False)
            ]
        ),
    )
    table = table.join(probed([pd.read_parquet(path) for path in probes]), on=[*CELL, "method", "seed"])
    _estimated(table)
    summary = _summary(spec, cells, table)
    output.mkdir(parents=True, exist_ok=True)
    planes.to_parquet(output / "scores.parquet", index=False)
    for name, rows in (("comparison", table), ("summary", summary)):
        write_text(output / f"{name}.csv", rows.to_csv(index=False, float_format="%.6g"))
        rows.to_parquet(output / f"{name}.parquet", index=False)
    with zarr.config.set({"codec_pipeline.path": "zarr.core.codec_pipeline.BatchedCodecPipeline"}):  # for its texts
        to_xarray(table).to_zarr(output / "comparison.zarr", mode="w", zarr_format=3, consolidated=False)
    draw(summary, output)
    _print(spec, table, summary, output)
    files = {str(path): file_digest(path) for path in (*scores, *probes)}
    provenance = record(
        "compare", spec=spec.model_dump(mode="json"), inputs=files, code=code_hash("compare"), clock=clock
    )
    write_json(output / "comparison.json", provenance)
    return table


def _estimated(rows: pd.DataFrame) -> None:
    """Add what the risk amounts to in decibels: as a PSNR, and as a gain over the noise that was calibrated."""
    risk = rows["risk"].where(rows["risk"] > 0)
    rows["risk_psnr"] = psnr(risk.where(rows["reference_fit"] != "affine"), rows["data_range"])
    rows["risk_gain"] = psnr(risk, np.sqrt(rows["noise_variance"]))


def _levelled(spec: CompareSpec, table: pd.DataFrame) -> pd.DataFrame:
    """With the level of the noise in decibels, which is what the noisy input scores; the gain; published figures."""
    noisy = table[table["method"] == "noisy"].set_index(CELL)["psnr"]
    table.insert(3, "level", [noisy.get(cell, np.nan) for cell in zip(table["dataset"], table["noise"], strict=True)])
    after = list(table.columns).index("psnr_hi") + 1
    found = {(one.dataset, one.noise, one.method): one.psnr for one in spec.published}
    keys = zip(table["dataset"], table["noise"], table["method"], strict=True)
    table.insert(after, "published_psnr", [found.get(key, np.nan) for key in keys])
    table.insert(after, "psnr_gain", table["psnr"] - table["level"])
    return table


def _summary(spec: CompareSpec, cells: Sequence[Cell], table: pd.DataFrame) -> pd.DataFrame:
    """The aggregated table: tests, and the means over seeds of what has no interval."""
    rows = summarised(cells, spec.baseline)
    others = table.drop(columns=[name for name in rows if name in table and name not in (*CELL, "method")])
    means = (
        others.drop(columns=["seed", "reference_fit", "detector", "chosen"])
        .groupby([*CELL, "method"], sort=False)
        .mean()
    )
    named = {key: ", ".join(sorted(set(part.dropna()))) for key, part in table.groupby([*CELL, "method"])["chosen"]}
    rows["chosen"] = [named[key] or None for key in zip(*(rows[k] for k in (*CELL, "method")), strict=True)]
    # what is left of the error when the mean over trainings is taken; what the noise's draw causes is in it
    rows["error_beyond_seeds"] = rows["mean_squared_error"] - rows["seed_variance"]
    rows = rows.join(means, on=[*CELL, "method"])
    # the square of the bias: what is left when the mean over draws of the noise is taken, by the same model
    rows["error_beyond_repeats"] = rows["mean_squared_error"] - rows["repeat_variance"]
    fits = table.drop_duplicates(CELL).set_index(CELL)["reference_fit"]
    rows = rows.drop(columns=["risk_psnr", "risk_gain"]).join(fits, on=CELL)
    _estimated(rows)  # of the mean over seeds, not the mean of decibels
    rows.loc[rows["reference_fit"] == "affine", "error_beyond_repeats"] = np.nan  # the error is in other units
    return rows.drop(columns="reference_fit")


def _print(spec: CompareSpec, table: pd.DataFrame, summary: pd.DataFrame, output: Path) -> None:
    text, shown, best = caption(spec, table, summary), printed(summary), summary["best"]
    trusted = trust(table)
    write_text(output / "criteria.csv", trusted.to_csv(index=False, float_format="%.3f"))
    page = f"# {spec.run}\n\n{markdown(shown, best)}\n\n{text}\n{_trust(trusted)}{_choices(choices(table))}"
    write_text(output / "comparison.md", page)
    write_text(output / "comparison.tex", latex(shown, best, text))
    write_text(output / "comparison.html", html(shown, best, text, spec.run))


def _trust(trusted: pd.DataFrame) -> str:
    """How far each score without a reference can be trusted, as Markdown."""
    if trusted.empty:
        return ""
    says = trusted.assign(right=[f"{r} of {n}" for r, n in zip(trusted["right"], trusted["cells"], strict=True)])
    heads = {"kendall_tau": "tau", "right": "best or close", "bias_db": "bias/dB"}
    says = says.drop(columns="cells").rename(columns=heads).astype(object)
    shown = says.where(says.notna(), None).to_markdown(index=False, floatfmt="+.2f", missingval="-")
    return f"\n{shown}\n\n{TRUST.format(cells=trusted['cells'].max())}\n"


def _choices(made: pd.DataFrame) -> str:
    """What automatic entries chose, as Markdown."""
    if made.empty:
        return ""
    heads = {"best": "best by PSNR", "close": f"within {CLOSE} dB", "behind": "at most behind/dB"}
    return f"\n{made.rename(columns=heads).to_markdown(index=False, floatfmt='.2f')}\n\n{CHOICES}\n"


def to_xarray(table: pd.DataFrame):  # type: ignore[no-untyped-def]
    """The comparison as an xarray Dataset: `score` by dataset, noise, method, seed and metric; NaN where none is."""
    keys = [*CELL, "method", "seed"]
    # the noisy input and methods that draw no lots are the same for all seeds
    single = table.groupby([*CELL, "method"])["seed"].transform("nunique") == 1
    seeds = table.loc[table["method"] != "noisy", "seed"].unique()
    table = pd.concat([table[~single], *(table[single].assign(seed=seed) for seed in seeds)])
    figures = table.set_index(keys).select_dtypes("number").astype(float)
    return figures.to_xarray().to_dataarray("metric", name="score").transpose(*keys, "metric").to_dataset()
