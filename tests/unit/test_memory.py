"""Memory does not grow with the volume: peak resident memory of stages on a small and on a large one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import tifffile

from ssdenoise.config.specs import IngestSpec, Storage, dump

#: Planes of a volume of 512x512 pixels and two bytes: 8 and 101 MB.
SMALL, LARGE = 16, 192

#: What the large volume may take more than the small one, of the 93 MB that it has more: how memory is given back is
#: a little different each time.
SLACK_MB = 40


def peak_mb(code: str) -> float:
    """Peak resident memory of a process of its own, in MB."""
    code += "\nfrom ssdenoise.provenance import peak_memory_mb; print(peak_memory_mb())"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def write_volume(path: Path, planes: int) -> None:
    """Compressed page by page, so that nothing can be mapped."""
    rng = np.random.default_rng(0)
    with tifffile.TiffWriter(path) as tiff:
        for _ in range(planes):
            tiff.write(rng.poisson(50, (512, 512)).astype(np.uint16), contiguous=False, compression="zlib")


def ingest_of(source: Path, output: Path) -> str:
    spec = IngestSpec(
        name="v", source=f"{source}", axes="ZYX", voxel_size_um=None, storage=Storage(shard=(4, 512, 512))
    )
    return (
        "import ssdenoise.ingest as stage\nfrom pathlib import Path\n"
        "from ssdenoise.config.specs import IngestSpec, parse_spec\nstage.BAND_BYTES = 2**22\n"
        f"stage.ingest(parse_spec(IngestSpec, {dump(spec)!r}), Path({str(output)!r}))"
    )


def test_ingest_and_pyramid(tmp_path: Path) -> None:
    peaks = []
    for planes in (SMALL, LARGE):
        write_volume(tmp_path / f"{planes}.tif", planes)
        peaks.append(peak_mb(ingest_of(tmp_path / f"{planes}.tif", tmp_path / f"{planes}.ome.zarr")))
    assert peaks[1] - peaks[0] < SLACK_MB, peaks
