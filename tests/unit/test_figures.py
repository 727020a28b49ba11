"""The figures: what they draw of a scene, the same bytes each time, and whether an uncertainty is right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from ssdenoise.figures import figures
from ssdenoise.figures.crops import richest
from ssdenoise.figures.residuals import autocorrelation, by_intensity
from ssdenoise.figures.training import plot_training
from ssdenoise.figures.uncertainty import reliability
from ssdenoise.figures.worst import worst_place, worst_plane
from ssdenoise.provenance import file_digest
from tests.unit.test_report import add_scene, make_comparison


def drawn(run: Path, output: Path, *, truth: bool = True, fitted: bool = False) -> set[str]:
    folder = run / "cells" / "measured"
    entries = {name: folder / name / "seed-0" for name in ("gaussian", "hqssl")}
    reference = run / "cells" / "reference.ome.zarr" if truth else None
    noisy, calibration = folder / "noisy-0.ome.zarr" / "zarr.json", folder / "calibration.json"
    figures("cells/measured", noisy, calibration, entries, reference, output, fitted=fitted)
    return {path.name for path in output.iterdir()}


def test_figures_are_drawn_where_they_say_something_and_always_with_the_same_bytes(tmp_path: Path) -> None:
    run = tmp_path / "r"
    add_scene(run, "cells")
    make_comparison(run)
    vector = ("profiles", "residuals", "training")
    always = {"images.png", "worst.png"} | {f"{name}.{kind}" for name in vector for kind in ("png", "pdf")}
    assert drawn(run, tmp_path / "a") == always | {"uncertainty.png", "uncertainty.pdf"}
    assert drawn(run, tmp_path / "archive", truth=False) == always
    assert drawn(run, tmp_path / "fitted", fitted=True) == always
    drawn(run, tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert file_digest(path) == file_digest(tmp_path / "b" / path.name)


def test_training_is_drawn_where_the_model_lies_or_what_there_is_instead_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[tuple[list[str], str]] = []

    def seen(figure: Figure, output: Path, stage: str) -> None:
        texts.append(([axis.get_title() for axis in figure.axes], figure.get_supxlabel()))
        figure.savefig(output)

    monkeypatch.setattr("ssdenoise.figures.training.save", seen)
    monkeypatch.chdir(tmp_path)
    own = {name: Path("d") / name for name in ("gaussian", "n2v", "best", "given")}
    group, given = Path("g/n2v"), Path("given")
    for folder in (*own.values(), group, given):
        folder.mkdir(parents=True)
    header = "step,learning_rate,loss,validation_loss\n"
    (own["gaussian"] / "history.csv").write_text(header)
    (group / "history.csv").write_text(header + "10,0.1,2.0,2.5\n20,0.1,1.0,1.5\n")
    (own["best"] / "choice.json").write_text(json.dumps({"says": "n2v has the least error"}))
    models = {**own, "n2v": group, "given": given}
    plot_training(own, models, "d/measured", Path("a.png"))
    filters = {"gaussian": own["gaussian"]}
    plot_training(filters, filters, "d/measured", Path("b.png"))
    assert texts[0] == (
        ["n2v"],
        "n2v: the model of g/n2v\nbest: n2v has the least error\ngiven: the model of given, without a history",
    )
    assert texts[1] == ([], "nothing was trained: parameters were chosen by the noisy data, without steps")


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_a_right_uncertainty_lies_on_the_diagonal(factor: float) -> None:
    rng = np.random.default_rng(0)
    stated = rng.uniform(1, 10, 200_000)
    x, y = reliability(stated, rng.normal(0, factor * stated))
    np.testing.assert_allclose(y / x, factor, rtol=0.05)
    assert (np.diff(x) > 0).all()
    assert len(x) == 20


def test_the_autocorrelation_is_that_of_the_noise() -> None:
    rng = np.random.default_rng(0)
    white = rng.normal(3, 2, (8, 100, 90))
    found = autocorrelation(white)
    assert found.shape == (17, 17)
    assert found[8, 8] == pytest.approx(1)
    assert np.abs(np.delete(found.ravel(), 8 * 17 + 8)).max() < 0.03
    along_x = (white + np.roll(white, 1, axis=2)) / 2
    found = autocorrelation(along_x)
    assert found[8, 9] == pytest.approx(0.5, abs=0.03)
    assert found[9, 8] == pytest.approx(0, abs=0.03)
    assert autocorrelation(rng.normal(0, 1, (2, 5, 30))).shape == (9, 17)


def test_a_bias_and_a_variance_show_at_their_intensity() -> None:
    rng = np.random.default_rng(0)
    signal = rng.uniform(0, 100, 50000)
    residual = rng.normal(0, np.where(signal < 50, 5, 8)) + np.where(signal > 90, 3, 0)
    x, mean, error, variance = by_intensity(signal, residual)
    assert np.abs(mean[x < 85] / error[x < 85]).max() < 4
    assert mean[-1] == pytest.approx(3, abs=0.5)
    np.testing.assert_allclose(variance, np.where(x < 50, 25, 64), rtol=0.1)


def test_the_inset_shows_what_varies_most_but_for_where_it_stands() -> None:
    image = np.random.default_rng(0).normal(0, 1, (200, 160))
    image[120:160, 40:80] *= 3
    image[160:, 120:] *= 9
    y, x = richest(image, 40, 0.42)
    assert abs(y.start - 120) <= 4
    assert abs(x.start - 40) <= 4
    assert (y.stop - y.start, x.stop - x.start) == (40, 40)
    assert richest(image[:3, :2], 40, 0.42) == (slice(0, 1), slice(0, 1))


def test_the_worst_crop_of_the_worst_plane_is_found() -> None:
    rows = pd.DataFrame(
        {"mean_squared_error": [1.0, 9.0, 4.0], "residual_square": [8.0, 1.0, 1.0], "noise_variance": 2.0}
    )
    assert worst_plane(rows, known=True).name == 1
    assert worst_plane(rows, known=False).name == 0
    error = np.random.default_rng(0).normal(0, 1, (600, 700))
    error[400:440, 150:190] += 30
    y, x = worst_place(error)
    assert (y.stop - y.start, x.stop - x.start) == (256, 256)
    assert y.start <= 400 < 440 <= y.stop
    assert x.start <= 150 < 190 <= x.stop
    assert worst_place(error[:50, :40]) == (slice(0, 50), slice(0, 40))
