"""Training: the same bits whether or not it was killed, patches that avoid the held-out cells, and clear ends."""

from __future__ import annotations

import itertools
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from ssdenoise.calibrate import calibrate
from ssdenoise.config.specs import CalibrateSpec
from ssdenoise.errors import ConfigError, FormatError, MissingInputError, TrainingDiverged
from ssdenoise.intensity import Normalization
from ssdenoise.interrupt import end_in_order
from ssdenoise.methods import METHODS, Batch, Network, TrainedMethod
from ssdenoise.model import load_model
from ssdenoise.store import Volume
from ssdenoise.train import Scene, loop, train
from ssdenoise.train.inputs import warn
from ssdenoise.train.loop import learning_rate
from ssdenoise.train.sampling import Sampler
from tests.conftest import CPU, EVERY_METHOD, make_store, scene, spec_for


@pytest.fixture
def calibration(counts: Volume, tmp_path: Path) -> Path:
    calibrate(CalibrateSpec(), counts.path, tmp_path / "calibration.json")
    return tmp_path / "calibration.json"


def products(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("model.safetensors", "history.csv")]


@pytest.mark.parametrize("name", ["n2n", "n2v", "hqssl"])
def test_a_killed_training_goes_on_to_the_same_bits(
    name: str, counts: Volume, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "EVERY", 2)
    spec = spec_for(name)
    train(spec, [Scene(counts.path, calibration)], tmp_path / "whole", CPU)

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
        train(spec, [Scene(counts.path, calibration)], tmp_path / "killed", CPU)
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    monkeypatch.setattr(type(spec.method), "loss", real)
    result = train(spec, [Scene(counts.path, calibration)], tmp_path / "killed", CPU)
    assert result["provenance"]["resumed_at_step"] == 4
    assert products(tmp_path / "killed") == products(tmp_path / "whole")


def test_a_checkpoint_of_other_options_is_not_continued(
    counts: Volume, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "EVERY", 2)
    monkeypatch.setattr(Path, "unlink", lambda *a, **k: None)  # keep the finished training's checkpoint
    train(spec_for("n2v"), [Scene(counts.path, calibration)], tmp_path / "m", CPU)
    assert (
        train(spec_for("n2v"), [Scene(counts.path, calibration)], tmp_path / "m", CPU)["provenance"]["resumed_at_step"]
        == 6
    )
    other = train(spec_for("n2v", radius=2), [Scene(counts.path, calibration)], tmp_path / "m", CPU)
    assert other["provenance"]["resumed_at_step"] == 0


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", EVERY_METHOD)
def test_every_method_trains_and_loads(name: str, ndim: int, counts: Volume, calibration: Path, tmp_path: Path) -> None:
    clean = counts.path if METHODS[name].target == "clean" else None
    train(spec_for(name, ndim), [Scene(counts.path, calibration, clean)], tmp_path / "m", CPU)
    model = load_model(tmp_path / "m")
    assert model.method.name == name
    assert all(torch.isfinite(value).all() for value in model.net.state_dict().values())
    provenance = json.loads((tmp_path / "m" / "model.json").read_text())["provenance"]
    assert provenance["inputs"]["noisy"] == counts.digest
    assert provenance["seed"] == 3


def test_seeds_and_steps_draw_different_patches_and_repeat(counts: Volume) -> None:
    def batch(seed: int, step: int) -> np.ndarray:
        spec = spec_for("n2v").model_copy(update={"seed": seed})
        sampler = Sampler(spec, spec.method, [[counts]], Normalization.of(counts.intensities()), (4, 4))  # type: ignore[arg-type]
        return sampler.batch(step)[0].noisy.numpy()

    np.testing.assert_array_equal(batch(0, 5), batch(0, 5))
    assert not np.array_equal(batch(0, 5), batch(0, 6))
    assert not np.array_equal(batch(0, 5), batch(1, 5))


