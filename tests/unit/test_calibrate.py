"""Calibration finds the noise that was drawn, and leaves structure alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from ssdenoise.calibrate import calibrate
from ssdenoise.calibrate.correlation import correlation
from ssdenoise.calibrate.defects import defects, saturation
from ssdenoise.calibrate.highpass import FINEST, HighPass, high_pass_for
from ssdenoise.calibrate.transfer import fit, transfer_curve
from ssdenoise.config.specs import CalibrateSpec, SynthesizeSpec
from ssdenoise.errors import FormatError
from ssdenoise.methods.structn2v import correlated
from ssdenoise.noise import GaussianNoise, NoiseModel, PoissonGaussianNoise, Streams, noise_from
from ssdenoise.report.facts import advice, noise_facts
from ssdenoise.synthesize import synthesize
from tests.conftest import make_store, scene

RNG = np.random.default_rng


def smooth_scene(shape: tuple[int, ...]) -> np.ndarray:
    """As finely sampled as optics ask for; (T, Z, Y, X), from 0 to about 900."""
    return gaussian_filter(scene(shape), (0,) * (len(shape) - 2) + (4, 4), mode="wrap")[None] - 100


def fitted(planes: np.ndarray, **options: Any) -> tuple[dict[str, NoiseModel], str, float | None]:
    return fit(transfer_curve(planes, **options), float(planes.mean()))


def draw(noise: GaussianNoise | PoissonGaussianNoise, clean: np.ndarray, seed: int = 0) -> np.ndarray:
    return noise.draw(clean, Streams((seed,), (0,) * 5))


@pytest.mark.parametrize(
    "noise",
    [
        GaussianNoise(kind="gaussian", sigma=60),
        PoissonGaussianNoise(kind="poisson_gaussian", gain=8, read_noise=20),
        PoissonGaussianNoise(kind="poisson_gaussian", gain=2, read_noise=0),
    ],
)
def test_the_fitted_line_is_that_of_the_synthesis(noise: GaussianNoise | PoissonGaussianNoise) -> None:
    clean = smooth_scene((8, 256, 256)) + 100
    models = fitted(draw(noise, clean))[0]
    signal = np.quantile(clean, [0.1, 0.5, 0.9])
    truth = noise.model()
    assert isinstance(truth, NoiseModel)
    np.testing.assert_allclose(models["poisson_gaussian"].variance(signal), truth.variance(signal), rtol=0.05)
    assert models["gaussian"].read_noise == pytest.approx(np.sqrt(truth.variance(clean).mean()), rel=0.03)


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize(("gain", "offset", "read_noise"), [(2.0, 100.0, 3.0), (0.5, 100.0, 1.5), (5.0, 400.0, 10.0)])
def test_gain_offset_and_read_noise_of_faint_volumes_are_found(
    gain: float, offset: float, read_noise: float, repeats: bool
) -> None:
    """A third of the scene sends no photons, as beside cells."""
    photons = smooth_scene((16, 384, 512))
    photons = np.maximum(photons - np.quantile(photons, 0.33), 0) / 5
    clean = offset + gain * (np.broadcast_to(photons[:, :4], (4, 4, 384, 512)) if repeats else photons)
    noise = PoissonGaussianNoise(kind="poisson_gaussian", gain=gain, offset=offset, read_noise=read_noise)
    models, _, error = fitted(draw(noise, clean), repeats=repeats)
    found = models["poisson_gaussian"]
    assert found.gain == pytest.approx(gain, rel=0.05)
    assert found.offset == pytest.approx(offset, rel=0.05)
    assert found.read_noise == pytest.approx(read_noise, rel=0.05)
    assert error is not None
    assert abs(found.offset - offset) < 4 * error


def test_offset_and_read_noise_are_told_apart_where_no_place_is_dark() -> None:
    """From the skewness of photon noise: the darkest places send ten photons, an offset of 20 too high."""
    photons = smooth_scene((16, 384, 512)) / 20
    photons += 10 - photons.min()
    noise = PoissonGaussianNoise(kind="poisson_gaussian", gain=2, offset=100, read_noise=5)
    noisy = draw(noise, 100 + 2 * photons)
    assert transfer_curve(noisy).brightness.min() > 119
    models, offset_from, error = fitted(noisy)
    assert offset_from == "third cumulant"
    assert error is not None
    assert abs(models["poisson_gaussian"].offset - 100) < min(4 * error, 10)
    assert models["poisson_gaussian"].gain == pytest.approx(2, rel=0.05)


def test_photon_counts_have_gain_one() -> None:
    counts = RNG(0).poisson(scene((1, 8, 256, 256)) / 50).astype(float)
    models = fitted(counts)[0]
    assert models["poisson"].gain == pytest.approx(1, rel=0.05)
    assert models["poisson_gaussian"].gain == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("photons", [0.005, 0.02, 0.05, 0.2, 1.0])
def test_rare_photons_are_the_noise_and_no_outliers(photons: float) -> None:
    relief = gaussian_filter(RNG(1).normal(size=(1, 8, 256, 256)), (0, 0, 12, 12))
    models = fitted(RNG(0).poisson(photons * np.exp(0.7 * relief / relief.std())).astype(float))[0]
    assert models["poisson"].gain == pytest.approx(1, rel=0.1)
    assert models["poisson_gaussian"].gain == pytest.approx(1, rel=0.1)


def test_texture_does_not_pass_for_noise() -> None:
    """Fine texture, twice as strong as the noise, on half of each plane."""
    rng = RNG(0)
    clean = np.zeros((1, 4, 256, 256)) + np.linspace(0, 2000, 256)[:, None]
    clean[..., :128] += rng.normal(0, 20, (4, 256, 128))
    found = fitted(clean + rng.normal(0, 10, clean.shape))[0]["gaussian"].read_noise
    assert found == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize(
    ("noise", "strides"),
    [
        ({"kind": "correlated", "radius": 0.5, "sigma": 40}, (1, 1)),
        ({"kind": "correlated", "radius": 0.7, "sigma": 40}, (2, 2)),
        ({"kind": "correlated", "radius": 1.0, "sigma": 40}, (2, 2)),
        ({"kind": "correlated", "radius": [0, 1.5], "sigma": 40}, (1, 0)),
        ({"kind": "striped", "lines": "rows", "sigma": 40, "white": 10}, (1, 0)),
        ({"kind": "striped", "lines": "columns", "sigma": 30, "white": 20}, (0, 1)),
    ],
)
def test_the_variance_of_correlated_noise_is_found(noise: dict[str, Any], strides: tuple[int, int]) -> None:
    drawn = noise_from(noise)
    noisy = drawn.draw(smooth_scene((8, 256, 256))[None], Streams((0,), (0,) * 5))
    high_pass = high_pass_for(correlation(noisy[0], repeats=False))
    truth = drawn.model()
    assert isinstance(truth, NoiseModel)
    found = fitted(noisy[0], high_pass=high_pass)[0]["gaussian"].read_noise
    assert found == pytest.approx(truth.read_noise, rel=0.1)
    assert fitted(noisy[0])[0]["gaussian"].read_noise < 0.75 * truth.read_noise
    assert high_pass.strides == strides


def test_a_filter_leaves_the_share_of_correlated_noise_that_it_says() -> None:
    for width in (0.4, 0.6):
        flat = gaussian_filter(RNG(0).normal(size=(1024, 1024)), width)
        impulse = gaussian_filter1d(np.eye(1, 31, 15)[0], width)
        reach = [float(impulse[k:] @ impulse[: 31 - k] / (impulse @ impulse)) for k in range(1, 7)]
        high_pass = high_pass_for({"y": reach, "x": reach, "offsets": [[0, 1, 0], [0, 0, 1]]})
        left = high_pass.filtered(flat)[8:-8, 8:-8].var() / flat.var()
        assert left == pytest.approx(high_pass.passes, rel=0.05)
    assert high_pass_for({"y": [0.05], "x": [], "offsets": []}) == FINEST == HighPass((1, 1), 1.0)


def test_planes_too_small_to_measure_noise_in_are_refused() -> None:
    with pytest.raises(FormatError, match="windows of 7x7"):
        transfer_curve(np.ones((1, 3, 6, 40)))


@pytest.mark.parametrize("level", [5.0, 0.0])
def test_a_noiseless_plane_has_no_noise(level: float) -> None:
    models, offset_from, _ = fitted(np.full((1, 1, 64, 64), level))
    assert models["gaussian"].read_noise == 0
    assert models["poisson"].gain == 0
    assert models["poisson_gaussian"].variance(level) == 0
    assert offset_from == "darkest brightness"


# --- autocorrelation -----------------------------------------------------------------------------------------------


def noise_like(kind: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    flat = RNG(seed).normal(size=shape)
    if kind == "along y":
        flat = gaussian_filter1d(flat, 0.55, axis=-2)
    if kind == "along x":
        flat = gaussian_filter1d(flat, 1.0, axis=-1)
    if kind == "both":
        flat = gaussian_filter(flat, (0,) * (len(shape) - 2) + (0.6, 0.6))
    return flat / flat.std()


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize(("kind", "axes"), [("white", ""), ("along y", "y"), ("along x", "x"), ("both", "yx")])
def test_correlated_noise_is_told_from_white_noise_and_from_structure(kind: str, axes: str, repeats: bool) -> None:
    clean = np.broadcast_to(smooth_scene((4, 256, 256)), (2, 4, 256, 256))
    found = correlation(clean + 60 * noise_like(kind, clean.shape), repeats=repeats)
    assert {"zyx"[i] for offset in found["offsets"] for i in range(3) if offset[i]} == set(axes)
    assert all(([0, 1, x] in found["offsets"]) == (kind == "both") for x in (-1, 1))
    impulse = np.zeros(31)
    impulse[15] = 1
    kernel = gaussian_filter1d(impulse, {"white": 1e-6, "along y": 0.55, "along x": 1.0, "both": 0.6}[kind])
    for axis in "yx":
        expected = np.dot(kernel[1:], kernel[:-1]) / np.dot(kernel, kernel) if axis in axes else 0
        assert found[axis][0] == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize(("width", "weak"), [(0.0, []), (0.375, ["x"])])
def test_weak_correlation_is_told_and_does_not_count(width: float, weak: list[str]) -> None:
    """A Gaussian of 0.375 pixels makes neighbours correlated by 0.06."""
    for seed in range(6):
        noise = RNG(seed).normal(size=(1, 8, 256, 256))
        noise = gaussian_filter1d(noise, width, axis=-1) if width else noise
        found = correlation(smooth_scene((8, 256, 256)) + 60 * noise, repeats=False)
        assert found["weak"] == weak
        assert found["offsets"] == []


def test_interlaced_noise_is_correlated_with_every_second_neighbour() -> None:
    noise = noise_like("white", (1, 8, 256, 256))
    found = correlation(smooth_scene((8, 256, 256)) + 60 * (noise + np.roll(noise, 2, -1)) / 2**0.5, repeats=False)
    assert found["x"][1] == pytest.approx(0.5, abs=0.05)
    assert found["offsets"] == [[0, 0, 2]]


def test_white_noise_on_fine_structure_stays_white() -> None:
    """Structure at the limit of what optics sample: correlated with its neighbours, and no noise."""
    clean = gaussian_filter(RNG(0).random((1, 8, 256, 256)), (0, 0, 1.5, 1.5), mode="wrap")
    clean = 200 * clean / clean.std()
    residual = clean - gaussian_filter(clean, (0, 0, 4, 4))
    assert np.corrcoef(residual[..., 1:].ravel(), residual[..., :-1].ravel())[0, 1] > 0.8
    assert correlation(clean + 60 * noise_like("white", clean.shape), repeats=False)["offsets"] == []


def test_fixed_patterns_are_correlated_between_planes() -> None:
    clean = smooth_scene((8, 128, 128))
    pattern = noise_like("white", (1, 1, 128, 128), 1)
    found = correlation(clean + 50 * noise_like("white", clean.shape) + 50 * pattern, repeats=False)
    assert found["z"][0] > 0.2
    assert [1, 0, 0] in found["offsets"]
    white = correlation(clean + 50 * noise_like("white", clean.shape), repeats=False)
    assert white["offsets"] == []


def test_the_mask_covers_the_neighbours_that_were_found() -> None:
    found = {
        "channels": [{"correlation": {"offsets": [[0, 0, 1], [0, 0, 2]]}}, {"correlation": {"offsets": [[0, 1, 0]]}}]
    }
    assert correlated(found) == (((0, 0, 1, 0, 0), (1, 1, 1, 1, 1), (0, 0, 1, 0, 0)),)
    assert correlated({"channels": [{"correlation": {"offsets": []}}]}) == (((1,),),)


# --- defects -------------------------------------------------------------------------------------------------------


def test_saturation_zeros_and_hot_pixels_are_counted() -> None:
    clean = smooth_scene((6, 128, 128)) + 100
    noisy = np.rint(clean + RNG(0).normal(0, 20, clean.shape))
    hot = [(3, 7), (64, 90), (127, 0)]
    for y, x in hot:
        noisy[..., y, x] += 400
    noise = NoiseModel(0.0, 0.0, 20.0)
    found = defects(noisy, noise)
    assert found["hot_pixels"]["positions"] == [list(place) for place in hot]
    assert found["hot_pixels"]["share"] == pytest.approx(3 / 128**2)
    assert saturation(noisy, np.dtype("uint16"), 1.0) is None
    assert saturation(np.minimum(noisy, 600), np.dtype("uint16"), 1.0) == 600
    assert saturation(np.minimum(noisy / 2, 255), np.dtype("uint8"), 1.0) == 255
    assert saturation(np.full((1, 1, 8, 8), 7.0), np.dtype("uint16"), 0.0) is None
    analogue = noisy + RNG(1).random(noisy.shape)  # as floats: hardly any two alike, but for those cut off
    assert saturation(analogue, np.dtype("float32"), 1e-6) is None
    assert saturation(np.minimum(analogue, 600), np.dtype("float32"), 1e-6) == 600
    assert defects(noisy, noise, (100, 50))["hot_pixels"]["positions"][0] == [103, 57]
    dark = np.maximum(noisy - 300, 0)
    assert defects(dark, noise)["zero_share"] == pytest.approx(np.mean(dark == 0))
    assert defects(dark - 5, noise)["zero_share"] == 0  # where values go on below, zero is one like others


@pytest.mark.parametrize("repeats", [False, True])
def test_saturation_does_not_bend_the_line(repeats: bool) -> None:
    """A fifth of the scene is as bright as the detector can tell, where the noise is gone."""
    clean = 5 * smooth_scene((4, 512, 512))
    clean = np.stack([clean[0]] * 4)[:, None] if repeats else clean[None]
    noisy = np.minimum(RNG(0).poisson(clean / 2) * 2.0, np.quantile(clean, 0.8) // 2 * 2)
    saturated = saturation(noisy, np.dtype("uint16"), 1.0)
    assert saturated == noisy.max()
    bent, straight = (
        fitted(noisy, repeats=repeats, saturated=value)[0]["poisson_gaussian"].gain for value in (None, saturated)
    )
    assert straight == pytest.approx(2, rel=0.05)
    assert bent < 1.5


# --- the stage -----------------------------------------------------------------------------------------------------


def stored(tmp_path: Path, noisy: np.ndarray) -> Path:
    return make_store(tmp_path, "noisy", noisy.astype(np.float32)).path


@pytest.mark.parametrize(
    ("kind", "gain", "entry"),
    [
        ("white", 0.0, {"name": "hqssl", "likelihood": "gaussian"}),
        ("white", 20.0, {"name": "hqssl", "likelihood": "poisson_gaussian"}),
        ("along x", 0.0, {"name": "structn2v", "mask": "calibrated"}),
        ("both", 0.0, {"name": "sasl", "radius": "calibrated"}),
    ],
)
def test_a_method_is_recommended_that_suits_the_noise(
    kind: str, gain: float, entry: dict[str, str], tmp_path: Path
) -> None:
    clean = smooth_scene((4, 192, 192))[:, None] + 100
    noisy = clean + 20 * noise_like(kind, clean.shape)
    if gain:
        noisy = noisy + gain * RNG(2).poisson(clean / gain) - clean
    found = calibrate(CalibrateSpec(), stored(tmp_path, noisy), tmp_path / "c.json", tmp_path / "c.png")
    assert found["recommendation"]["entry"] == entry
    assert any("hqssl and neighbor2neighbor take it for structure" in text for text in found["warnings"]) == (
        kind != "white"
    )
    assert (tmp_path / "c.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("noise", "method", "offset"),
    [
        ({"kind": "striped", "lines": "rows", "psnr": 26, "white": 10}, "structn2v", [0, 0, 1]),
        ({"kind": "striped", "lines": "columns", "sigma": 40, "white": 10}, "structn2v", [0, 1, 0]),
        ({"kind": "correlated", "radius": [0, 1.5], "sigma": 40}, "structn2v", [0, 0, 1]),
        ({"kind": "correlated", "radius": 1.0, "sigma": 40}, "sasl", [0, 1, 1]),
    ],
)
def test_no_likelihood_of_white_noise_is_recommended_where_synthesized_noise_is_correlated(
    noise: dict[str, Any], method: str, offset: list[int], tmp_path: Path
) -> None:
    clean = smooth_scene((4, 192, 192))[0].astype(np.float32)
    spec = SynthesizeSpec.model_validate({"key": (0, "d", "n", 0), "noise": noise})
    synthesize(spec, make_store(tmp_path, "clean", clean).path, tmp_path / "noisy.ome.zarr")
    found = calibrate(CalibrateSpec(), tmp_path / "noisy.ome.zarr", tmp_path / "c.json")
    assert found["recommendation"]["entry"]["name"] == method
    assert offset in found["channels"][0]["correlation"]["offsets"]


def test_planes_stretched_each_by_itself_are_noticed(tmp_path: Path) -> None:
    rng = RNG(3)
    photons = rng.poisson(smooth_scene((8, 128, 128)) + 200)
    stretched = photons * np.linspace(0.5, 2, 8)[:, None, None]
    same, varied = (
        calibrate(CalibrateSpec(), stored(tmp_path, values[:, None]), tmp_path / "c.json")
        for values in (photons, stretched)
    )
    assert not same["warnings"]
    assert same["recommendation"]["entry"] == {"name": "hqssl", "likelihood": "poisson_gaussian"}
    assert varied["recommendation"]["entry"]["parameters"] == "unknown_per_image"
    assert "noise varies from plane to plane" in varied["warnings"][0]


def test_noise_clipped_at_zero_is_told_from_rare_photons(tmp_path: Path) -> None:
    scene = 40 * (smooth_scene((4, 192, 192))[:, None] - 400) / 400
    clipped = np.maximum(scene + 50 * noise_like("white", scene.shape), 0)
    counts = RNG(0).poisson(np.maximum(scene, 0) / 40).astype(float)
    for noisy, warned in ((clipped, True), (np.rint(clipped), True), (counts, False)):
        found = calibrate(CalibrateSpec(), stored(tmp_path, noisy), tmp_path / "c.json")
        assert found["channels"][0]["zero_share"] > 0.05
        assert any("clipped there" in text for text in found["warnings"]) == warned


def test_what_only_a_part_of_the_stack_shows_is_seen(tmp_path: Path) -> None:
    """Cells in the middle sixth, and nothing but the camera's offset and read noise above and below."""
    clean = np.zeros((120, 64, 64))
    clean[50:70] = smooth_scene((20, 64, 64))[0] + 500
    noisy = np.rint(100 + RNG(0).poisson(clean) + RNG(1).normal(0, 2, clean.shape))
    store = make_store(tmp_path, "noisy", noisy[None, None].astype(np.uint16)).path
    model = calibrate(CalibrateSpec(), store, tmp_path / "c.json")["channels"][0]["models"]["poisson_gaussian"]
    assert model["offset"] == pytest.approx(100, rel=0.05)
    assert model["read_noise"] == pytest.approx(2, rel=0.2)


