"""Intervals, tests, ranks and files of the comparison, from scores of planes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from ssdenoise.compare import compare, files_of
from ssdenoise.compare.criteria import choices, trust
from ssdenoise.compare.figure import _groups
from ssdenoise.config.specs import CompareSpec, Expected
from ssdenoise.errors import ConfigError
from ssdenoise.metrics import critical_difference, holm, paired, resolution


def spec_for(**options: Any) -> CompareSpec:
    return CompareSpec(**({"run": "r", "average": "error", "bootstrap_block": 1} | options))


def rows_for(method: str, errors: np.ndarray, seed: int = 0, **columns: Any) -> pd.DataFrame:
    """Scores as `score` writes them, of planes with these mean squared errors."""
    n = len(errors)
    empty = {f"rings_{o}_{p}": [np.zeros(0)] * n for o in ("truth", "pair") for p in ("cross", "first", "second")}
    residuals = {
        f"residual_{what}_{axis}": 1.0 for what in ("product", "first_square", "second_square") for axis in "yx"
    }
    unknown = dict.fromkeys(
        ["pair_error", "pair_difference", "sibling_difference", "unfitted_error", "within_95", "stated_variance"],
        np.nan,
    )
    rows = {
        "t": 0,
        "c": 0,
        "z": np.arange(n),
        "dataset": "d",
        "situation": "benchmark",
        "noise": "n",
        "method": method,
        "seed": seed,
        "reference_fit": "none",
        "detector": "{}",
        "data_range": 255.0,
        "mean_squared_error": errors,
        "fitted_squared_error": errors,
        "reference_square": 1e4,
        "ssim": 0.9,
        "ms_ssim": np.nan,
        "micro_ssim": np.nan,
        "pixels": 100,
        "residual_square": 100.0,
        "noise_variance": 100.0,
        "noise_correlation_y": 0.0,
        "noise_correlation_x": 0.0,
    }
    return pd.DataFrame(rows | empty | residuals | unknown | columns)


def compared(
    tmp_path: Path, parts: list[pd.DataFrame], spec: CompareSpec, probes: list[pd.DataFrame] | None = None
) -> pd.DataFrame:
    def written(name: str, tables: list[pd.DataFrame]) -> list[Path]:
        files = [tmp_path / f"{name}-{i}.parquet" for i in range(len(tables))]
        for file, table in zip(files, tables, strict=True):
            table.to_parquet(file)
        return files

    compare(spec, written("scores", parts), tmp_path / "out", written("probe", probes or []))
    return pd.read_csv(tmp_path / "out" / "summary.csv").set_index("method")


@pytest.fixture
def errors() -> np.ndarray:
    return np.exp(np.random.default_rng(0).normal(4, 0.5, 24))


def test_the_best_is_bold_where_it_stands_out(tmp_path: Path, errors: np.ndarray) -> None:
    """Planes differ far more than methods do, but all of them agree."""
    rng = np.random.default_rng(1)
    parts = [rows_for("noisy", errors * 9)]
    parts += [rows_for(name, errors * f * rng.uniform(0.98, 1.02, 24)) for name, f in (("a", 1.0), ("b", 1.1))]
    found = compared(tmp_path, parts, spec_for())
    assert found["best"].to_dict() == {"noisy": False, "a": True, "b": False}
    assert found.loc["a", "psnr_hi"] > found.loc["b", "psnr_lo"]  # intervals overlap
    assert found["rank"].to_dict() == {"noisy": pytest.approx(np.nan, nan_ok=True), "a": 1, "b": 2}
    assert found.loc["b", "psnr_difference"] == pytest.approx(-10 * np.log10(1.1), abs=0.05)
    assert found.loc["b", "effect_size"] == -1
    assert found.loc["b", "p_value"] < 0.001
    page = (tmp_path / "out" / "comparison.md").read_text()
    assert page.count("**") == 2
    assert "font-weight: bold" in (tmp_path / "out" / "comparison.html").read_text()
    assert (tmp_path / "out" / "comparison.tex").read_text().count(r"\textbf") == 1


def test_nothing_is_bold_where_the_best_does_not_stand_out(tmp_path: Path, errors: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    parts = [rows_for(name, errors * rng.uniform(0.8, 1.25, 24)) for name in ("noisy", "a", "b")]
    found = compared(tmp_path, parts, spec_for())
    assert not found["best"].any()
    assert "**" not in (tmp_path / "out" / "comparison.md").read_text()


def test_few_runs_are_not_tested(tmp_path: Path, errors: np.ndarray) -> None:
    parts = [rows_for(name, errors * f) for name, f in (("noisy", 9), ("a", 1), ("b", 1.1))]
    found = compared(tmp_path, parts, spec_for(bootstrap_block=6))
    assert found["p_value"].isna().all()
    assert not found["best"].any()


def test_a_baseline_is_what_the_others_are_compared_with(tmp_path: Path, errors: np.ndarray) -> None:
    parts = [rows_for(name, errors * f) for name, f in (("noisy", 9), ("a", 1), ("b", 1.1), ("c", 1.3))]
    found = compared(tmp_path, parts, spec_for(baseline="b"))
    assert found.loc["a", "psnr_difference"] == pytest.approx(10 * np.log10(1.1))
    assert found.loc["c", "psnr_difference"] < 0
    assert np.isnan(found.loc["b", "psnr_difference"])
    assert found.loc["a", "best"]
    assert "PSNR to b;" in (tmp_path / "out" / "comparison.md").read_text()


def test_seeds_are_aggregated(tmp_path: Path, errors: np.ndarray) -> None:
    parts = [rows_for("noisy", errors * 9)]
    parts += [rows_for("a", errors * f, seed, train_seconds=10.0 * (seed + 1)) for seed, f in enumerate((1.0, 1.2))]
    found = compared(tmp_path, parts, spec_for())
    assert found.loc["a", "seeds"] == 2
    assert found.loc["a", "psnr_seed_std"] == pytest.approx(np.std([0, 10 * np.log10(1.2)], ddof=1), rel=1e-4)
    assert found.loc["a", "train_seconds"] == 15
    each = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert each["seed"].tolist() == [0, 0, 1]
    score = xr.open_zarr(tmp_path / "out" / "comparison.zarr", consolidated=False)["score"]
    assert score.dims == ("dataset", "noise", "method", "seed", "metric")
    value = score.sel({"dataset": "d", "noise": "n", "method": "a", "seed": 1, "metric": "psnr"})
    assert float(value) == pytest.approx(each["psnr"][2], rel=1e-5)
    for seed in (0, 1):  # the input is that of all seeds
        value = score.sel({"dataset": "d", "noise": "n", "method": "noisy", "seed": seed, "metric": "psnr"})
        assert float(value) == pytest.approx(each["psnr"][0], rel=1e-5)


def test_what_was_probed_stands_beside(tmp_path: Path, errors: np.ndarray) -> None:
    names = {"dataset": "d", "noise": "n", "method": "a", "seed": 0}
    sums = {"voxels": [100, 50], "risk": [900.0, 600.0], "blind_voxels": [10.0, 5.0], "blind_error": [100.0, 50.0]}
    rings = [[10.0, 1.0, *([0.0] * 6)], [8.0, 1.0, *([0.0] * 6)]]
    squares = [[10.0] * 8] * 2
    sums |= {"rings_thinned_cross": rings, "rings_thinned_first": squares, "rings_thinned_second": squares}
    probes = [pd.DataFrame(sums | {"thinned_error": np.nan, "repeat_variance": [300.0, 300.0]}).assign(**names)]
    parts = [rows_for(name, errors) for name in ("noisy", "a")]
    found = compared(tmp_path, parts, spec_for(), probes)
    assert found.loc["a", "risk"] == 10
    assert found.loc["a", "blind_error"] == 10
    assert found.loc["a", "resolution_thinned"] == pytest.approx(
        1 / (1 / 32 + (0.9 - 1 / 7) / (0.9 - 0.1) / 16), rel=1e-5
    )
    assert found.loc["a", "risk_psnr"] == pytest.approx(20 * np.log10(255 / np.sqrt(10)), rel=1e-5)
    assert found.loc["noisy", ["risk", "risk_psnr", "thinned_error"]].isna().all()
    assert found.loc["a", "repeat_variance"] == 4
    assert found.loc["a", "error_beyond_repeats"] == pytest.approx(found.loc["a", "mean_squared_error"] - 4)
    assert found.loc["a", "risk_gain"] == pytest.approx(10 * np.log10(1 / 10), rel=1e-5)
    assert "est. gain/dB" in (tmp_path / "out" / "comparison.md").read_text()


def test_an_automatic_choice_is_named_and_is_no_rival(tmp_path: Path, errors: np.ndarray) -> None:
    parts = [rows_for(name, errors * f) for name, f in (("noisy", 9), ("a", 1), ("b", 1.1))]
    parts.append(rows_for("auto", errors, chosen="a"))
    found = compared(tmp_path, parts, spec_for())
    assert found["best"].to_dict() == {"noisy": False, "a": True, "b": False, "auto": False}
    assert found["rank"].to_dict() == pytest.approx({"noisy": np.nan, "a": 1, "b": 2, "auto": np.nan}, nan_ok=True)
    assert "auto (a)" in (tmp_path / "out" / "comparison.md").read_text()


def test_the_caption_says_what_the_detector_did(tmp_path: Path, errors: np.ndarray) -> None:
    parts = [rows_for(name, errors, detector='{"clip":[0,255],"step":1}') for name in ("noisy", "a")]
    compared(tmp_path, parts, spec_for())
    page = (tmp_path / "out" / "comparison.md").read_text()
    assert "synthesized noise: d, n: clipped below 0, clipped above 255, rounded to multiples of 1." in page


def test_the_error_is_split_into_bias_and_variance_over_seeds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clean, bias = rng.normal(0, 50, (24, 4000)), rng.normal(0, 3, (24, 4000))
    seeds = [clean + bias + rng.normal(0, 2, clean.shape) for _ in range(3)]
    parts = [rows_for("noisy", np.full(24, 900.0))]
    for seed, denoised in enumerate(seeds):
        error, difference = ((denoised - other) ** 2 for other in (clean, seeds[(seed + 1) % 3]))
        parts.append(rows_for("a", error.mean(axis=1), seed, sibling_difference=difference.mean(axis=1)))
    found = compared(tmp_path, parts, spec_for())
    assert found.loc["a", "seed_variance"] == pytest.approx(4, rel=0.02)
    assert found.loc["a", "error_beyond_seeds"] == pytest.approx(9, rel=0.02)
    assert np.isnan(found.loc["noisy", "error_beyond_seeds"])


def test_what_one_plane_rules_is_not_the_best(tmp_path: Path) -> None:
    """`a` has the smaller pooled error, but `b` is better on all planes but one."""
    rng = np.random.default_rng(0)
    a = rng.uniform(90, 110, 24)
    b = a * 0.9
    b[5] = 1000
    found = compared(tmp_path, [rows_for("noisy", a * 9), rows_for("a", a), rows_for("b", b)], spec_for())
    assert found.loc["a", "psnr"] > found.loc["b", "psnr"]
    assert found.loc["b", "p_value"] < 0.05
    assert found.loc["b", "effect_size"] > 0.5
    assert not found["best"].any()


def test_what_too_few_planes_cannot_tell_is_named(tmp_path: Path) -> None:
    errors = np.linspace(90, 110, 7)
    parts = [rows_for("noisy", errors * 9)] + [rows_for(m, errors * f) for m, f in (("a", 1.0), ("b", 1.2), ("c", 2.0))]
    found = compared(tmp_path, parts, spec_for(bootstrap_block=1))
    assert found.loc["b", "least_p"] == pytest.approx(6 * 2 / 2**7)
    assert not found["best"].any()
    page = (tmp_path / "out" / "comparison.md").read_text()
    assert "out of reach, for too few planes that differ, of d, n." in page


def test_of_a_reference_in_other_units_no_error_in_those_of_the_noisy_volume_is_told(tmp_path: Path) -> None:
    errors = np.linspace(90, 110, 12)
    columns = {"reference_fit": "affine", "pair_error": 200.0, "pair_difference": 300.0, "sibling_difference": 5.0}
    columns |= {"unfitted_error": 9.0, "stated_variance": 9.0, "within_95": 0.9}
    found = compared(tmp_path, [rows_for("noisy", errors * 9, **columns), rows_for("a", errors, **columns)], spec_for())
    unknown = ["upsnr", "seed_variance", "z_rms", "within_95", "error_beyond_seeds", "error_beyond_repeats"]
    assert found.loc["a", unknown].isna().all()
    assert np.isfinite(found.loc["a", "psnr"])


def test_files_are_found_by_what_is_expected(tmp_path: Path) -> None:
    alike = Expected(datasets=("a", "b"), situation="archive", noise=("measured",), jobs=(("n2v", 0), ("n2v", 3)))
    scores, folder, probes = files_of(spec_for(expected=(alike,)), tmp_path)
    assert folder == tmp_path
    assert [str(path.relative_to(tmp_path)) for path in scores[:3]] == [
        "a/measured/noisy-scores.parquet",
        "a/measured/n2v/seed-0/scores.parquet",
        "a/measured/n2v/seed-3/scores.parquet",
    ]
    assert len(scores) == 6
    assert len(probes) == 4
    with pytest.raises(ConfigError, match="no scores"):
        files_of(spec_for(), tmp_path)


def test_names_are_escaped(tmp_path: Path, errors: np.ndarray) -> None:
    compared(tmp_path, [rows_for(name, errors) for name in ("noisy", "a_b")], spec_for(run="x"))
    assert r"a\_b" in (tmp_path / "out" / "comparison.tex").read_text()


def test_a_criterion_is_trusted_as_far_as_it_ranks_methods() -> None:
    table = pd.DataFrame({"method": ["noisy", "a", "b", "c"], "psnr": [20.0, 30.0, 31.0, 33.0]}).assign(
        dataset="d",
        noise="n",
        seed=0,
        upsnr=[20.0, 31.0, 30.0, 32.9],
        residual_ratio=[np.nan, 1.0, 0.9, 0.5],
        risk=np.nan,
    )
    table = table.assign(
        chosen=None, blind_error=[np.nan, 9.0, 8.0, 7.0], thinned_error=np.nan, resolution_thinned=np.nan
    )
    for axis in "yx":
        table[f"residual_correlation_{axis}"] = [0.1, 0.1, 0.2, 0.3]
    found = trust(table).set_index("criterion")
    assert found.loc["upsnr", "kendall_tau"] == pytest.approx(1 / 3)
    assert found.loc["upsnr", "right"] == 1
    assert found.loc["blind error", "kendall_tau"] == 1
    assert "risk" not in found.index
    assert found.loc["residual ratio", "kendall_tau"] == -1
    assert found.loc["residual correlation", "right"] == 0
    assert trust(table.assign(psnr=np.nan)).empty


def test_paired_comparison_and_correction() -> None:
    a = np.arange(8.0)
    p, effect = paired(a + np.array([1, 2, 3, 4, 5, 6, 7, -8]), a)
    assert effect == pytest.approx((28 - 8) / 36)
    assert 0.1 < p < 0.3
    assert paired(a, a) == (1.0, 0.0)
    np.testing.assert_allclose(holm([0.01, np.nan, 0.04, 0.03]), [0.03, np.nan, 0.06, 0.06])


def test_critical_difference_is_that_of_the_table() -> None:
    # Demšar 2006, table 5: q at 0.05 is 2.569 for 4 classifiers; its example has 14 datasets
    assert critical_difference(4, 14) == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=1e-3)


def test_resolution_is_where_the_correlation_falls_under_the_threshold() -> None:
    correlation = np.where(np.arange(64) < 32, 1.0, 0.0)
    assert resolution(correlation) == pytest.approx(4.0, rel=0.03)
    assert resolution(np.ones(64)) == 2
    assert np.isnan(resolution(np.zeros(64)))


def test_figures_of_the_run_are_drawn_or_say_why_not(tmp_path: Path, errors: np.ndarray) -> None:
    def of(dataset: str, strength: float) -> list[pd.DataFrame]:
        costs = {"train_seconds": 3.0, "denoise_seconds": 1.0}
        return [rows_for("noisy", errors * 9 * strength, dataset=dataset)] + [
            rows_for(name, errors * f * strength, dataset=dataset, **costs)
            for name, f in (("a", 1), ("b", 1.1), ("c", 2))
        ]

    sizes = {}
    for case, parts in (("one", of("d", 1)), ("two", of("d", 1) + of("e", 4))):
        (tmp_path / case).mkdir()
        compared(tmp_path / case, parts, spec_for())
        out = tmp_path / case / "out"
        sizes[case] = {name: (out / f"{name}.png").stat().st_size for name in ("levels", "cost", "ranks")}
        assert all((out / f"{name}.pdf").read_bytes().startswith(b"%PDF") for name in sizes[case])
    assert sizes["two"]["ranks"] > 1.2 * sizes["one"]["ranks"]  # which says that one dataset is too few
    assert min(sizes["two"].values()) > 8000


def test_bars_join_what_may_be_equal() -> None:
    assert _groups([1.0, 1.5, 2.4, 4.0], 1.0) == [(0, 1), (1, 2)]
    assert _groups([1.0, 1.1, 1.2], 1.0) == [(0, 2)]
    assert _groups([1.0, 3.0], 1.0) == []


def test_what_was_chosen_is_held_against_what_was_best(tmp_path: Path, errors: np.ndarray) -> None:
    parts = []
    for noise, factors in (("n", {"a": 1.0, "b": 1.01, "c": 3.0}), ("m", {"a": 1.0, "b": 2.0, "c": 3.0})):
        parts += [rows_for(name, errors * factor, noise=noise) for name, factor in factors.items()]
        parts += [rows_for("noisy", errors * 9, noise=noise)]
        parts += [rows_for("best", errors * factors["b"], noise=noise, chosen="b")]
    compared(tmp_path, parts, spec_for())
    (row,) = choices(pd.read_csv(tmp_path / "out" / "comparison.csv")).to_dict("records")
    assert (row["entry"], row["chosen"], row["best"], row["cells"], row["close"]) == ("best", "b", "a", 2, 1)
    assert row["behind"] == pytest.approx(10 * np.log10(2), rel=1e-4)
    page = (tmp_path / "out" / "comparison.md").read_text()
    assert "| entry   | chosen   | best by PSNR   |   cells |   within 0.15 dB |   at most behind/dB |" in page
