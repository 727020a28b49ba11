"""Options that trained methods have in common, SASL, and where pairs come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssdenoise import denoise as denoise_stage
from ssdenoise.calibrate import calibrate
from ssdenoise.commit import commit
from ssdenoise.config.specs import CalibrateSpec, DenoiseSpec, Storage
from ssdenoise.denoise import denoise
from ssdenoise.errors import ConfigError, FormatError
from ssdenoise.intensity import Normalization
from ssdenoise.methods import METHODS, Batch
from ssdenoise.methods.n2n import N2N
from ssdenoise.methods.n2v import N2V
from ssdenoise.methods.sasl import EIGHT_BIT, SASL, texture
from ssdenoise.methods.structn2v import StructN2V
from ssdenoise.model import load_model
from ssdenoise.store import Volume
from ssdenoise.train import Scene, loop, train
from ssdenoise.train.inputs import photon_scales
from ssdenoise.train.sampling import Sampler
from tests.conftest import CPU, NOISE, make_store, scene, spec_for
from tests.unit.test_denoise import FLOAT, make_model, run, whole

# --- views -----------------------------------------------------------------------------------------------------------


class Ramp(torch.nn.Module):
    """Adds what differs from place to place, so that each view gives another answer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.arange(x.shape[-1]) + 10 * torch.arange(x.shape[-2])[:, None]


@pytest.mark.parametrize(("method", "views"), [(N2V, 8), (StructN2V, 2)])
def test_augmentation_at_test_time_is_the_mean_over_views(method: type[N2V], views: int) -> None:
    image = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    found = method(test_time_augmentation=True).estimate(Ramp(), image).mean  # type: ignore[arg-type]
    each = []
    for turn in range(4) if views == 8 else (0, 2):
        for flip in (False, True) if views == 8 else (False,):
            view = torch.rot90(image.flip(-1) if flip else image, turn, (-2, -1))
            back = torch.rot90(Ramp()(view), -turn, (-2, -1))
            each.append(back.flip(-1) if flip else back)
    assert len(each) == views
    torch.testing.assert_close(found, torch.stack(each).mean(0))
    assert torch.equal(method().estimate(Ramp(), image).mean, Ramp()(image))  # type: ignore[arg-type]


# --- weights ---------------------------------------------------------------------------------------------------------


def test_the_average_of_weights_is_exponential_and_survives_a_kill(
    counts: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrate(CalibrateSpec(), counts.path, tmp_path / "c.json")
    monkeypatch.setattr(loop, "EVERY", 2)
    seen: list[torch.Tensor] = []
    real = N2V.loss

    def spy(self: N2V, net: torch.nn.Module, batch: Batch, rng: torch.Generator, progress: float) -> torch.Tensor:
        if net.training:
            seen.append(next(net.parameters()).detach().clone())
            if len(seen) == 5 and dies:
                raise KeyboardInterrupt
        return real(self, net, batch, rng, progress)  # type: ignore[arg-type]

    monkeypatch.setattr(N2V, "loss", spy)
    dies = False
    spec = spec_for("n2v", weight_average=0.35)
    train(spec, [Scene(counts.path, tmp_path / "c.json")], tmp_path / "whole", CPU)
    plain = spec_for("n2v")
    train(plain, [Scene(counts.path, tmp_path / "c.json")], tmp_path / "plain", CPU)
    last = next(load_model(tmp_path / "plain").net.parameters()).detach()
    average = seen[1]  # weights after the first step, after which the average begins
    for number, weights in enumerate([*seen[2:6], last], 1):
        decay = min(0.35, (1 + number) / (10 + number))  # grows up to what was asked for
        average = decay * average + (1 - decay) * weights
    found = next(load_model(tmp_path / "whole").net.parameters()).detach()
    torch.testing.assert_close(found, average)
    assert not torch.equal(found, last)

    dies = True
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        train(spec, [Scene(counts.path, tmp_path / "c.json")], tmp_path / "killed", CPU)
    dies = False
    resumed = train(spec, [Scene(counts.path, tmp_path / "c.json")], tmp_path / "killed", CPU)
    assert resumed["provenance"]["resumed_at_step"] == 4
    weights = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("killed", "whole")]
    assert weights[0] == weights[1]


# --- tiles -----------------------------------------------------------------------------------------------------------