@pytest.mark.parametrize("level", [0, 7])
@pytest.mark.parametrize("also", [False, True])
def test_voxels_that_are_all_equal_have_no_noise_to_measure(level: int, also: bool, tmp_path: Path) -> None:
    """A volume, or one channel of two."""
    noisy = np.full((1, 1 + also, 4, 192, 192), level, np.uint16)
    if also:
        noisy[:, 1] = np.rint(100 + RNG(0).normal(0, 9, noisy.shape[2:]))
    store = make_store(tmp_path, "noisy", noisy).path
    found = calibrate(CalibrateSpec(), store, tmp_path / "c.json", tmp_path / "c.png")  # warnings are errors
    assert found["warnings"] == ["channel 0: all voxels are equal: there is no noise to measure"]
    assert not found["channels"][0]["saturated_share"]
    if also:
        assert found["recommendation"]["entry"] == {"name": "hqssl", "likelihood": "gaussian"}
    else:
        assert found["recommendation"] is None
        assert noise_facts(found)[0] == ["channel 0"]
        assert advice(found) == ("", "", found["warnings"])


def test_where_correlation_cannot_be_seen_the_advice_does_not_deny_it(tmp_path: Path) -> None:
    small = stored(tmp_path, 100 + RNG(0).normal(0, 5, (1, 1, 2, 16, 16)))
    found = calibrate(CalibrateSpec(), small, tmp_path / "c.json", tmp_path / "c.png")["recommendation"]
    assert "images are too small to see whether noise is correlated" in found["why"]


