"""Scores by blocks equal those of the whole array; tables say what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as torch_ms_ssim

from ssdenoise.calibrate import calibrate
from ssdenoise.compare import compare
from ssdenoise.config.specs import CalibrateSpec, CompareSpec, Published, ScoreSpec
from ssdenoise.errors import FormatError
from ssdenoise.score import planes as stage
from ssdenoise.score import score
from tests.conftest import make_store, scene

COMPARE = CompareSpec(run="r", average="error", bootstrap_block=4)


def spec_for(method: str = "noisy", **options: Any) -> ScoreSpec:
    names = {"dataset": "d", "situation": "benchmark", "noise": "n", "method": method, "seed": 0}
    return ScoreSpec(**names, **({"data_range": "reference"} | options))


@pytest.mark.parametrize("block", [16, 1024])
def test_scores_are_those_of_scikit_image_on_whole_planes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(stage, "BLOCK", block)
    clean = scene((1, 1, 3, 61, 50)).astype(np.float32)
    noisy = clean + np.random.default_rng(0).normal(0, 40, clean.shape).astype(np.float32)
    stores = [make_store(tmp_path, name, voxels).path for name, voxels in (("clean", clean), ("noisy", noisy))]
    calibrate(CalibrateSpec(), stores[1], tmp_path / "c.json")
    rows = score(spec_for(), stores[1], stores[1], tmp_path / "c.json", None, stores[0], tmp_path / "s.parquet")
    data_range = float(clean.max() - clean.min())
    assert rows["data_range"].iloc[0] == pytest.approx(data_range)
    for z in range(3):
        a, b = clean[0, 0, z].astype(float), noisy[0, 0, z].astype(float)
        assert rows["ssim"][z] == pytest.approx(structural_similarity(a, b, data_range=data_range), abs=1e-6)
        assert rows["mean_squared_error"][z] == pytest.approx(np.mean((a - b) ** 2), rel=1e-9)
    table = compare(COMPARE, [tmp_path / "s.parquet"], tmp_path / "out")
    expected = peak_signal_noise_ratio(clean.astype(float), noisy.astype(float), data_range=data_range)
    assert table["psnr"][0] == pytest.approx(expected, abs=1e-6)
    assert table["psnr_lo"][0] < expected < table["psnr_hi"][0]


def test_residual_scores_tell_noise_from_signal(tmp_path: Path) -> None:
    clean = scene((1, 1, 2, 128, 128)).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 40, clean.shape).astype(np.float32)
    estimates = {"perfect": clean, "half": clean + noise / 2, "blurred": np.full_like(clean, clean.mean())}
    noisy = make_store(tmp_path, "noisy", clean + noise).path
    calibrate(CalibrateSpec(), noisy, tmp_path / "c.json")
    files = []
    for name, voxels in estimates.items():
        store = make_store(tmp_path, name, voxels).path
        files.append(tmp_path / f"{name}.parquet")
        score(spec_for(name), noisy, store, tmp_path / "c.json", None, None, files[-1])
    rows = compare(COMPARE, files, tmp_path / "out").set_index("method").T
    assert rows["perfect"]["residual_ratio"] == pytest.approx(1, abs=0.05)
    assert rows["half"]["residual_ratio"] == pytest.approx(0.25, abs=0.02)
    assert rows["blurred"]["residual_ratio"] > 3
    for axis in "yx":
        assert rows["perfect"][f"residual_correlation_{axis}"] == pytest.approx(0, abs=0.03)
        assert rows["blurred"][f"residual_correlation_{axis}"] > 0.5
    assert np.isnan(rows["perfect"]["ssim"])


def test_a_reference_of_another_shape_is_refused(tmp_path: Path) -> None:
    stores = [
        make_store(tmp_path, n, scene(s).astype(np.float32)).path for n, s in (("a", (3, 20, 20)), ("b", (3, 20, 21)))
    ]
    calibrate(CalibrateSpec(), stores[0], tmp_path / "c.json")
    with pytest.raises(FormatError, match="voxel by voxel"):
        score(spec_for(), stores[0], stores[0], tmp_path / "c.json", None, stores[1], tmp_path / "s.parquet")
    assert not (tmp_path / "s.parquet").exists()


def test_tables_of_a_run_state_their_definitions(tmp_path: Path) -> None:
    clean = scene((1, 1, 4, 40, 40)).astype(np.float32)
    stores = {"clean": make_store(tmp_path, "clean", clean).path}
    for name, sigma in (("noisy", 80), ("n2v", 20)):
        noise = np.random.default_rng(0).normal(0, sigma, clean.shape)
        stores[name] = make_store(tmp_path, name, (clean + noise).astype(np.float32)).path
    calibrate(CalibrateSpec(), stores["noisy"], tmp_path / "c.json")
    files = []
    for name in ("noisy", "n2v"):
        files.append(tmp_path / f"{name}.parquet")
        score(spec_for(name), stores["noisy"], stores[name], tmp_path / "c.json", None, stores["clean"], files[-1])
    table = compare(COMPARE, files, tmp_path / "out")
    assert table["psnr_gain"].tolist() == [0.0, pytest.approx(20 * np.log10(4), abs=1e-3)]
    for suffix in ("csv", "md", "tex"):
        assert "n2v" in (tmp_path / "out" / f"comparison.{suffix}").read_text()
    assert "neither rounded nor clipped by us" in (tmp_path / "out" / "comparison.md").read_text()
    assert r"\toprule" in (tmp_path / "out" / "comparison.tex").read_text()
    assert len(pd.read_parquet(tmp_path / "out" / "scores.parquet")) == 8


def test_the_table_says_where_the_reference_is_in_other_units(tmp_path: Path) -> None:
    clean = scene((1, 1, 3, 40, 40)).astype(np.float32)
    stores = {"noisy": make_store(tmp_path, "noisy", clean).path, "clean": make_store(tmp_path, "c", clean / 8).path}
    calibrate(CalibrateSpec(), stores["noisy"], tmp_path / "c.json")
    captions = []
    for truth in (stores["clean"], None):
        rows = tmp_path / "s.parquet"
        score(spec_for(), stores["noisy"], stores["noisy"], tmp_path / "c.json", None, truth, rows)
        compare(COMPARE, [rows], tmp_path / "out")
        captions.append((tmp_path / "out" / "comparison.md").read_text())
    assert "in the same units?" in captions[0]
    assert "hence no PSNR" in captions[1]
    assert "units" not in captions[1]


def test_pictures_average_psnr_and_published_figures_stand_beside(tmp_path: Path) -> None:
    clean = scene((1, 2, 3, 40, 40)).astype(np.float32)
    rng = np.random.default_rng(0)
    strengths = np.array([[5, 20, 80], [50, 10, 2]])[..., None, None]
    noisy = clean + strengths * rng.normal(size=clean.shape).astype(np.float32)
    noisy = noisy.astype(np.float32)
    stores = [make_store(tmp_path, name, voxels).path for name, voxels in (("clean", clean), ("noisy", noisy))]
    calibrate(CalibrateSpec(), stores[1], tmp_path / "c.json")
    rows = score(spec_for(), stores[1], stores[1], tmp_path / "c.json", None, stores[0], tmp_path / "s.parquet")
    published = Published(dataset="d", noise="n", method="noisy", psnr=21.5, source="a paper")
    spec = COMPARE.model_copy(update={"average": "psnr", "published": (published,)})
    table = compare(spec, [tmp_path / "s.parquet"], tmp_path / "out")
    # a picture is all its channels
    errors = np.mean((clean - noisy).astype(float) ** 2, axis=(0, 1, 3, 4))
    each = 10 * np.log10(rows["data_range"].iloc[0] ** 2 / errors)
    assert table["planes"][0] == 3
    assert table["psnr"][0] == pytest.approx(each.mean())
    assert table["psnr_lo"][0] < each.mean() < table["psnr_hi"][0]
    assert table["published_psnr"][0] == 21.5
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "PSNR as the mean over planes" in text
    assert "| 21.50 " in text
    assert "Published figures: d, n, noisy: a paper." in text


@pytest.mark.parametrize("block", [16, 1024])
def test_planes_in_other_units_are_fitted_to_the_reference_each_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(stage, "BLOCK", block)
    clean = scene((1, 1, 2, 61, 50)).astype(np.float32)
    noisy = clean + np.random.default_rng(0).normal(0, 40, clean.shape).astype(np.float32)
    stretched = np.array([0.1, 7])[:, None, None] * noisy + np.array([1e5, -300])[:, None, None]
    voxels = {"clean": clean, "noisy": stretched.astype(np.float32)}
    stores = {name: make_store(tmp_path, name, values).path for name, values in voxels.items()}
    calibrate(CalibrateSpec(), stores["noisy"], tmp_path / "c.json")
    spec, rows = spec_for(reference_fit="affine"), tmp_path / "s.parquet"
    found = score(spec, stores["noisy"], stores["noisy"], tmp_path / "c.json", None, stores["clean"], rows)
    for z in range(2):
        x, y = noisy[0, 0, z].astype(float), clean[0, 0, z].astype(float)
        gain, offset = np.polyfit(x.ravel(), y.ravel(), 1)
        # float32 has a hundredth left of values around a hundred thousand
        assert found["mean_squared_error"][z] == pytest.approx(np.mean((gain * x + offset - y) ** 2), rel=1e-2)
    compare(COMPARE, [rows], tmp_path / "out")
    assert "Planes of d were fitted to the reference" in (tmp_path / "out" / "comparison.md").read_text()


@pytest.mark.parametrize("window", ["uniform", "gaussian"])
def test_similarity_of_volumes_is_that_of_scikit_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: str
) -> None:
    monkeypatch.setattr(stage, "VOLUME_BLOCK", (6, 20, 30))
    clean = scene((1, 2, 19, 61, 50)).astype(np.float32)
    noisy = clean + np.random.default_rng(0).normal(0, 40, clean.shape).astype(np.float32)
    stores = [make_store(tmp_path, name, voxels).path for name, voxels in (("clean", clean), ("noisy", noisy))]
    calibrate(CalibrateSpec(), stores[1], tmp_path / "c.json")
    spec = spec_for(ssim_window=window, ssim_ndim=3, data_range=200.0)
    rows = score(spec, stores[1], stores[1], tmp_path / "c.json", None, stores[0], tmp_path / "s.parquet", 2)
    gaussian = {"gaussian_weights": True, "use_sample_covariance": False} if window == "gaussian" else {}
    for c in range(2):
        a, b = clean[0, c].astype(float), noisy[0, c].astype(float)
        expected = structural_similarity(a, b, data_range=200.0, **gaussian)
        assert rows.loc[rows["c"] == c, "ssim"].mean() == pytest.approx(expected, abs=1e-6)
    table = compare(COMPARE.model_copy(update={"ssim_ndim": 3}), [tmp_path / "s.parquet"], tmp_path / "out")
    assert table["ssim"][0] == pytest.approx(rows["ssim"].mean(), abs=1e-6)


def test_similarity_at_several_scales_is_that_of_torchmetrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "BLOCK", 48)
    clean = scene((1, 1, 1, 183, 190)).astype(np.float32)
    noisy = clean + np.random.default_rng(0).normal(0, 40, clean.shape).astype(np.float32)
    stores = [make_store(tmp_path, name, voxels).path for name, voxels in (("clean", clean), ("noisy", noisy))]
    calibrate(CalibrateSpec(), stores[1], tmp_path / "c.json")
    rows = score(
        spec_for(data_range=200.0), stores[1], stores[1], tmp_path / "c.json", None, stores[0], tmp_path / "s.parquet"
    )
    x, y = (torch.from_numpy(image[0].astype(float)) for image in (clean, noisy))
    expected = torch_ms_ssim(y, x, data_range=200.0, normalize="relu").item()
    assert rows["ms_ssim"][0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("repeats", [False, True])
def test_another_realization_gives_the_psnr_without_a_reference(tmp_path: Path, *, repeats: bool) -> None:
    clean = np.repeat(scene((1, 1, 2, 128, 128)), 3, axis=0).astype(np.float32)
    rng = np.random.default_rng(0)
    noisy, other = (clean + rng.normal(0, 40, clean.shape).astype(np.float32) for _ in range(2))
    denoised = clean + rng.normal(0, 25, clean.shape).astype(np.float32)
    paths = {
        name: make_store(tmp_path, name, voxels).path
        for name, voxels in {"noisy": noisy, "other": other, "denoised": denoised, "clean": clean}.items()
    }
    calibrate(CalibrateSpec(), paths["noisy"], tmp_path / "c.json")
    score(
        spec_for("m", repeats=repeats, data_range=255.0),
        *(paths["noisy"], paths["denoised"], tmp_path / "c.json", None, paths["clean"], tmp_path / "s.parquet"),
        pair=None if repeats else paths["other"],
    )
    row = compare(COMPARE, [tmp_path / "s.parquet"], tmp_path / "out").iloc[0]
    assert row["upsnr"] == pytest.approx(row["psnr"], abs=0.3)
    assert row["upsnr_lo"] < row["upsnr"] < row["upsnr_hi"]
    assert 2 <= row["resolution_truth"] < 20
    assert 2 <= row["resolution_pair"] < 20


def test_a_stated_standard_deviation_is_held_against_the_error(tmp_path: Path) -> None:
    clean = scene((1, 1, 4, 128, 128)).astype(np.float32)
    rng = np.random.default_rng(0)
    stated = rng.uniform(5, 20, clean.shape).astype(np.float32)
    # the posterior mean of noise with these variances: what is left and what was removed are uncorrelated
    noise = rng.normal(0, 40, clean.shape)
    share = stated**2 / 40**2
    left = share * noise + np.sqrt(share * (1 - share)) * rng.normal(0, 40, clean.shape)
    volumes = {"noisy": clean + noise, "denoised": clean + left, "std": stated, "clean": clean}
    paths = {name: make_store(tmp_path, name, v.astype(np.float32)).path for name, v in volumes.items()}
    calibrate(CalibrateSpec(), paths["noisy"], tmp_path / "c.json")
    for factor in (1, 2):
        uncertainty = make_store(tmp_path, f"std{factor}", stated / factor).path
        score(
            spec_for("m"),
            *(paths["noisy"], paths["denoised"], tmp_path / "c.json", None, paths["clean"], tmp_path / "s.parquet"),
            uncertainty=uncertainty,
        )
        row = compare(COMPARE, [tmp_path / "s.parquet"], tmp_path / "out").iloc[0]
        assert row["z_rms"] == pytest.approx(factor, rel=0.02)
        assert row["within_95"] == pytest.approx({1: 0.95, 2: 0.673}[factor], abs=0.01)
    assert row["variance_balance"] < 1