OPTIONS = {
    "views": ("n2v", 2, 1, {"test_time_augmentation": True}),
    "views of hqssl": ("hqssl", 2, 1, {"test_time_augmentation": True}),
    "planes": ("n2n", 3, 1, {"planes": 3}),
    "planes of hqssl": ("hqssl", 3, 1, {"planes": 3}),
    "independent channels": ("hqssl", 2, 2, {"channels": "independent"}),
    "correlated channels": ("hqssl", 2, 2, {}),
    "estimated noise": ("hqssl", 2, 1, {"parameters": "unknown_per_image", "patch": (4, 64, 64)}),
    "impulses": ("hqssl", 2, 1, {"likelihood": "impulse", "parameters": "unknown"}),
}


@pytest.mark.parametrize(("name", "ndim", "channels", "options"), OPTIONS.values(), ids=OPTIONS.keys())
def test_tiles_equal_the_whole_with_options(
    name: str, ndim: int, channels: int, options: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denoise_stage, "TILE_VOXELS", 1)
    clean = scene((1, channels, 5, 70, 131)) / 20
    rng = np.random.default_rng(0)
    noisy = rng.poisson(clean)
    if "likelihood" in options:
        noisy = np.where(rng.random(noisy.shape) < 0.3, rng.integers(0, 50, noisy.shape), noisy)
    volume = make_store(tmp_path, "noisy", noisy.astype(np.uint16), Storage(chunk=(2, 16, 16), shard=(4, 64, 64)))
    model = make_model(tmp_path, volume, name, ndim, **options)
    tiled = run(FLOAT, volume, model, tmp_path / "out").read((slice(None),) * 5)
    # whether an impulse struck hangs on a ratio of densities, which amplifies what rounding differs by
    tolerance = 5e-5 if "likelihood" in options else 1e-5
    assert np.abs(tiled - whole(volume, model)).max() < tolerance * noisy.std()


def test_independent_channels_do_not_see_each_other() -> None:
    method = METHODS["hqssl"](channels="independent")
    net = method.build(2, 2, [NOISE, NOISE])
    noisy = torch.randn(1, 2, 16, 16)
    other = noisy.clone()
    other[:, 1] += 1
    for before, after in zip(method.denoise(net, noisy), method.denoise(net, other), strict=True):
        assert before is not None
        assert after is not None
        assert torch.equal(before[:, 0], after[:, 0])
        assert not torch.equal(before[:, 1], after[:, 1])


# --- planes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2])
def test_planes_as_channels_leave_the_blind_spot_blind_and_show_the_planes_around(channels: int) -> None:
    net = METHODS["hqssl"](planes=3).build(channels, 3, [NOISE] * channels)
    for parameter in net.parameters():
        torch.nn.init.uniform_(parameter, 0.01, 0.1)
    net = net.double()
    volume = torch.rand(1, channels, 7, 24, 24, dtype=torch.double, requires_grad=True)
    net(volume)[:, 0, 3, 12, 11].sum().backward()
    assert volume.grad is not None
    seen = volume.grad[0]
    assert (seen[:, 3, 12, 11] == 0).all()
    near = seen[:, 2:5, 11:14, 10:13] != 0
    assert near.sum() == near.numel() - channels
    assert (seen[:, [0, 1, 5, 6]] == 0).all()
    assert net.halo[0] == 1


