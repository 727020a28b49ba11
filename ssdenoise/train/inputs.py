"""What a training takes from its volumes and their calibration, and what it refuses."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from ssdenoise.config.models import TrainSpec
from ssdenoise.errors import ConfigError, FormatError
from ssdenoise.intensity import Intensities, Normalization
from ssdenoise.methods import Method
from ssdenoise.noise import ImpulseModel, NoiseModels, correlated_offsets, noise_from, noise_models
from ssdenoise.provenance import file_digest, inline, listed
from ssdenoise.store import Volume

log = logging.getLogger(__name__)

#: Read noise, in photons, above which images are better not thinned: its variance is then a quarter of that of the
#: noise of one photon.
READ_NOISE = 0.5


#: Factor between the calibrated gain and the one that photons are thinned by, and offset in photons, that are told.
GAINS, OFFSET = 1.5, 3.0

#: Factor between the standard deviations of the noise of two volumes of a group from which on it is told.
NOISES = 1.5


@dataclass(frozen=True)
class Scene:
    """What a training gets of one volume.

    Attributes
    ----------
    noisy : Path
        Store of the noisy volume.
    calibration : Path
        Its noise parameters.
    target : Path or None
        Store of the second realization or, for methods that need it, of the clean volume; None for methods without
        target, and for pairs that the noisy volume itself offers.
    """

    noisy: Path
    calibration: Path
    target: Path | None = None

    def volumes(self) -> list[Volume]:
        """The noisy volume and, where there is one, the target."""
        return [Volume(self.noisy)] + ([Volume(self.target)] if self.target else [])


def check(spec: TrainSpec, scenes: Sequence[Sequence[Volume]]) -> None:
    """Refuse volumes that are not alike, or do not offer the pairs or the target that the method needs."""
    first = scenes[0][0]
    for noisy, *_ in scenes:
        if noisy.shape[1] != first.shape[1]:
            raise FormatError(
                f"{noisy.path} has {noisy.shape[1]} channels, {first.path} {first.shape[1]}; a model is trained on "
                "volumes with as many: put them into groups of their own"
            )
    for volumes in scenes:
        _check_pairs(spec, volumes)


def _check_pairs(spec: TrainSpec, volumes: Sequence[Volume]) -> None:
    method, noisy = spec.method, volumes[0]
    if (method.target == "clean" or (method.target and spec.pairing == "volume")) and len(volumes) < 2:
        needed = {"pair": "a pair; give it as --target, or another `pairing`", "clean": "the clean volume as --target"}
        raise ConfigError(f"{spec.dataset}: {method.name} needs {needed[method.target]}")
    if len(volumes) == 2 and noisy.shape != volumes[1].shape:
        raise FormatError(
            f"{volumes[1].path} has shape {volumes[1].shape}, {noisy.path} {noisy.shape}; "
            "a noisy volume and its target have the same"
        )
    if method.target == "pair" and spec.pairing == "thinning" and spec.photon_gain == 1 and not _counts(noisy):
        raise FormatError(
            f"{noisy.path} is {noisy.array.dtype}; photon counts (unsigned) can be thinned as they are, others need "
            "`thinning=GAIN` or `thinning=calibrated`"
        )
    if method.target == "pair" and spec.pairing in ("repeats", "interleaved") and noisy.shape[0] < 2:
        raise FormatError(f"{noisy.path} has a single time point; `pair: {spec.pairing}` needs at least two")


def _counts(volume: Volume) -> bool:
    return volume.array.dtype.kind == "u"


def pooled(volumes: Sequence[Volume]) -> list[Intensities]:
    """Intensities of each channel in all volumes together."""
    return [
        reduce(Intensities.__add__, channel)
        for channel in zip(*(volume.intensities() for volume in volumes), strict=True)
    ]


def input_digests(scenes: Sequence[Scene], volumes: Sequence[Sequence[Volume]]) -> dict[str, str]:
    """Name and digest of each input, numbered where there are several scenes."""
    found: dict[str, str] = {}
    for number, (scene, (noisy, *target)) in enumerate(zip(scenes, volumes, strict=True)):
        digests = {"noisy": noisy.digest, "calibration": file_digest(scene.calibration)}
        digests |= {"target": target[0].digest} if target else {}
        found |= {f"{name} {number}" if len(scenes) > 1 else name: one for name, one in digests.items()}
    return found


def typical_noise(
    scenes: Sequence[Scene], calibrations: Sequence[Mapping[str, Any]], normalization: Normalization
) -> int:
    """Number of the scene whose noise at the mean intensity is the median; those with other noise are told.

    The parameters of a single volume are taken, not the mean over all: they were fitted together.
    """
    logs = np.array(
        [
            [
                0.5 * np.log(max(float(one.poisson_gaussian.variance(mean)), np.finfo(float).tiny))
                for one, mean in zip(noise_models(calibration), normalization.offset, strict=True)
            ]
            for calibration in calibrations
        ]
    )
    typical = int(np.argsort(logs.mean(axis=1), kind="stable")[(len(logs) - 1) // 2])
    for scene, one in zip(scenes, logs, strict=True):
        factor = float(np.exp(np.abs(one - logs[typical]).max()))
        if factor > NOISES:
            log.warning(
                "%s: the standard deviation of its noise is %.2g times that of %s, or a fraction as small, and one "
                "model is to suit both; a `group` of volumes with like noise is better",
                scene.noisy,
                factor,
                scenes[typical].noisy,
            )
    return typical


def photon_scales(spec: TrainSpec, calibration: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Gain and offset of each channel, by which intensities become photons to be thinned."""
    found = [one.poisson_gaussian for one in noise_models(calibration)]
    if spec.photon_gain != "calibrated":
        given = spec.photon_gain
        for one in found if spec.method.target == "pair" and spec.pairing == "thinning" else ():
            if not given / GAINS < one.gain < given * GAINS or one.offset > OFFSET * given:
                log.warning(
                    "%s: thinned as if %g units were a photon and none were 0; the calibration found a gain of %.3g "
                    "and an offset of %.3g: unless you know better, take `thinning=calibrated`",
                    spec.dataset,
                    given,
                    one.gain,
                    one.offset,
                )
        return [(given, 0.0)] * len(found)
    if spec.method.target == "pair" and spec.pairing == "thinning":
        if any(one.gain <= 0 for one in found):
            raise ConfigError(
                f"{spec.dataset}: the calibration found no photon noise (gain 0), so nothing can be thinned"
            )
        if (photons := max(one.read_noise / one.gain for one in found)) > READ_NOISE:
            log.warning(
                "%s: read noise, of up to %.1f photons by the calibration, is in both parts of a thinned image, and %s "
                "learns it as signal; repeats do not share it, and hqssl knows of it",
                spec.dataset,
                photons,
                spec.method.name,
            )
    return [(one.gain, one.offset) for one in found]


