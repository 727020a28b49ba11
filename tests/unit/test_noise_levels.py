"""Levels of noise by a target, what detectors do, and what the commit record says of both."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from ssdenoise.config.specs import Storage, SynthesizeSpec, parse_spec
from ssdenoise.errors import ConfigError
from ssdenoise.noise import AnyNoise, Clean, noise_from, synthesize
from ssdenoise.store import Volume
from ssdenoise.synthesize import synthesize as write
from tests.conftest import STORAGE, make_store, scene

#: So many rows that the strength of striped noise is what is stated, to a hundredth of a decibel.
SHAPE = (1, 2, 64, 512, 32)

#: Bright scenes of little contrast are those whose variance a coarse histogram would miss.
CLEAN = {"integer": scene(SHAPE).astype(np.uint16), "float": (5000 + scene(SHAPE) / 10).astype(np.float32)}

TARGETED: list[dict[str, Any]] = [
    {"kind": "gaussian"},
    {"kind": "poisson"},
    {"kind": "poisson", "offset": 300},
    {"kind": "poisson_gaussian", "offset": 90, "read_noise": 1.5},
    {"kind": "striped", "white": 1.5},
    {"kind": "correlated", "radius": 0.7},
]


def whole(clean: np.ndarray) -> tuple[slice, ...]:
    return tuple(slice(0, n) for n in clean.shape)


def resolved(clean: np.ndarray, **options: Any) -> AnyNoise:
    of = Clean(clean.__getitem__, clean.shape, float(clean.min()), float(clean.max()))
    return noise_from(options).resolved(of)


def drawn(clean: np.ndarray, noise: AnyNoise) -> np.ndarray:
    return synthesize(clean.__getitem__, clean.shape, whole(clean), noise, (0, "d", "n", 0)).astype(float)


@pytest.mark.parametrize("dtype", CLEAN)
@pytest.mark.parametrize("options", TARGETED, ids=lambda o: "-".join(map(str, o.values())))
@pytest.mark.parametrize("name", ["psnr", "snr"])
def test_the_target_is_reached(name: str, options: dict[str, Any], dtype: str) -> None:
    clean = CLEAN[dtype].astype(float)
    signal = np.ptp(clean) ** 2 if name == "psnr" else clean.var()
    # what is darker than an offset of 300 leaves 11 dB of PSNR at most; the dim scene starts at 5010
    target = (10.0 if options.get("offset") == 300 else 20.0) - (0 if name == "psnr" else 8)
    noise = resolved(CLEAN[dtype], **options, **{name: target})
    error = np.mean((drawn(CLEAN[dtype], noise) - clean) ** 2)
    assert 10 * np.log10(signal / error) == pytest.approx(target, abs=0.05)
    assert "psnr" not in noise.model_dump(exclude_none=True)


def test_the_peak_is_the_number_of_photons_where_the_clean_volume_is_brightest() -> None:
    clean = np.full((1, 1, 4, 256, 256), 40.0)
    clean[..., 100:] = 100.0
    noise = resolved(clean, kind="poisson", peak=30, offset=10)
    assert noise.model().gain == pytest.approx(3)  # type: ignore[union-attr]
    photons = (drawn(clean, noise)[..., 100:] - 10) / 3
    assert photons.mean() == pytest.approx(30, rel=0.005)
    assert photons.var() == pytest.approx(30, rel=0.03)
    np.testing.assert_allclose(photons, np.rint(photons), atol=1e-5)


def test_what_cannot_be_reached_is_told_and_what_can() -> None:
    clean = scene((1, 1, 4, 64, 64))
    options = {"kind": "poisson_gaussian", "read_noise": 30}
    with pytest.raises(ConfigError, match=r"`psnr: 60` cannot be reached: `read_noise` alone makes it") as error:
        resolved(clean, **options, psnr=60)
    (best,) = map(float, re.findall(r"makes it ([\d.]+) dB", str(error.value)))
    resolved(clean, **options, psnr=best - 0.01)
    with pytest.raises(ConfigError, match="cannot be reached"):
        resolved(clean, **options, psnr=best + 0.01)
    with pytest.raises(ConfigError, match="`white` alone"):
        resolved(clean, kind="striped", white=30, snr=60)
    with pytest.raises(ConfigError, match=r"what is darker than `offset` alone"):
        resolved(clean, kind="poisson", offset=500, psnr=40)
    with pytest.raises(ConfigError, match=r"no photon arrives anywhere: the clean volume is at most 1000"):
        resolved(clean, kind="poisson", offset=1000, peak=5)
    flat = np.full((1, 1, 1, 8, 8), 7.0)
    for name in ("psnr", "snr"):
        with pytest.raises(ConfigError, match=f"`{name}` needs a clean volume that is not of one intensity, 7; give"):
            resolved(flat, kind="gaussian", **{name: 20})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "gaussian"}, "exactly one of `sigma`, `psnr`, `snr`; given: none"),
        ({"kind": "gaussian", "sigma": 3, "snr": 3}, "exactly one of `sigma`, `psnr`, `snr`; given: `sigma` and `snr`"),
        ({"kind": "poisson", "gain": 3, "peak": 3}, "one of `gain`, `peak`, `psnr`, `snr`; given: `gain` and `peak`"),
        ({"kind": "poisson", "peak": 3, "read_noise": 1}, "read_noise"),
        ({"kind": "correlated", "sigma": 3}, "radius"),
        ({"kind": "correlated", "sigma": 3, "radius": (0, 0)}, "filters nothing; take `kind: gaussian`"),
        ({"kind": "gaussian", "sigma": 3, "bits": 8, "step": 2}, r"stands for `step: 1` and `clip: \[0, 255\]`"),
        ({"kind": "gaussian", "sigma": 3, "clip": (5, 5)}, "`clip` is a range from low to high"),
        ({"kind": "gaussian", "sigma": 3, "clip": (None, None)}, "`clip` is a range from low to high"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        noise_from(options)


def test_what_describes_noise_as_it_is_drawn() -> None:
    described = {
        "gaussian": {"sigma": 3},
        "poisson": {"psnr": 20},
        "poisson_gaussian": {"peak": 20, "read_noise": 2},
        "striped": {"sigma": 3},
        "correlated": {"sigma": 3, "radius": 1},
    }
    found = {kind: noise_from({"kind": kind, **options}).likelihoods for kind, options in described.items()}
    assert found == {
        "gaussian": {"gaussian", "poisson_gaussian"},
        "poisson": {"poisson", "poisson_gaussian"},
        "poisson_gaussian": {"poisson_gaussian"},
        "striped": frozenset(),  # of white noise only
        "correlated": frozenset(),
    }
    assert noise_from({"kind": "striped", "sigma": 3, "white": 4}).model().read_noise == 5  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "detector"),
    [
        ({}, {}),
        ({"bits": 8}, {"clip": [0, 255], "step": 1}),
        ({"clip": (None, 200)}, {"clip": [None, 200.0]}),
        ({"clip": (-20, 200.4), "step": 0.5}, {"clip": [-20.0, 200.4], "step": 0.5}),
    ],
)
def test_detectors_clip_then_round_what_was_drawn(options: dict[str, Any], detector: dict[str, Any]) -> None:
    clean = np.linspace(-50, 300, 2 * 64 * 64).reshape(1, 1, 2, 64, 64)
    raw = drawn(clean, noise_from({"kind": "gaussian", "sigma": 20}))
    noise = noise_from({"kind": "gaussian", "sigma": 20, **options})
    assert noise.detector == detector
    low, high = detector.get("clip", (None, None))
    expected = np.clip(raw, -np.inf if low is None else low, np.inf if high is None else high)
    step = detector.get("step")
    values = drawn(clean, noise)
    if step:
        np.testing.assert_array_equal(values / step, np.rint(values / step))
    np.testing.assert_allclose(values, expected, atol=step / 2 + 1e-4 if step else 0)
    assert (values == raw).all() == (not options)
    if options:
        assert (values == values.max()).mean() > 0.1  # a detector saturates


def test_the_commit_record_says_what_was_drawn_and_detected(tmp_path: Path) -> None:
    clean = make_store(tmp_path, "clean", CLEAN["integer"][:, :, :5, :70, :])
    found = {}
    for name, storage in {"small": STORAGE, "large": Storage(chunk=(5, 64, 64), shard=(5, 128, 128))}.items():
        noise = {"kind": "poisson_gaussian", "snr": 9, "read_noise": 20, "bits": 12}
        spec = SynthesizeSpec.model_validate({"key": (0, "d", "n", 4), "noise": noise, "storage": storage})
        write(spec, clean.path, tmp_path / f"{name}.ome.zarr")
        found[name] = Volume(tmp_path / f"{name}.ome.zarr")
    small, large = found.values()
    np.testing.assert_array_equal(small.array[:], large.array[:])
    assert small.record["noise"] == large.record["noise"]
    assert small.record["noise"] == resolved(clean.array[:], **noise).model_dump(mode="json", exclude_none=True)
    assert small.record["noise"]["gain"] > 0
    assert small.record["detector"] == {"clip": [0, 4095], "step": 1}
    assert small.array.dtype == np.float32
    assert small.metadata.name == "d n"


@pytest.mark.parametrize("key", ["[]", "[7]", '["any", "words"]', '[0, "d", "n", 123456789]'])
def test_any_key_is_a_realization_of_its_own(key: str, tmp_path: Path) -> None:
    clean = make_store(tmp_path, "clean", scene((2, 32, 32)).astype(np.uint16))
    text = f'{{"key": {key}, "noise": {{"kind": "gaussian", "sigma": 30}}}}'
    spec = parse_spec(SynthesizeSpec, text)
    write(spec, clean.path, tmp_path / "noisy.ome.zarr")
    usual = drawn(clean.array[:], spec.noise)
    assert not np.isclose(Volume(tmp_path / "noisy.ome.zarr").array[:], usual).mean() > 0.01
