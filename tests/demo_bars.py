"""The quality that the demo's table must show; run by CI on its `comparison.csv`.

python tests/demo_bars.py results/demo/comparison.csv
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

TRAINED = ("n2n", "n2v", "hqssl")


def check(path: Path) -> list[str]:
    """Bars that the table misses, one line each."""
    psnr = pd.read_csv(path).set_index(["dataset", "noise", "method"])["psnr"].sort_index()
    missed: list[str] = []

    def bar(what: str, value: float, needed: float) -> None:
        line = f"{what}: {value:.2f} dB, needed {needed:.2f}"
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
    return missed


if __name__ == "__main__":
    sys.exit(bool(check(Path(sys.argv[1]))))