@pytest.mark.parametrize("ndim", [2, 3])
def test_patches_are_voxels_of_the_volume_and_avoid_held_out_cells(tmp_path: Path, ndim: int) -> None:
    labels = np.arange(6 * 70 * 45, dtype=np.float32).reshape(1, 1, 6, 70, 45)
    volume = make_store(tmp_path, "labels", labels)
    spec = spec_for("n2v", ndim, patch=(3, 10, 10))
    normalization = Normalization.of(volume.intensities())
    sampler = Sampler(spec, spec.method, [[volume]], normalization, (1, 1))  # type: ignore[arg-type]
    (offset,), (scale,) = normalization.offset, normalization.scale
    held = np.zeros(labels.shape[2:], bool)
    for _, _, *cell in sampler.held_out:
        held[tuple(slice(i * p, (i + 1) * p) for i, p in zip(cell, sampler.patch, strict=True))] = True
    assert held.any()
    for step in range(50):
        patches = sampler.batch(step)[0].noisy.numpy()
        found = np.rint(patches * scale + offset).astype(int)
        assert found.shape == (2, 1, *sampler.patch[-ndim:])
        z, y, x = np.unravel_index(found, labels.shape[2:])
        assert not held[z, y, x].any()
        for patch in found:  # turned and flipped, but each a box of the volume
            box = [np.unique(c) for c in np.unravel_index(patch, labels.shape[2:])]
            assert np.prod([len(c) for c in box]) == patch.size
    validation = np.concatenate([b.noisy.numpy() for b, _ in sampler.validation()])
    inside = np.unravel_index(np.rint(validation * scale + offset).astype(int), labels.shape[2:])
    assert held[inside].all()


def test_thinned_pairs_differ_from_step_to_step_and_share_the_scene(counts: Volume) -> None:
    spec = spec_for("n2n")
    sampler = Sampler(spec, spec.method, [[counts]], Normalization.of(counts.intensities()), (4, 4))  # type: ignore[arg-type]
    batch = sampler.batch(0)[0]
    assert batch.target is not None
    assert not torch.equal(batch.noisy, batch.target)
    assert np.corrcoef(batch.noisy.flatten(), batch.target.flatten())[0, 1] > 0.2
    # the same place thinned twice gives other pairs, whose mean is the counts
    pairs = [sampler._pair([counts.array], 0, (0, 2, 8, 8), np.random.default_rng(i), augment=False) for i in range(2)]
    assert not np.array_equal(pairs[0][0], pairs[1][0])
    whole = sampler.normalization.apply(
        counts.read((slice(0, 1), slice(0, 1), slice(2, 3), slice(8, 24), slice(8, 24)))
    )
    np.testing.assert_allclose((pairs[0][0] + pairs[0][1]) / 2, whole[0, :, 0], atol=1e-5)


def test_learning_rate_ramps_up_and_down() -> None:
    rates = [learning_rate(t, 2.0, 0.5) for t in np.linspace(0, 1, 101)]
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    # up in the first tenth, down in the second half, and not the other way round
    assert all(b > a for a, b in itertools.pairwise(rates[:11]))
    assert rates[5] == pytest.approx(1.0)
    assert set(rates[10:51]) == {2.0}
    assert all(b < a for a, b in itertools.pairwise(rates[50:]))
    assert rates[75] == pytest.approx(2 * 0.25)  # half of the cosine, squared
    assert [learning_rate(t, 2.0, 0.3) for t in (0.05, 0.7, 0.85)] == pytest.approx([1.0, 2.0, 0.5])


