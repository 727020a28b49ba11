"""The figure of a calibration."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssdenoise.calibrate.correlation import NEGATIVE, POSITIVE
from ssdenoise.noise import noise_models
from ssdenoise.plotting import COLOURS, plt, save
from ssdenoise.provenance import inline


def draw(calibration: Mapping[str, Any], title: str, output: Path) -> None:
    """Draw the photon transfer curve and the autocorrelation of each channel, and what they advise."""
    channels = calibration["channels"]
    figure, axes = plt.subplots(
        len(channels), 2, figsize=(8.4, 3.1 * len(channels) + 0.8), squeeze=False, layout="constrained"
    )
    for row, channel, models in zip(axes, channels, noise_models(calibration), strict=True):
        row[0].annotate(channel["name"], (0.98, 0.04), xycoords="axes fraction", fontsize=8, ha="right", color="0.4")
        if channel["step"] == 0:
            for axis in row:
                axis.set(xticks=[], yticks=[])
                axis.annotate("all voxels are equal", (0.5, 0.5), xycoords="axes fraction", ha="center", color="0.4")
            continue
        curve, model = channel["transfer_curve"], models.poisson_gaussian
        brightness = np.array(curve["brightness"])
        row[0].plot(brightness, curve["variance"], "o", color=COLOURS[0], markersize=4, label="measured")
        row[0].plot(brightness, model.variance(brightness), color=COLOURS[1], label="fit")
        row[0].set(xlabel="brightness", ylabel="noise variance", ylim=(0, None))
        row[0].set_title(
            f"gain {model.gain:.3g}, offset {_short(model.offset, model.gain)}, read noise {model.read_noise:.3g}\n"
            + (
                f"(offset ± {channel['offset_error']:.2g}, from the skewness of the noise)"
                if channel["offset_from"] == "third cumulant"
                else "(offset taken from the darkest place: an upper bound)"
            ),
            fontsize=9,
        )
        row[0].legend(frameon=False)
        for colour, axis in zip(COLOURS, "xyz", strict=False):
            if values := channel["correlation"][axis]:
                row[1].plot(range(1, len(values) + 1), values, "o-", color=colour, markersize=4, label=axis.upper())
        row[1].axhspan(NEGATIVE, POSITIVE, color="0.92", zorder=0)
        row[1].annotate(
            f"grey: too weak to count ({NEGATIVE} to {POSITIVE})", (0.02, 0.03), xycoords="axes fraction", fontsize=7
        )
        row[1].set(xlabel="lag / voxels", ylabel="correlation of the noise")
        low, high = row[1].get_ylim()
        row[1].set_ylim(min(low, -0.2), max(high, 0.2))
        row[1].set_title(
            f"saturated {channel['saturated_share']:.2%}, zero {channel['zero_share']:.2%}, "
            f"hot pixels {channel['hot_pixels']['number']}",
            fontsize=9,
        )
        if row[1].lines:
            row[1].legend(frameon=False)
        else:
            text = "images are too small to see it"
            row[1].annotate(text, (0.5, 0.65), xycoords="axes fraction", ha="center", fontsize=8, color="0.4")
    advice = calibration["recommendation"]
    lines = [f"{title} - " + (f"recommended: {inline(advice['entry'])}: {advice['why']}" if advice else "no advice")]
    lines += [f"! {text}" for text in calibration["warnings"]]
    figure.suptitle("\n".join(textwrap.fill(line, 110) for line in lines), fontsize=9, x=0.02, ha="left")
    save(figure, output, "calibrate")


def _short(offset: float, gain: float) -> str:
    """An offset, to a hundredth of a photon at most."""
    return f"{offset:.4g}" if abs(offset) > 0.01 * gain else "0"
