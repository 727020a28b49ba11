"""`make bench-real PEER=VENV DATA=FOLDER`: real noise, all our methods and CAREamics' Noise2Void.

Runs `config/protocols/real-noise.yaml` by the workflow, one to two hours on two cores, then trains CAREamics for two
minutes on each dataset and scores it as `score` and `compare` do ours. Exits with 1 if noise is taken for what it is
not, or if no method for correlated noise does better on it than n2v.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from ssdenoise.__main__ import MALLOC
from ssdenoise.metrics import psnr
from ssdenoise.provenance import read_json
from ssdenoise.store import Volume
from tests.benchmarks.quality import Images, peer

ROOT = Path(__file__).parents[2]
PROTOCOL = "config/protocols/real-noise.yaml"
RUN = ROOT / "results" / "real-noise"
MINUTES = 2.0

#: Whether each dataset's noise is correlated between pixels, be it weakly.
CORRELATED = {"fmd": True, "brain": True, "w2s": False, "hazelnut": False}

RESIDUALS = ["residual_ratio", "residual_correlation_y", "residual_correlation_x"]


def planes(store: Path) -> Images:
    """All planes of a volume, YX, or CYX if it has several channels."""
    voxels = Volume(store).read((slice(None),) * 5).astype(np.float32)
    _, channels, _, *size = voxels.shape
    shape = (-1, channels, *size) if channels > 1 else (-1, *size)
    return list(voxels.transpose(0, 2, 1, 3, 4).reshape(shape))


def fitted(denoised: Images, reference: Images) -> Images:
    """Each plane mapped to the units of the reference."""
    lines = [np.polyfit(a.ravel().astype(float), b.ravel(), 1) for a, b in zip(denoised, reference, strict=True)]
    return [gain * image + offset for (gain, offset), image in zip(lines, denoised, strict=True)]


def correlation(residuals: Images, axis: int) -> float:
    """Of neighbours along an axis, pooled over planes, as in the workflow's table."""
    pairs = [(np.delete(image, -1, axis).ravel(), np.delete(image, 0, axis).ravel()) for image in residuals]
    products, first, second = (
        sum(float(np.dot(x, y)) for x, y in chosen)
        for chosen in (pairs, [(a, a) for a, _ in pairs], [(b, b) for _, b in pairs])
    )
    return products / (first * second) ** 0.5


def careamics(dataset: str, table: pd.DataFrame, python: Path) -> dict[str, object]:
    """A row for the peer's Noise2Void."""
    noisy = planes(RUN / dataset / "measured/noisy-0.ome.zarr")
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images.npz"
        np.savez(images, train=np.stack(noisy), **{f"test_{i}": image for i, image in enumerate(noisy)})
        denoised, spent = peer("n2v", MINUTES, 0, images, python)
    residuals = [(a - b).astype(np.float64) for a, b in zip(noisy, denoised, strict=True)]
    row: dict[str, object] = {"dataset": dataset, "method": "CAREamics n2v", "train_seconds": spent["seconds"]}
    row |= {f"residual_correlation_{name}": correlation(residuals, axis) for name, axis in (("y", -2), ("x", -1))}
    if table["psnr"].notna().any():
        reference = planes(RUN / dataset / "reference.ome.zarr")
        if table["reference_fit"].iloc[0] == "affine":
            denoised = fitted(denoised, reference)
        error = np.mean([np.mean((a - b) ** 2) for a, b in zip(denoised, reference, strict=True)])
        row["psnr"] = float(psnr(error, table["data_range"].iloc[0]))
    return row


def calibrations() -> pd.DataFrame:
    """What was found of each dataset's noise: correlation between neighbours, and what is recommended."""
    rows = []
    for path in sorted(RUN.glob("*/measured/calibration.json")):
        found = read_json(path)
        for channel in found["channels"]:
            model, lags = channel["models"]["poisson_gaussian"], channel["correlation"]
            row = {"dataset": path.parts[-3], "channel": channel["name"]}
            row |= {name: model[name] for name in ("gain", "offset", "read_noise")}
            row |= {f"correlation_{axis}": lags[axis][0] if lags[axis] else float("nan") for axis in "zyx"}
            rows.append(row | {"recommended": " ".join(map(str, found["recommendation"]["entry"].values()))})
    return pd.DataFrame(rows)


def _reach(found: dict[str, list[list[int]]], axis: str) -> int:
    """How many neighbours along an axis the noise is correlated with, so that it counts."""
    return max((abs(offset["zyx".index(axis)]) for offset in found["offsets"]), default=0)


def verdicts(table: pd.DataFrame) -> bool:
    """Print what must hold of the calibrations and of correlated noise, and say whether it does."""
    fine = True
    for dataset, expected in CORRELATED.items():
        channels = read_json(RUN / dataset / "measured/calibration.json")["channels"]
        axes = {a for c in channels for a in "yx" if a in c["correlation"]["weak"] or _reach(c["correlation"], a)}
        fine &= bool(axes) == expected
        what = f"correlated along {', '.join(sorted(axes))}" if axes else "white"
        print(f"{dataset}: noise is {what}: {'ok' if bool(axes) == expected else 'MISSED'}")
    brain = table[table["dataset"] == "brain"].set_index("method")[RESIDUALS[1:]]
    # a residual that is the noise is correlated as the noise is; noise that is left, or structure that is not, shows
    away = (brain - brain.loc["noisy"]).abs().mean(axis=1)
    best = away[["structn2v", "sasl"]].idxmin()
    better = bool(away[best] < away["n2v"])
    print(
        f"brain: how far the residual's correlation is from the noise's own: {away[best]:.2f} with {best}, "
        f"{away['n2v']:.2f} with n2v: {'ok' if better else 'MISSED'}"
    )
    return fine and better


def main() -> None:
    """Print the tables."""
    data, python = Path(sys.argv[1]).resolve(), Path(sys.argv[2]) / "bin" / "python"
    workflow = ["snakemake", "--profile", "workflow/profiles/default", "--configfile", PROTOCOL, "--quiet", "progress"]
    subprocess.run([sys.executable, "-m", *workflow, "--config", f"data={data}"], check=True, cwd=ROOT)
    table = pd.read_csv(RUN / "comparison.csv")
    os.environ.update(MALLOC)  # the peer under the same settings as our jobs
    rows = [careamics(str(dataset), part, python) for dataset, part in table.groupby("dataset", sort=False)]
    both = pd.concat([table, pd.DataFrame(rows)])
    order = list(dict.fromkeys(both["method"]))
    for value, what, form in (("psnr", "PSNR/dB", ".2f"), ("train_seconds", "seconds of training", ".0f")):
        wide = both.dropna(subset=[value]).pivot(index="method", columns="dataset", values=value)
        print(f"{what}\n\n{wide.reindex([m for m in order if m in wide.index]).to_markdown(floatfmt=form)}\n")
    print(f"Calibration, per channel\n\n{calibrations().to_markdown(index=False, floatfmt='.3g')}\n")
    print("Residuals; in the row of the noisy input, the noise's own\n")
    by_dataset = both.sort_values("dataset", kind="stable").set_index(["dataset", "method"])
    print(by_dataset[RESIDUALS].to_markdown(floatfmt="+.3f"), end="\n\n")
    sys.exit(not verdicts(table))


if __name__ == "__main__":
    main()
