"""Which method suits the noise that was found, and what stands in the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssdenoise.noise import correlated_offsets

#: Noise is Gaussian for all that matters if photons make up less than this share of its variance at middle brightness.
PHOTON_SHARE = 0.1

#: Noise varies from plane to plane if it does so by more than this factor (one detector: 1.1).
VARIES = 1.5

#: Intensities are photon counts if a photon is under this many of the smallest steps between them.
FINE = 2.0

#: Shares above which saturation, zeros and hot pixels are worth a warning.
SATURATED, ZERO, HOT = 1e-3, 0.05, 1e-5


def recommend(channels: Sequence[dict[str, Any]], *, repeats: bool) -> tuple[dict[str, Any] | None, list[str]]:
    """A method entry with the reason for it, and warnings, from what was found of each channel.

    Channels without noise have no say; where there is no other, nothing is recommended.
    """
    warnings = [text for channel in channels for text in _warnings(channel)]
    channels = [channel for channel in channels if channel["step"] > 0]
    if not channels:
        return None, warnings
    in_plane = {offset for offset in correlated_offsets({"channels": channels}) if offset[0] == 0}
    if repeats:
        entry: dict[str, Any] = {"name": "n2n"}
        why = "repeats are pairs of independent noise, whatever its distribution and correlation"
    elif {offset[1] != 0 for offset in in_plane} == {True, False}:
        entry = {"name": "sasl", "radius": "calibrated"}
        why = f"noise is correlated along Y and X ({_reach(in_plane)}): a mask that hides both would hide too much"
    elif in_plane:
        entry = {"name": "structn2v", "mask": "calibrated"}
        why = f"noise is correlated along one axis ({_reach(in_plane)}), which a mask can hide"
    else:
        likelihood = _likelihood(channels)
        entry = {"name": "hqssl", "likelihood": likelihood}
        if any(variation(channel) > VARIES for channel in channels):
            entry["parameters"] = "unknown_per_image"
        growth = {"gaussian": "is about as strong everywhere", "poisson_gaussian": "grows with brightness"}[likelihood]
        measured = all(channel["correlation"][axis] for channel in channels for axis in "yx")
        weak = any(axis in channel["correlation"]["weak"] for channel in channels for axis in "yx")
        white = "correlation between pixels is weak" if weak else "no correlation between pixels was found along Y or X"
        unknown = "images are too small to see whether noise is correlated between pixels"
        why = f"{white if measured else unknown}, and the noise {growth}"
    return {"entry": entry, "why": why}, warnings


def variation(channel: dict[str, Any]) -> float:
    """Factor between the variances of a strong plane's noise and a weak one's, beyond what brightness explains."""
    found = channel["plane_strengths"]
    return float(np.quantile(found, 0.9) / np.quantile(found, 0.1)) if len(found) > 1 and min(found) > 0 else 1.0


def _likelihood(channels: Sequence[dict[str, Any]]) -> str:
    """The simplest likelihood that describes all channels."""
    kinds = set()
    for channel in channels:
        model, curve = channel["models"]["poisson_gaussian"], channel["transfer_curve"]
        middle = len(curve["variance"]) // 2
        photons = model["gain"] * max(curve["brightness"][middle] - model["offset"], 0)
        kinds.add("gaussian" if photons < PHOTON_SHARE * curve["variance"][middle] else "poisson_gaussian")
    return kinds.pop() if len(kinds) == 1 else "poisson_gaussian"


def _reach(offsets: set[tuple[int, int, int]]) -> str:
    return ", ".join(
        f"{axis} {max(o[i] for o in offsets)}" for i, axis in enumerate("ZYX") if any(o[i] for o in offsets)
    )


def _warnings(channel: dict[str, Any]) -> list[str]:
    name, found, texts = channel["name"], channel["correlation"], []
    if channel["step"] == 0:
        return [f"{name}: all voxels are equal: there is no noise to measure"]
    for axis in "yx":
        if any(offset["zyx".index(axis)] for offset in found["offsets"]):
            texts.append(
                f"{name}: noise is correlated along {axis.upper()} ({found[axis][0]:+.2f} between neighbours); n2v, "
                "n2v2, hqssl and neighbor2neighbor take it for structure and keep part of it; gaussian, median, nlm "
                "and bm3d smooth too little"
            )
        elif axis in found["weak"]:
            texts.append(
                f"{name}: noise is weakly correlated along {axis.upper()} ({found[axis][0]:+.2f} between neighbours); "
                "methods that take it as independent keep a little of it"
            )
    if channel["high_pass"] and all(any(offset[i] for offset in found["offsets"]) for i in (1, 2)):
        texts.append(
            f"{name}: where noise is correlated along Y and X, its variance cannot be told from structure's for sure; "
            "it may be too low, and residual ratios then too high"
        )
    if any(offset[0] for offset in found["offsets"]):
        texts.append(
            f"{name}: noise is correlated between planes ({found['z'][0]:+.2f}), as fixed patterns and interpolated "
            "stacks are; denoise plane by plane (`ndim` 2)"
        )
    if (factor := variation(channel)) > VARIES:
        texts.append(
            f"{name}: noise varies from plane to plane, its variance by a factor of {factor:.1f} beyond what "
            "brightness explains, as of planes stretched each by itself; what is calibrated for all of them, as "
            "hqssl's default, nlm and bm3d use it, fits few: take `parameters: unknown_per_image` or a dataset for each"
        )
    if channel["saturated_share"] > SATURATED:
        texts.append(f"{name}: {channel['saturated_share']:.2%} of the voxels are saturated: nothing can restore them")
    photon_like = channel["models"]["poisson_gaussian"]
    # photons come in whole numbers: where intensities differ by much less than the gain, zeros are not their absence
    counts = photon_like["read_noise"] <= photon_like["gain"] < FINE * channel["step"]
    if channel["zero_share"] > ZERO and not counts:
        texts.append(
            f"{name}: {channel['zero_share']:.1%} of the voxels are 0; if noise was clipped there, means are too high: "
            "record with an offset"
        )
    if channel["hot_pixels"]["share"] > HOT:
        texts.append(
            f"{name}: {channel['hot_pixels']['number']} hot pixels; repeats share them, so n2n learns them as signal"
        )
    return texts