@pytest.mark.parametrize("planes", [3, 5])
def test_planes_at_the_end_see_the_opposite_ones_and_never_themselves(planes: int) -> None:
    net = METHODS["hqssl"](planes=planes).build(1, 3, [NOISE])
    for parameter in net.parameters():
        torch.nn.init.uniform_(parameter, 0.01, 0.1)
    volume = torch.rand(1, 1, 6, 16, 16, dtype=torch.double, requires_grad=True)
    out = net.double()(volume)
    for z in range(6):
        (seen,) = torch.autograd.grad(out[:, 0, z, 9, 6].sum(), volume, retain_graph=True)
        assert seen[0, 0, z, 9, 6] == 0
        expected = {i for step in range(-(planes // 2), planes // 2 + 1) for i in (z + step,) if 0 <= i < 6}
        assert set(seen[0, 0].abs().amax(dim=(1, 2)).nonzero().flatten().tolist()) == expected
    alone = torch.rand(1, 1, 1, 16, 16, dtype=torch.double)
    beside = torch.zeros(1, planes, 16, 16, dtype=torch.double)
    beside[:, planes // 2] = alone[:, 0]
    assert torch.equal(net(alone)[:, :, 0], net.net.net(beside))  # type: ignore[union-attr,operator]


def test_an_even_number_of_planes_is_refused() -> None:
    for planes in (1, 2):
        with pytest.raises(ValueError, match="no middle with neighbours"):
            N2V(planes=planes)


# --- SASL ------------------------------------------------------------------------------------------------------------


def test_sasl_is_blind_to_nine_by_nine() -> None:
    net = SASL(radius=4).build(1, 2, [NOISE])
    for parameter in net.parameters():
        torch.nn.init.uniform_(parameter, 0.01, 0.1)
    image = torch.rand(1, 1, 48, 48, dtype=torch.double, requires_grad=True)
    net.double()(image, part="blind")[..., 24, 23].sum().backward()
    assert image.grad is not None
    seen = image.grad[0, 0]
    assert (seen[20:29, 19:28] == 0).all()
    for rows, columns in (((19, 29), slice(22, 25)), (slice(23, 26), (18, 28))):  # just beyond, on all four sides
        assert (seen[rows, columns] != 0).all()


def test_sasl_is_blind_as_far_as_noise_is_correlated() -> None:
    def calibration(*offsets: tuple[int, int, int]) -> dict[str, Any]:
        return {"channels": [{"correlation": {"offsets": []}}, {"correlation": {"offsets": offsets}}]}

    for offsets, radius in (((), 1), (((0, 1, 0), (0, 2, -3), (1, 0, 5)), 3)):
        assert SASL().calibrated(calibration(*offsets)).radius == radius
    assert SASL(radius=4).calibrated(calibration()).radius == 4


def test_sasl_s_second_network_sees_three_by_three() -> None:
    net = SASL(radius=1).build(1, 2, [NOISE])
    near = net.near  # type: ignore[union-attr]
    image = torch.rand(1, 1, 16, 16, requires_grad=True)
    # the means of channels that weigh them see the whole image; without them the network is a 3x3 convolution
    for block in near.blocks:  # type: ignore[union-attr]
        block.gate = torch.nn.Sequential(*block.gate, torch.nn.Threshold(torch.inf, 1.0))
    x = near(image)  # type: ignore[operator]
    x[..., 8, 8].sum().backward()
    assert image.grad is not None
    assert {tuple(p) for p in image.grad[0, 0].nonzero().tolist()} == {(y, x) for y in (7, 8, 9) for x in (7, 8, 9)}


@pytest.mark.parametrize(
    ("progress", "part"), [(0.1, "blind"), (1 / 3, "blind"), (0.5, "near"), (0.9, "plain"), (1.0, "plain")]
)
def test_each_stage_of_sasl_trains_one_network(progress: float, part: str) -> None:
    net = SASL(radius=1).build(1, 2, [NOISE])
    noisy = torch.randn(1, 1, 16, 16)
    SASL().loss(net, Batch(noisy), torch.Generator(), progress).backward()
    trained = {name.partition(".")[0] for name, p in net.named_parameters() if p.grad is not None}
    assert trained == {part}


def test_sasl_tells_flat_from_textured_places() -> None:
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    checkerboard = ((-1.0) ** (y + x))[None, None]
    for spread, expected in ((0.5, 1 / (1 + np.exp(0.5))), (3.0, 0.5), (7.0, 1 / (1 + np.exp(-2.0)))):
        a = texture(spread / EIGHT_BIT * checkerboard)[0, 0, 8:24, 8:24]
        np.testing.assert_allclose(a, expected, atol=2e-3)


def test_the_learning_rate_starts_anew_at_each_stage() -> None:
    assert [SASL().stage(p)[0] for p in (0.01, 1 / 3, 0.34, 2 / 3, 0.99, 1.0)] == [0, 0, 1, 1, 2, 2]
    assert SASL().stage(0.5)[1] == pytest.approx(0.5)
    assert N2V().stage(0.7) == (0, 0.7)


# --- pairs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pairing", "distances"), [("repeats", {-3, -2, -1, 1, 2, 3}), ("interleaved", {-1, 1})])
def test_time_points_make_pairs(pairing: str, distances: set[int], tmp_path: Path) -> None:
    frames = np.arange(4, dtype=np.float32)[:, None, None, None, None] * np.ones((4, 1, 1, 80, 80), np.float32)
    volume = make_store(tmp_path, "frames", frames)
    spec = spec_for("n2n", pairing=pairing)
    sampler = Sampler(spec, spec.method, [[volume]], Normalization((0.0,), (1.0,)), (8, 8))  # type: ignore[arg-type]
    found = set()
    for step in range(60):
        batch = sampler.batch(step)[0]
        assert batch.target is not None
        found |= {int(d) for d in (batch.target - batch.noisy)[:, 0, 0, 0]}
    assert found == distances
    if pairing == "repeats":  # what is held out is held out of all repeats
        assert {cell[1] for cell in sampler.held_out} == {0}


def test_repeats_need_several_time_points(counts: Volume, tmp_path: Path) -> None:
    calibrate(CalibrateSpec(), counts.path, tmp_path / "c.json")
    with pytest.raises(FormatError, match="at least two"):
        train(spec_for("n2n", pairing="repeats"), [Scene(counts.path, tmp_path / "c.json")], tmp_path / "m", CPU)


def test_calibrated_thinning_needs_photon_noise(tmp_path: Path) -> None:
    flat = make_store(tmp_path, "flat", np.full((1, 1, 2, 32, 32), 9, np.float32))
    calibrate(CalibrateSpec(), flat.path, tmp_path / "c.json")
    spec = spec_for("n2n").model_copy(update={"photon_gain": "calibrated"})
    with pytest.raises(ConfigError, match="found no photon noise"):
        train(spec, [Scene(flat.path, tmp_path / "c.json")], tmp_path / "m", CPU)


@pytest.mark.parametrize("read_noise", [0.0, 12.0])
def test_thinning_by_the_calibration_gives_independent_halves_and_warns_of_read_noise(
    read_noise: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng, clean = np.random.default_rng(0), scene((1, 1, 8, 128, 128))
    clean = np.maximum(clean - np.quantile(clean, 0.33), 0) / 20  # a third of the scene sends no photons
    camera = 100 + 8 * rng.poisson(clean) + read_noise * rng.normal(size=clean.shape)
    volume = make_store(tmp_path, "camera", camera.astype(np.float32))
    calibration = calibrate(CalibrateSpec(), volume.path, tmp_path / "c.json")
    spec = spec_for("n2n", steps=1, batch=64, patch=(1, 64, 64)).model_copy(update={"photon_gain": "calibrated"})
    photons = photon_scales(spec, calibration)
    assert photons[0][0] == pytest.approx(8, rel=0.1)
    assert ("is in both parts of a thinned image" in caplog.text) == (read_noise > 0)
    sampler = Sampler(spec, spec.method, [[volume]], Normalization((0.0,), (1.0,)), (8, 8), [photons])  # type: ignore[arg-type]
    batch = sampler.batch(0)[0]
    assert batch.target is not None
    halves = batch.noisy.mean(), batch.target.mean()
    assert halves == pytest.approx([camera.mean()] * 2, rel=0.05)
    if read_noise == 0:  # each half has twice the noise of the whole, and they differ by that of both
        differences = (batch.noisy - batch.target).double()
        assert differences.var().item() == pytest.approx(4 * 8 * (camera.mean() - 100), rel=0.15)
    train(spec, [Scene(volume.path, tmp_path / "c.json")], tmp_path / "m", CPU)


def test_both_directions_are_averaged(counts: Volume, tmp_path: Path) -> None:
    other = make_store(tmp_path, "other", np.random.default_rng(5).poisson(scene(counts.shape) / 20).astype(np.uint16))
    model = make_model(tmp_path, counts, "n2n", 2, both_directions=True)
    each = []
    for name, noisy, pair in (("a", counts, None), ("b", other, None), ("ab", counts, other)):
        denoise(
            DenoiseSpec(denoised_dtype="float32"),
            noisy.path,
            model,
            tmp_path / name,
            CPU,
            pair=pair.path if pair else None,
        )
        commit(noisy.path, [tmp_path / name / "slabs" / "0-of-1.json"], "denoised", tmp_path / name)
        each.append(Volume(tmp_path / name / "denoised.ome.zarr").read((slice(None),) * 5))
    np.testing.assert_allclose(each[2], (each[0] + each[1]) / 2, rtol=1e-5)
    assert N2N(both_directions=True).averages_pair
    assert not N2N().averages_pair
