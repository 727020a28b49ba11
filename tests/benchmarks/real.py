"""`make bench-real PEER=VENV DATA=FOLDER`: real noise, all our methods and CAREamics' Noise2Void. Asserts nothing.

Runs `config/protocols/real-noise.yaml` by the workflow, some two hours on two cores, then trains CAREamics for two
minutes on each dataset that has a reference and scores it as `score` and `compare` do ours.
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


def careamics(dataset: str, table: pd.DataFrame, python: Path) -> dict[str, object]:
    """A row for the peer's Noise2Void."""
    noisy, reference = (planes(RUN / dataset / name) for name in ("measured/noisy-0.ome.zarr", "reference.ome.zarr"))
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images.npz"
        np.savez(images, train=np.stack(noisy), **{f"test_{i}": image for i, image in enumerate(noisy)})
        denoised, spent = peer("n2v", MINUTES, 0, images, python)
    if table["reference_fit"].iloc[0] == "affine":
        denoised = fitted(denoised, reference)
    error = np.mean([np.mean((a - b) ** 2) for a, b in zip(denoised, reference, strict=True)])
    score = float(psnr(error, table["data_range"].iloc[0]))
    return {"dataset": dataset, "method": "CAREamics n2v", "psnr": score, "train_seconds": spent["seconds"]}


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


def main() -> None:
    """Print the tables."""
    data, python = Path(sys.argv[1]).resolve(), Path(sys.argv[2]) / "bin" / "python"
    workflow = ["snakemake", "--profile", "workflow/profiles/default", "--configfile", PROTOCOL, "--quiet", "rules"]
    subprocess.run([sys.executable, "-m", *workflow, "--config", f"data={data}"], check=True, cwd=ROOT)
    table = pd.read_csv(RUN / "comparison.csv")
    os.environ.update(MALLOC)  # the peer under the same settings as our jobs
    known = table.dropna(subset=["psnr"])
    rows = [careamics(str(dataset), part, python) for dataset, part in known.groupby("dataset", sort=False)]
    both = pd.concat([known, pd.DataFrame(rows)])
    order = list(dict.fromkeys(both["method"]))
    for value, what, form in (("psnr", "PSNR/dB", ".2f"), ("train_seconds", "seconds of training", ".0f")):
        wide = both.pivot(index="method", columns="dataset", values=value).reindex(order)
        print(f"{what}\n\n{wide.to_markdown(floatfmt=form)}\n")
    print(f"Calibration, per channel\n\n{calibrations().to_markdown(index=False, floatfmt='.3g')}\n")
    residuals = ["residual_ratio", "residual_correlation_y", "residual_correlation_x"]
    print("Residuals; in the row of the noisy input, the noise's own\n")
    print(table.set_index(["dataset", "method"])[residuals].to_markdown(floatfmt="+.3f"))


if __name__ == "__main__":
    main()