def noise_of(method: Method, volumes: Sequence[Volume], calibration: Mapping[str, Any]) -> list[NoiseModels]:
    """Noise parameters of each channel as the method asks for: calibrated, or those of the synthesis."""
    calibrated = noise_models(calibration)
    if method.true_noise is None:
        return calibrated
    for volume in volumes:
        if "noise" not in volume.record:
            raise ConfigError(
                f"{volume.path} was measured: its parameters are not known; use `parameters: calibrated` or `unknown`"
            )
        if volume.record["noise"] != volumes[0].record["noise"]:
            raise ConfigError(f"{volume.path} was drawn with other noise than {volumes[0].path}; group like ones")
    drawn = noise_from(volumes[0].record["noise"])
    true = drawn.model()
    if true is None or method.true_noise not in drawn.likelihoods:
        fits = listed(drawn.likelihoods)
        raise ConfigError(
            f"{volumes[0].path} was drawn with {inline(volumes[0].record['noise'])}, which `likelihood: "
            f"{method.true_noise}` cannot describe; needed {fits or 'other `parameters` than `known`'}"
        )
    if isinstance(true, ImpulseModel):
        return [replace(one, impulse=true) for one in calibrated]
    return [NoiseModels(true, true, true, one.impulse) for one in calibrated]


def warn_of_small_patches(method: Method, halo: Sequence[int], patch: Sequence[int], size: Sequence[int]) -> None:
    """Say so if a network looks further than its training patches reach: it then learns from what is beside them."""
    if any(h > p < n for h, p, n in zip(halo, patch[-len(halo) :], size[-len(halo) :], strict=True)):
        log.warning(
            "the network of %s looks %s voxels far, its training patches are %s large: it will do worse on whole "
            "volumes than on patches; take a larger `patch`",
            method.name,
            "x".join(map(str, halo)),
            "x".join(map(str, patch[-len(halo) :])),
        )


def warn(method: Method, calibration: Mapping[str, Any], ndim: int) -> None:
    """Say so if the method takes noise as independent between voxels, and this noise is not."""
    offsets = correlated_offsets(calibration)
    if "z" in method.independent_along and ndim == 3 and any(z for z, _, _ in offsets):
        log.warning("%s may keep noise that planes share as structure; `ndim: 2` suits better", method.name)
    if "y" in method.independent_along and any(y or x for _, y, x in offsets):
        advice = calibration["recommendation"]
        entry, why = inline(advice["entry"]), advice["why"]
        log.warning("%s may keep noise as structure; %s suits better: %s", method.name, entry, why)