def test_a_loss_that_is_not_finite_ends_with_a_reason(
    counts: Volume, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_for("n2v")
    monkeypatch.setattr(type(spec.method), "loss", lambda *a: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(TrainingDiverged, match="step 0 of 6"):
        train(spec, [Scene(counts.path, calibration)], tmp_path / "m", CPU)
    assert not (tmp_path / "m" / "model.json").exists()


def test_pairs_must_be_there_and_fit(counts: Volume, calibration: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs the clean volume"):
        train(spec_for("n2c"), [Scene(counts.path, calibration)], tmp_path / "m", CPU)
    with pytest.raises(ConfigError, match="needs a pair"):
        train(spec_for("n2n", pairing="volume"), [Scene(counts.path, calibration)], tmp_path / "m", CPU)
    other = make_store(tmp_path, "other", scene((1, 1, 6, 70, 44)).astype(np.float32))
    with pytest.raises(FormatError, match="have the same"):
        train(spec_for("n2n", pairing="volume"), [Scene(counts.path, calibration, other.path)], tmp_path / "m", CPU)
    with pytest.raises(FormatError, match="can be thinned"):
        train(spec_for("n2n"), [Scene(other.path, calibration)], tmp_path / "m", CPU)


def test_known_parameters_need_synthesized_noise(counts: Volume, calibration: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="its parameters are not known"):
        train(spec_for("hqssl", parameters="known"), [Scene(counts.path, calibration)], tmp_path / "m", CPU)


@pytest.mark.parametrize(("name", "patch"), [("n2n", (4, 60, 60)), ("hqssl", (4, 30, 50)), ("n2v", (4, 50, 50))])
def test_patches_are_cut_to_the_network_s_stride(
    name: str, patch: tuple[int, int, int], counts: Volume, calibration: Path, tmp_path: Path
) -> None:
    train(spec_for(name, patch=patch, steps=2), [Scene(counts.path, calibration)], tmp_path / "m", CPU)
    assert (tmp_path / "m" / "model.json").exists()


def test_a_volume_smaller_than_the_stride_is_refused(tmp_path: Path) -> None:
    volume = make_store(tmp_path, "thin", np.ones((1, 1, 3, 7, 40), np.uint16))
    calibrate(CalibrateSpec(), volume.path, tmp_path / "c.json")
    with pytest.raises(FormatError, match="needs at least"):
        train(spec_for("sasl"), [Scene(volume.path, tmp_path / "c.json")], tmp_path / "m", CPU)


def test_known_parameters_must_fit_the_likelihood(counts: Volume, calibration: Path, tmp_path: Path) -> None:
    from ssdenoise.config.specs import SynthesizeSpec
    from ssdenoise.noise import PoissonGaussianNoise
    from ssdenoise.synthesize import synthesize
    from tests.conftest import STORAGE

    noise = PoissonGaussianNoise(kind="poisson_gaussian", gain=2, read_noise=1)
    spec = SynthesizeSpec(key=(0, "d", "n", 0), noise=noise, storage=STORAGE)
    synthesize(spec, counts.path, tmp_path / "s.ome.zarr")
    wrong = spec_for("hqssl", parameters="known", likelihood="gaussian")
    with pytest.raises(ConfigError, match="cannot describe"):
        train(wrong, [Scene(tmp_path / "s.ome.zarr", calibration)], tmp_path / "m", CPU)
    train(spec_for("hqssl", parameters="known"), [Scene(tmp_path / "s.ome.zarr", calibration)], tmp_path / "m", CPU)
    gain = load_model(tmp_path / "m").net.noise.gain  # type: ignore[union-attr]
    (scale,) = Normalization.of(Volume(tmp_path / "s.ome.zarr").intensities()).scale
    assert float(gain) == pytest.approx(2 / scale)


@pytest.mark.parametrize(
    "noise", [{"kind": "correlated", "psnr": 20, "radius": 1}, {"kind": "gaussian", "sigma": [1, 2]}]
)
def test_no_parameters_are_known_where_no_likelihood_describes_the_noise(
    noise: dict[str, object], counts: Volume, calibration: Path, tmp_path: Path
) -> None:
    from ssdenoise.config.specs import SynthesizeSpec
    from ssdenoise.synthesize import synthesize

    spec = SynthesizeSpec.model_validate({"key": (0, "d", "n", 0), "noise": noise})
    synthesize(spec, counts.path, tmp_path / "s.ome.zarr")
    with pytest.raises(ConfigError, match="cannot describe; needed other `parameters` than `known`"):
        train(
            spec_for("hqssl", parameters="known", likelihood="gaussian"),
            [Scene(tmp_path / "s.ome.zarr", calibration)],
            tmp_path / "m",
            CPU,
        )


def test_model_files_can_be_read_by_a_group(counts: Volume, calibration: Path, tmp_path: Path) -> None:
    train(spec_for("gaussian"), [Scene(counts.path, calibration)], tmp_path / "m", CPU)
    modes = {(tmp_path / "m" / name).stat().st_mode & 0o777 for name in ("model.safetensors", "model.json")}
    assert len(modes) == 1


def test_a_missing_calibration_is_one_line(counts: Volume, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="run the stage"):
        train(spec_for("n2v"), [Scene(counts.path, tmp_path / "nowhere.json")], tmp_path / "m", CPU)


def test_the_clean_target_is_never_thinned_nor_the_input(counts: Volume, tmp_path: Path) -> None:
    clean = make_store(tmp_path, "clean", np.full(counts.shape, 7, np.float32))
    spec = spec_for("n2c")
    sampler = Sampler(spec, spec.method, [[counts, clean]], Normalization((0.0,), (1.0,)), (4, 4))  # type: ignore[arg-type]
    for step in range(10):
        batch = sampler.batch(step)[0]
        assert batch.target is not None
        assert (batch.target == 7).all()
        assert (batch.noisy == batch.noisy.round()).all()
        assert (batch.noisy != 7).any()


def test_half_turns_keep_the_direction_of_a_row(tmp_path: Path) -> None:
    volume = make_store(tmp_path, "rows", np.arange(40, dtype=np.float32)[:, None].repeat(40, 1)[None, None, None])
    spec = spec_for("structn2v")
    sampler = Sampler(spec, spec.method, [[volume]], Normalization((0.0,), (1.0,)), (4, 4))  # type: ignore[arg-type]
    patches = np.concatenate([sampler.batch(step)[0].noisy.numpy() for step in range(20)])
    assert (np.diff(patches, axis=-1) == 0).all()
    assert {int(d) for d in np.unique(np.diff(patches, axis=-2))} == {-1, 1}


def test_patches_are_cut_so_that_half_of_them_fits_the_network(counts: Volume) -> None:
    spec = spec_for("neighbor2neighbor", patch=(4, 60, 40))
    sampler = Sampler(spec, spec.method, [[counts]], Normalization.of(counts.intensities()), (8, 8))  # type: ignore[arg-type]
    assert sampler.patch == (1, 48, 32)


def test_patches_smaller_than_the_network_s_reach_are_told(
    counts: Volume, calibration: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for patch, told in (((4, 16, 16), True), ((4, 32, 32), False)):
        train(spec_for("n2v", patch=patch, steps=1), [Scene(counts.path, calibration)], tmp_path / f"{patch[1]}", CPU)
        assert ("looks 24x24 voxels far, its training patches are 16x16 large" in caplog.text) == told
        caplog.clear()


def test_a_method_that_would_keep_correlated_noise_says_so(caplog: pytest.LogCaptureFixture) -> None:
    advice = {"entry": {"name": "structn2v"}, "why": "noise is correlated along one axis"}
    found = {"channels": [{"correlation": {"offsets": [[0, 0, 1]]}}], "recommendation": advice}
    warn(METHODS["structn2v"](), found, 2)  # type: ignore[call-arg]
    assert not caplog.text
    warn(METHODS["n2v"](), found, 2)  # type: ignore[call-arg]
    assert "n2v may keep noise as structure; {name: structn2v} suits better" in caplog.text
    caplog.clear()
    between_planes = {"channels": [{"correlation": {"offsets": [[1, 0, 0]]}}], "recommendation": advice}
    warn(METHODS["n2v"](), between_planes, 2)  # type: ignore[call-arg]
    assert not caplog.text
    warn(METHODS["n2v"](), between_planes, 3)  # type: ignore[call-arg]
    assert "noise that planes share" in caplog.text
    caplog.clear()
    warn(METHODS["sasl"](), found, 3)  # type: ignore[call-arg]
    assert not caplog.text
    warn(METHODS["sasl"](), between_planes, 3)  # type: ignore[call-arg]
    assert "sasl may keep noise that planes share" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_is_told_to_end_keeps_what_it_has_learnt(
    number: signal.Signals, counts: Volume, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "EVERY", 4)
    spec, scenes = spec_for("n2v"), [Scene(counts.path, calibration)]
    train(spec, scenes, tmp_path / "whole", CPU)
    real = type(spec.method).loss

    def told_at_step_4(
        self: TrainedMethod, net: Network, batch: Batch, rng: torch.Generator, progress: float
    ) -> object:
        if progress == pytest.approx(4.5 / 6):  # between two rows of the history
            signal.raise_signal(number)
        return real(self, net, batch, rng, progress)

    monkeypatch.setattr(type(spec.method), "loss", told_at_step_4)
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)}
    end_in_order()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit if number == signal.SIGTERM else KeyboardInterrupt):
            train(spec, scenes, tmp_path / "told", CPU)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
    assert not (tmp_path / "told" / "model.safetensors").exists()
    monkeypatch.setattr(type(spec.method), "loss", real)
    result = train(spec, scenes, tmp_path / "told", CPU)
    assert result["provenance"]["resumed_at_step"] == 5
    assert products(tmp_path / "told") == products(tmp_path / "whole")
