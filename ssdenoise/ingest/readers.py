"""Readers of files, by the end of their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ssdenoise.ingest.arrays import read_hdf5, read_mrc, read_nifti, read_npy, read_picture
from ssdenoise.ingest.bio import read_czi, read_lif, read_nd2
from ssdenoise.ingest.omezarr import read_omezarr
from ssdenoise.ingest.photons import read_ptu, read_sdt
from ssdenoise.ingest.source import Source
from ssdenoise.ingest.tiff import read_tiff

#: Reads a file, and of a file that holds several images the one that is named.
Reader = Callable[[Path, str | None], Source]

READERS: dict[str, Reader] = {
    **dict.fromkeys((".tif", ".tiff", ".btf"), read_tiff),
    ".ptu": read_ptu,
    ".sdt": read_sdt,
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp"), read_picture),
    ".npy": read_npy,
    **dict.fromkeys((".h5", ".hdf5"), read_hdf5),
    **dict.fromkeys((".mrc", ".mrcs", ".rec", ".st"), read_mrc),
    **dict.fromkeys((".nii", ".nii.gz"), read_nifti),
    ".zarr": read_omezarr,
    ".nd2": read_nd2,
    ".lif": read_lif,
    ".czi": read_czi,
}


def reader_of(path: Path) -> tuple[str, Reader] | None:
    """The ending of a file's name that is known, the longest that fits, and who reads it."""
    name = path.name.lower()
    return max(
        ((end, read) for end, read in READERS.items() if name.endswith(end)), default=None, key=lambda e: len(e[0])
    )
