"""Scores against scikit-image's, and how far scores without a reference are from the truth."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity

from ssdenoise.config.specs import Storage
from ssdenoise.metrics import Moments, Window, psnr, similarity_maps
from ssdenoise.metrics.risk import risk
from ssdenoise.noise import NoiseModel
from ssdenoise.score.planes import Scene, plane, volume_similarity
from tests.benchmarks.measure import THREADS, interleaved, seconds_of
from tests.conftest import make_store, scene
from tests.unit.test_probe import DENOISERS, NOISE, draw

SHAPE, RANGE = (64, 512, 512), 1000.0


def scores(folder: Path, rounds: int) -> pd.DataFrame:
    """Seconds for the scores of a volume: the same ones as scikit-image's, and all of the stage, from the stores."""
    clean = scene(SHAPE).astype(np.float32)
    noisy = clean + np.random.default_rng(0).normal(0, 40, SHAPE).astype(np.float32)
    stores = {
        name: make_store(folder, name, voxels[None, None], Storage())
        for name, voxels in {"noisy": noisy, "denoised": noisy, "truth": clean}.items()
    }
    whole = Scene(stores, [NoiseModel(0, 0, 40)], RANGE, Window())
    unfitted = np.tile((1.0, 0.0), (SHAPE[0], 1))

    def in_threads(of_plane: Callable[[int], object]) -> list[object]:
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(of_plane, range(SHAPE[0])))

    def same(z: int) -> object:
        inside = tuple(slice(0, n) for n in SHAPE[1:])
        maps = similarity_maps(clean[z], noisy[z], inside, data_range=RANGE, window=Window())
        return Moments.of(clean[z], noisy[z]), maps[0].mean()

    def theirs(z: int) -> object:
        x, y = clean[z].astype(np.float64), noisy[z].astype(np.float64)
        errors = peak_signal_noise_ratio(x, y, data_range=RANGE), normalized_root_mse(x, y)
        return errors, structural_similarity(x, y, data_range=RANGE)

    calls: dict[str, Callable[[], object]] = {
        "scikit-image: PSNR, NRMSE, SSIM of planes": lambda: [theirs(z) for z in range(SHAPE[0])],
        "scikit-image, in threads": lambda: in_threads(theirs),
        "ssdenoise: the same": lambda: [same(z) for z in range(SHAPE[0])],
        "ssdenoise, in threads": lambda: in_threads(same),
        "score: all, from stores": lambda: in_threads(lambda z: plane(whole, (0, 0, z), similarity=True)),
        "scikit-image: SSIM of the volume": lambda: structural_similarity(
            clean.astype(np.float64), noisy.astype(np.float64), data_range=RANGE
        ),
        "ssdenoise: the same, by blocks from stores": lambda: volume_similarity(whole, 0, 0, unfitted),
    }
    found = interleaved({name: partial(seconds_of, call) for name, call in calls.items()}, rounds)
    return pd.DataFrame({"scores of 64x512x512": name, "seconds": seconds} for name, seconds in found.items())


def estimators(draws: int = 20) -> pd.DataFrame:
    """How far PSNR without a reference is from the true one, in dB: mean and standard deviation over draws."""
    rows = []
    for name, noise in NOISE.items():
        clean = scene((1, 256, 256))[0].astype(float) + (100 if name == "Poisson-Gaussian" else 0)
        for denoiser, denoise in DENOISERS.items():
            rng = np.random.default_rng(0)
            found = pd.DataFrame([_once(clean, noise, denoise, rng) for _ in range(draws)])
            off = {}
            for key in ("risk", "uPSNR"):
                errors = found[key] - found["true"]
                off |= {f"{key} bias": errors.mean(), f"{key} s.d.": errors.std()}
            rows.append({"noise": name, "denoiser": denoiser, "true PSNR": found["true"].mean()} | off)
    return pd.DataFrame(rows)


def _once(
    clean: np.ndarray, noise: NoiseModel, denoise: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator
) -> dict[str, float]:
    y, other = draw(clean, noise, rng), draw(clean, noise, rng)
    estimate = denoise(y)
    direction = rng.choice([-1.0, 1.0], y.shape) * np.sqrt(np.maximum(noise.variance(estimate), 1))
    change = (denoise(y + 0.05 * direction) - denoise(y - 0.05 * direction)) / 0.1
    errors = {
        "true": np.square(estimate - clean),
        "risk": risk(y, estimate, change, direction, noise),
        "uPSNR": np.square(estimate - other) - np.square(y - other) / 2,
    }
    return {name: float(psnr(max(error.mean(), 1e-9), RANGE)) for name, error in errors.items()}
