"""The automatic choice: the least error wins, ties are said to be ties."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ssdenoise.choose import choose, ranked, sentence
from ssdenoise.config.project import Project
from ssdenoise.config.specs import ChooseSpec, ProbeSpec
from ssdenoise.errors import ConfigError, FormatError
from ssdenoise.model import load_model
from ssdenoise.probe import probe
from tests.conftest import make_store, scene
from tests.unit.test_denoise import make_model


def parts(error: float, seed: int = 0) -> pd.DataFrame:
    """Sums over 40 parts, which differ far more than methods do."""
    common = np.exp(np.random.default_rng(9).normal(0, 1, 40))
    own = np.random.default_rng(seed).uniform(0.95, 1.05, 40)
    return pd.DataFrame({"risk": 100 * error * common * own, "voxels": 100, "thinned_error": np.nan})


def test_the_least_error_wins_and_a_tie_is_said_to_be_one() -> None:
    ranking = ranked({"a": parts(1.01, 1), "b": parts(1.0, 2), "c": parts(1.3, 3)}, "risk")
    assert [one.entry for one in ranking] == ["b", "a", "c"]
    assert [one.tie for one in ranking] == [False, True, False]
    assert ranking[2].behind_db == pytest.approx(10 * np.log10(1.3), abs=0.1)
    said = sentence(ranking, "risk")
    assert said.startswith("b has the least estimated error (risk)")
    assert "a tie with a, which may be as good" in said
    assert "tie" not in sentence(ranked({"a": parts(1.0, 1), "c": parts(1.3, 3)}, "risk"), "risk")


def test_an_error_that_cannot_be_told_is_refused() -> None:
    with pytest.raises(FormatError, match="a has no thinned_error"):
        ranked({"a": parts(1.0)}, "thinned_error")


def test_the_chosen_model_is_the_better_one(tmp_path: Path) -> None:
    clean = scene((1, 1, 4, 160, 160)).astype(np.float32)
    noisy = clean + np.random.default_rng(0).normal(0, 60, clean.shape).astype(np.float32)
    candidates = {}
    for entry, options in {"right": {"sigmas": (1.5,)}, "wide": {"sigmas": (6.0,)}}.items():
        folder = tmp_path / entry
        folder.mkdir()
        volume = make_store(folder, "noisy", noisy)
        model = make_model(folder, volume, "gaussian", 2, **options)
        spec = ProbeSpec(dataset="d", noise="n", method=entry, seed=0)
        probe(spec, volume.path, folder / "calibration.json", model, folder / "probe.parquet")
        candidates[entry] = model, folder / "probe.parquet"
    choice = choose(ChooseSpec(entry="best"), candidates, tmp_path / "best")
    assert choice["chosen"] == "right"
    assert choice == json.loads((tmp_path / "best" / "choice.json").read_text())
    assert choice["candidates"][1]["behind_db"] > 1
    assert not choice["candidates"][1]["tie"]
    assert load_model(tmp_path / "best").digest == load_model(candidates["right"][0]).digest
    assert set(pd.read_parquet(tmp_path / "best" / "probe.parquet")["method"]) == {"best"}
    description = json.loads((tmp_path / "best" / "model.json").read_text())
    seconds = [
        json.loads((folder / "model.json").read_text())["provenance"]["seconds"] for folder, _ in candidates.values()
    ]
    assert description["provenance"]["seconds"] >= sum(seconds)


def test_parts_without_hidden_voxels_and_most_parts_against_the_mean() -> None:
    rng = np.random.default_rng(0)
    a = pd.DataFrame({"blind_error": rng.uniform(90, 110, 24), "blind_voxels": 1.0})
    b = a * [0.9, 1]
    b.loc[5, "blind_error"] = 1000  # on most parts the better, on the whole the worse
    for rows in (a, b):
        rows.loc[len(rows)] = 0.0  # a narrow part at the end of a plane
    best, other = ranked({"a": a, "b": b}, "blind_error")
    assert best.entry == "a"
    assert other.p_value is not None
    assert other.p_value < 0.05
    assert other.tie
    worse = ranked({"a": a, "c": a * [2, 1]}, "blind_error")[1]
    assert not worse.tie


def test_an_error_below_zero_is_told() -> None:
    rows = pd.DataFrame({"risk": [-5.0] * 8, "voxels": 1.0})
    assert "below 0: the noise that was calibrated is stronger" in sentence(
        ranked({"a": rows, "b": rows + 1}, "risk"), "risk"
    )


def project(tmp_path: Path, methods: dict[str, object], sheet: str = "dataset\tnoisy\na\tv.npy\n") -> Project:
    np.save(tmp_path / "v.npy", np.zeros((3, 20, 20), np.uint8))
    (tmp_path / "sheet.tsv").write_text(sheet)
    return Project({"run": "r", "datasets": "sheet.tsv", "seeds": [3, 4], "methods": methods}, tmp_path)


def test_candidates_need_not_run_on_the_dataset_themselves(tmp_path: Path) -> None:
    methods = {"best": {"name": "auto", "among": ["n2v", "f"]}, "n2v": {"name": "n2v"}, "f": {"name": "gaussian"}}
    found = project(tmp_path, methods, "dataset\tnoisy\tmethods\na\tv.npy\tbest\n")
    assert found.jobs() == [("a", "measured", "best", 3), ("a", "measured", "best", 4)]
    folder = "results/r/a/measured"
    assert found.candidates("a", "measured", "best", 4) == [
        ("n2v", f"{folder}/n2v/seed-4", f"{folder}/n2v/seed-4/probe.parquet"),
        ("f", f"{folder}/f/seed-3", f"{folder}/f/seed-3/probe.parquet"),  # draws no lots
    ]
    assert not found.denoise("a", "best").uncertainty
    assert found.code("denoise", "best") != found.code("denoise", "n2v")


@pytest.mark.parametrize(
    ("methods", "told"),
    [
        ({"best": {"name": "auto", "among": ["n2x"]}, "n2v": {"name": "n2v"}}, "found 'n2x'; it chooses among n2v"),
        ({"best": {"name": "auto", "among": ["best"]}, "n2v": {"name": "n2v"}}, "found 'best'"),
        ({"best": {"name": "auto", "among": ["n2n"]}, "n2n": {"name": "n2n"}}, "offers no pairs, which 'n2n' needs"),
    ],
)
def test_wrong_candidates_are_refused(methods: dict[str, object], told: str, tmp_path: Path) -> None:
    sheet = "dataset\tnoisy\tmethods\na\tv.npy\tbest\n"
    with pytest.raises(ConfigError, match=told):
        project(tmp_path, methods, sheet)
