"""Readers of files, by the end of their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssdenoise.ingest.arrays import read_hdf5, read_mrc, read_nifti, read_npy, read_picture
from ssdenoise.ingest.bio import read_czi, read_lif, read_nd2
from ssdenoise.ingest.omezarr import read_omezarr
from ssdenoise.ingest.photons import read_ptu, read_sdt
from ssdenoise.ingest.source import Source
from ssdenoise.ingest.tiff import read_tiff
from ssdenoise.remote import Remote

#: Reads a file (by its `Path`; some by a `Remote`, too), and of a file that holds several images the one that is named.
Reader = Callable[[Any, str | None], Source]

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


#: Those that read of a remote file what they need; of another format's, a copy is made first.
REMOTE_READERS: tuple[Reader, ...] = (read_tiff, read_hdf5, read_omezarr)


def reader_of(path: Path | Remote) -> tuple[str, Reader] | None:
    """The ending of a file's name that is known, the longest that fits, and who reads it."""
    name = path.name.lower()
    return max(
        ((end, read) for end, read in READERS.items() if name.endswith(end)), default=None, key=lambda e: len(e[0])
    )
