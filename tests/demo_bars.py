"""The quality that the demo must show; run by CI on its `comparison.csv`, the calibrations and the report beside.

python tests/demo_bars.py results/demo/comparison.csv
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd

TRAINED = ("n2n", "n2v", "hqssl")


def check(path: Path) -> list[str]:
    """Bars that the table misses, one line each."""
    psnr = pd.read_csv(path).set_index(["dataset", "noise", "method"])["psnr"].sort_index()
    missed: list[str] = []

    def bar(what: str, value: float, needed: float) -> None:
        line = f"{what}: {value:.2f}, needed {needed:.2f}"
        print("ok   " if value >= needed else "MISS ", line)
        if value < needed:
            missed.append(line)

    for noise in ("gaussian-20dB", "poisson-gaussian-26dB"):
        level = psnr["nuclei", noise]
        for method in TRAINED:
            bar(f"nuclei {noise} {method} over noisy", level[method] - level["noisy"], 5)
            bar(f"nuclei {noise} {method} over gaussian", level[method] - level["gaussian"], 0)
        for method in ("n2n", "hqssl"):
            bar(f"nuclei {noise} {method} over nlm", level[method] - level["nlm"], 0)
        bar(f"nuclei {noise} hqssl over n2v", level["hqssl"] - level["n2v"], 0)
    level = psnr["hazelnut", "measured"]
    for method in TRAINED:
        bar(f"hazelnut {method} over noisy", level[method] - level["noisy"], 3)
    for dataset in ("hazelnut", "receptacle"):  # counts: one unit a photon, independent from pixel to pixel
        found = json.loads((path.parent / dataset / "measured" / "calibration.json").read_text())
        for channel in found["channels"]:
            off = abs(channel["models"]["poisson_gaussian"]["gain"] - 1)
            bar(f"{dataset}: gain off 1 by at most 10 %", -off, -0.1)
            bar(f"{dataset}: neighbours with correlated noise", -len(channel["correlation"]["offsets"]), 0)
    size = (path.parent / "report.html").stat().st_size / 1e6
    bar("report: MB under 30", 30 - size, 0)
    return missed


if __name__ == "__main__":
    sys.exit(bool(check(Path(sys.argv[1]))))
