"""What all figures share: the backend, colours, and how they are saved."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from ssdenoise.provenance import code_hash

matplotlib.use("agg")
from matplotlib import pyplot as plt

__all__ = ["COLOURS", "plt", "save"]

#: Colours that the colour-blind can tell apart (Okabe and Ito 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def save(figure: Figure, output: Path, stage: str, *, vector: bool = True) -> None:
    """Write a figure as PNG and, for print, as PDF beside it; without a date inside: the same run gives the same bytes.

    Of images alone a PDF is of no use: `vector` is false.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    code = f"code {code_hash(stage)}"
    figure.savefig(output, dpi=110, metadata={"Software": "ssdenoise", "Source": code})
    if vector:
        metadata = {"Creator": "ssdenoise", "Subject": code, "CreationDate": None}
        figure.savefig(output.with_suffix(".pdf"), metadata=metadata)
    plt.close(figure)