def test_a_hot_pixel_is_listed_where_it_is_in_the_volume(tmp_path: Path) -> None:
    noisy = 100 + RNG(0).normal(0, 5, (1, 1, 3, 1100, 16))
    noisy[..., 1040, 7] += 500
    found = calibrate(CalibrateSpec(), stored(tmp_path, noisy), tmp_path / "c.json")["channels"][0]["hot_pixels"]
    assert found["positions"] == [[1040, 7]]


def test_repeats_make_pairs_and_need_to_be_several(tmp_path: Path) -> None:
    clean = np.broadcast_to(smooth_scene((2, 96, 96))[:, None], (3, 1, 2, 96, 96))
    store = stored(tmp_path, clean + 20 * noise_like("both", clean.shape))
    found = calibrate(CalibrateSpec(repeats=True), store, tmp_path / "c.json")
    assert found["recommendation"]["entry"] == {"name": "n2n"}
    assert found["channels"][0]["models"]["gaussian"]["read_noise"] == pytest.approx(20, rel=0.05)
    single = make_store(tmp_path, "single", np.ones((1, 1, 2, 32, 32), np.float32)).path
    with pytest.raises(FormatError, match="single time point"):
        calibrate(CalibrateSpec(repeats=True), single, tmp_path / "d.json")


def test_each_channel_has_its_own_noise(tmp_path: Path) -> None:
    clean = smooth_scene((4, 96, 96))[:, None] + 100
    noisy = np.concatenate(
        [clean + RNG(0).normal(0, 5, clean.shape), clean + RNG(1).normal(0, 50, clean.shape)], axis=1
    )
    found = calibrate(CalibrateSpec(), stored(tmp_path, noisy), tmp_path / "c.json")["channels"]
    assert [c["models"]["gaussian"]["read_noise"] for c in found] == pytest.approx([5, 50], rel=0.05)
