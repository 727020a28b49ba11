"""Training: the same bits whether or not it was killed, patches that avoid the held-out cells, and clear ends."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ssdenoise import train as stage
from ssdenoise.calibrate import calibrate
from ssdenoise.config import TrainSpec
from ssdenoise.errors import ConfigError, FormatError, TrainingDiverged
from ssdenoise.methods import METHODS, Batch, Network, TrainedMethod
from ssdenoise.model import load_model
from ssdenoise.store import Volume
from ssdenoise.train import EVERY, Sampler, learning_rate, train
from tests.conftest import CPU, make_store, scene


def spec_for(name: str, ndim: int = 2, thinning: bool = True, **options: object) -> TrainSpec:
    options = {"steps": 6, "batch": 2, "patch": (4, 16, 16)} | options if METHODS[name].trainable else options
    method = METHODS[name](**options)
    return TrainSpec(dataset="d", noise="n", seed=3, ndim=ndim, thinning=thinning, method=method)  # type: ignore[arg-type]


@pytest.fixture
def calibration(counts: Volume, tmp_path: Path) -> Path:
    calibrate(counts.path, tmp_path / "calibration.json")
    return tmp_path / "calibration.json"


def products(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("model.safetensors", "history.csv")]


@pytest.mark.parametrize("name", ["n2n", "n2v", "hqssl"])
def test_a_killed_training_goes_on_to_the_same_bits(
    name: str, counts: Volume, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "EVERY", 2)
    spec = spec_for(name)
    train(spec, counts.path, None, calibration, tmp_path / "whole", CPU)

    class Killed(BaseException):
        pass

    real, calls = type(spec.method).loss, []

    def dies_at_step_4(
        self: TrainedMethod, net: Network, batch: Batch, rng: torch.Generator, progress: float
    ) -> object:
        calls.append(progress)
        if progress == pytest.approx(4.5 / 6):
            raise Killed
        return real(self, net, batch, rng, progress)

    monkeypatch.setattr(type(spec.method), "loss", dies_at_step_4)
    with pytest.raises(Killed):
        train(spec, counts.path, None, calibration, tmp_path / "killed", CPU)
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    monkeypatch.setattr(type(spec.method), "loss", real)
    result = train(spec, counts.path, None, calibration, tmp_path / "killed", CPU)
    assert result["provenance"]["resumed_at_step"] == 4
    assert products(tmp_path / "killed") == products(tmp_path / "whole")


def test_a_checkpoint_of_other_options_is_not_continued(
    counts: Volume, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "EVERY", 2)
    monkeypatch.setattr(Path, "unlink", lambda *a, **k: None)  # keep the finished training's checkpoint
    train(spec_for("n2v"), counts.path, None, calibration, tmp_path / "m", CPU)
    assert (
        train(spec_for("n2v"), counts.path, None, calibration, tmp_path / "m", CPU)["provenance"]["resumed_at_step"]
        == 6
    )
    other = train(spec_for("n2v", radius=2), counts.path, None, calibration, tmp_path / "m", CPU)
    assert other["provenance"]["resumed_at_step"] == 0


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_trains_and_loads(name: str, ndim: int, counts: Volume, calibration: Path, tmp_path: Path) -> None:
    train(spec_for(name, ndim), counts.path, None, calibration, tmp_path / "m", CPU)
    model = load_model(tmp_path / "m")
    assert model.method.name == name
    assert all(torch.isfinite(value).all() for value in model.net.state_dict().values())
    provenance = json.loads((tmp_path / "m" / "model.json").read_text())["provenance"]
    assert provenance["inputs"]["noisy"] == counts.digest
    assert provenance["seed"] == 3


def test_seeds_and_steps_draw_different_patches_and_repeat(counts: Volume) -> None:
    def batch(seed: int, step: int) -> np.ndarray:
        spec = spec_for("n2v").model_copy(update={"seed": seed})
        sampler = Sampler(spec, spec.method, [counts], counts.intensities().normalization())  # type: ignore[arg-type]
        return sampler.batch(step)[0].noisy.numpy()

    np.testing.assert_array_equal(batch(0, 5), batch(0, 5))
    assert not np.array_equal(batch(0, 5), batch(0, 6))
    assert not np.array_equal(batch(0, 5), batch(1, 5))


@pytest.mark.parametrize("ndim", [2, 3])
def test_patches_are_voxels_of_the_volume_and_avoid_held_out_cells(tmp_path: Path, ndim: int) -> None:
    labels = np.arange(6 * 70 * 45, dtype=np.float32).reshape(1, 1, 6, 70, 45)
    volume = make_store(tmp_path, "labels", labels)
    spec = spec_for("n2v", ndim, patch=(3, 10, 10))
    normalization = volume.intensities().normalization()
    sampler = Sampler(spec, spec.method, [volume], normalization)  # type: ignore[arg-type]
    held = np.zeros(labels.shape[2:], bool)
    for _, *cell in sampler.held_out:
        held[tuple(slice(i * p, (i + 1) * p) for i, p in zip(cell, sampler.patch, strict=True))] = True
    assert held.any()
    for step in range(50):
        patches = sampler.batch(step)[0].noisy.numpy()
        found = np.rint(normalization.invert(patches)).astype(int)
        assert found.shape == (2, 1, *sampler.patch[-ndim:])
        z, y, x = np.unravel_index(found, labels.shape[2:])
        assert not held[z, y, x].any()
        for patch in found:  # turned and flipped, but each a box of the volume
            box = [np.unique(c) for c in np.unravel_index(patch, labels.shape[2:])]
            assert np.prod([len(c) for c in box]) == patch.size
    validation = np.concatenate([b.noisy.numpy() for b, _ in sampler.validation()])
    inside = np.unravel_index(np.rint(normalization.invert(validation)).astype(int), labels.shape[2:])
    assert held[inside].all()


def test_thinned_pairs_differ_from_step_to_step_and_share_the_scene(counts: Volume) -> None:
    spec = spec_for("n2n")
    sampler = Sampler(spec, spec.method, [counts], counts.intensities().normalization())  # type: ignore[arg-type]
    batch = sampler.batch(0)[0]
    assert batch.target is not None
    assert not torch.equal(batch.noisy, batch.target)
    assert np.corrcoef(batch.noisy.flatten(), batch.target.flatten())[0, 1] > 0.2


def test_learning_rate_ramps_up_and_down() -> None:
    rates = [learning_rate(t, 2.0) for t in np.linspace(0, 1, 101)]
    assert rates[0] == 0
    assert max(rates) == 2.0
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert all(b >= a for a, b in itertools.pairwise(rates[:11]))
    assert all(b <= a for a, b in itertools.pairwise(rates[50:]))


def test_a_loss_that_is_not_finite_ends_with_a_reason(
    counts: Volume, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_for("n2v")
    monkeypatch.setattr(type(spec.method), "loss", lambda *a: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(TrainingDiverged, match="step 0 of 6"):
        train(spec, counts.path, None, calibration, tmp_path / "m", CPU)
    assert not (tmp_path / "m" / "model.json").exists()


def test_pairs_must_be_there_and_fit(counts: Volume, calibration: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a pair"):
        train(spec_for("n2n", thinning=False), counts.path, None, calibration, tmp_path / "m", CPU)
    other = make_store(tmp_path, "other", scene((1, 1, 6, 70, 44)).astype(np.float32))
    with pytest.raises(FormatError, match="have the same"):
        train(spec_for("n2n", thinning=False), counts.path, other.path, calibration, tmp_path / "m", CPU)
    with pytest.raises(FormatError, match="can be thinned"):
        train(spec_for("n2n"), other.path, None, calibration, tmp_path / "m", CPU)


def test_known_parameters_need_synthesized_noise(counts: Volume, calibration: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="parameters: calibrated"):
        train(spec_for("hqssl", parameters="known"), counts.path, None, calibration, tmp_path / "m", CPU)


def test_checkpoints_are_frequent() -> None:
    assert EVERY <= 100
