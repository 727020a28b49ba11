"""Inspect: what a file holds, what its noise is like, and the line for the sheet."""

from __future__ import annotations

import re
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np

from ssdenoise.calibrate import calibrate
from ssdenoise.config.specs import CalibrateSpec, IngestSpec, Storage
from ssdenoise.errors import FormatError
from ssdenoise.ingest import ingest, tczyx
from ssdenoise.ingest.source import VoxelSize
from ssdenoise.ingest.sources import read_source
from ssdenoise.provenance import inline
from ssdenoise.store import Volume

#: Time points, planes, and pixels a side that are looked at for intensities and noise.
TIMES, PLANES, SIDE = 4, 16, 1024

#: Columns of the line for the sheet.
COLUMNS = "dataset\tnoisy\taxes"


def inspect(source: str, axes: str | None = None) -> str:
    """Describe a source.

    Parameters
    ----------
    source : str
        As in the sheet: a path, and after `#` what to take of it.
    axes : str, optional
        Axes of its array where the file does not say, or says something else.

    Returns
    -------
    str
        Shape, dtype, voxel size, channels, intensities, noise and the method that suits it, and two lines to paste into
        a sheet. Intensities and noise are those of the middle of the volume.

    Raises
    ------
    SsdenoiseError
        As `ssdenoise.ingest.ingest`.
    """
    with closing(read_source(source, Path(), axes)) as found:
        voxels, size = tczyx(found, source), found.voxel_size_um
        shape, dtype = voxels.shape, voxels.dtype
        # those of another number are not of these channels, as in `ingest`
        names = found.channels if len(found.channels) == shape[1] else ()
    with tempfile.TemporaryDirectory() as folder:
        middle = "&".join(
            f"{axis}={start}:{start + n}"
            for axis, whole, wanted in zip("tzyx", (shape[0], *shape[2:]), (TIMES, PLANES, SIDE, SIDE), strict=True)
            if whole > wanted
            for start, n in [((whole - wanted) // 2, wanted)]
        )
        part = source + ("&" if "#" in source else "#") + middle if middle else source
        spec = IngestSpec(name="inspect", source=part, axes=axes, voxel_size_um=None, storage=Storage())
        store = Path(folder) / "part.ome.zarr"
        ingest(spec, store)
        calibration, why = None, ""
        try:
            calibration = calibrate(CalibrateSpec(), store, Path(folder) / "calibration.json")
        except FormatError as error:  # too thin an image, of which the rest can be told
            why = str(error)
        volume = Volume(store)
        seen = "x".join(map(str, volume.shape))
        ranges = [
            f"{one.minimum:g} to {one.maximum:g}, 99.8 % of it {_short(one.quantile(0.001))} to "
            f"{_short(one.quantile(0.999))}"
            for one in volume.intensities()
        ]
    lines = [
        source,
        f"  shape       {'x'.join(map(str, shape))} (TCZYX), {np.prod(shape) * dtype.itemsize / 1e6:.4g} MB",
        f"  dtype       {dtype}",
        f"  voxel size  {_size(size)}",
    ]
    for c, intensity in enumerate(ranges):
        lines += [
            f"  channel {c}   {names[c] if names else 'no name'}; of its middle, {seen}:",
            f"    intensity {intensity}",
        ]
        if calibration and (channel := calibration["channels"][c])["step"] > 0:
            model = channel["models"]["poisson_gaussian"]
            lines += [
                f"    noise     gain {model['gain']:.3g}, offset {model['offset']:.4g} (from the "
                f"{channel['offset_from']}), read noise {model['read_noise']:.3g}"
            ]
    if calibration:
        if advice := calibration["recommendation"]:
            lines += [f"  method      {inline(advice['entry'])}: {advice['why']}"]
        lines += [f"  warning     {text}" for text in calibration["warnings"]]
    else:
        lines += [f"  noise       cannot be measured: {why}"]
    lines += ["", COLUMNS, f"{name_of(source)}\t{source}\t{axes or ''}"]
    return "\n".join(lines) + "\n"


def name_of(source: str) -> str:
    """A dataset's name: that of its file, or of the folder of a pattern, of characters that are allowed in names."""
    path = Path(source.partition("#")[0])
    stem = (path.parent if "*" in path.name else path).name.partition(".")[0]
    return re.sub("[^A-Za-z0-9_-]", "-", stem)[:80] or "unnamed"  # names become folders


def _size(size: VoxelSize | None) -> str:
    if size is None:
        return "not in the file"
    z, y, x = size
    return (
        f"{y:g}, {x:g} micrometres (Y, X), Z is not in the file"
        if z is None
        else f"{z:g}, {y:g}, {x:g} micrometres (Z, Y, X)"
    )


def _short(quantile: float) -> str:
    return f"{quantile:.4g}" if abs(quantile) > 1e-30 else "0"  # the middle of the histogram's bin of zeros
