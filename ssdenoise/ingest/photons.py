"""Photon counts of time-resolved detectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssdenoise.ingest.source import Source, check_claim, in_memory, picked


def read_ptu(path: Path, part: str | None) -> Source:
    """PicoQuant time-tagged photons as counts: T, Y, X, C and H, the photon's arrival time."""
    import ptufile

    picked(part, [""], "scene")
    with ptufile.PtuFile(path) as ptu:
        axes = "".join(ptu.dims).lower()
        check_claim(path, ptu.shape, ptu.nbytes)
        step = {axis: float(np.diff(ptu.coords[axis.upper()][:2])[0]) * 1e6 for axis in "yx"}
        return Source(in_memory(np.asarray(ptu[...]), axes), axes, (None, step["y"], step["x"]))


def read_sdt(path: Path, part: str | None) -> Source:
    """Becker & Hickl photon counts: Y, X and H, the photon's arrival time."""
    import sdtfile

    with sdtfile.SdtFile(path) as sdt:
        data = sdt.data[picked(part, [str(i) for i in range(len(sdt.data))], "scene")]
        axes = {2: "yx", 3: "yxh"}.get(data.ndim, "q" * data.ndim)
        return Source(in_memory(data, axes), axes)
