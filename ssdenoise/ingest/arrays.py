"""Pictures, and files that hold plain arrays: NumPy, HDF5, MRC, NIfTI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from ssdenoise.ingest.source import Source, in_memory, last_axes, picked, reading
from ssdenoise.remote import Remote

#: Micrometres of the units that NIfTI knows, and of the Angstrom of MRC.
NIFTI_UNITS = {"micron": 1.0, "mm": 1e3, "meter": 1e6}
ANGSTROM = 1e-4


def read_picture(path: Path, part: str | None) -> Source:
    """PNG or JPEG, grey or RGB."""
    from imageio import v3 as imageio

    picked(part, [""], "scene")
    # from memory, as the reader leaves a file open that it cannot read
    found = imageio.improps(path.read_bytes())

    def read() -> npt.NDArray[Any]:
        with reading(path):
            return np.asarray(imageio.imread(path.read_bytes()))

    chunks = tuple((n,) for n in found.shape)
    array = da.map_blocks(read, chunks=chunks, dtype=found.dtype, meta=np.empty((0,) * len(chunks), found.dtype))
    return Source(array, "yx" if len(found.shape) == 2 else "yxc")


def read_npy(path: Path, part: str | None) -> Source:
    """NumPy's own."""
    picked(part, [""], "scene")
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return Source(in_memory(array, axes := last_axes(array.ndim)), axes)


def read_hdf5(path: Path | Remote, part: str | None) -> Source:
    """A dataset of an HDF5 file, by its name; axes from its dimension labels or ilastik's tags, where it has them."""
    import h5py

    file = h5py.File(path.open() if isinstance(path, Remote) else path, "r")
    try:
        names: list[str] = []
        file.visititems(
            lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) and node.ndim > 1 else None
        )
        dataset = file[names[picked(part and part.strip("/"), names, "dataset")]]
        labels = [dim.label for dim in dataset.dims]
        if all(len(label) == 1 for label in labels):
            axes = "".join(labels).lower()
        elif "axistags" in dataset.attrs:
            axes = "".join(axis["key"] for axis in json.loads(dataset.attrs["axistags"])["axes"])
        else:
            axes = last_axes(dataset.ndim)
        z, y, x = (float(n) for n in dataset.attrs.get("element_size_um", (0, 0, 0)))
        chunks = dataset.chunks or (*[1] * (dataset.ndim - 2), -1, -1)
        array = da.from_array(dataset, chunks=chunks, name=False, lock=True)
        return Source(array, axes, (z, y, x) if x else None, assembled=bool(dataset.is_virtual), close=file.close)
    except BaseException:
        file.close()
        raise


def read_mrc(path: Path, part: str | None) -> Source:
    """MRC 2014; a stack of images or a volume: Z, Y, X."""
    import mrcfile

    picked(part, [""], "scene")
    with mrcfile.mmap(path, mode="r") as mrc:
        array = np.asarray(mrc.data)  # stays mapped
        z, y, x = (ANGSTROM * float(mrc.voxel_size[axis]) for axis in "zyx")
        # a stack of images has none along Z
        axes = last_axes(array.ndim)
        return Source(in_memory(array, axes), axes, (z or y, y, x) if x else None)


def read_nifti(path: Path, part: str | None) -> Source:
    """NIfTI, whose first axis is X; scaled if its header says so, which makes floats of it."""
    import nibabel

    picked(part, [""], "scene")
    image: Any = nibabel.load(path)
    proxy = image.dataobj
    plain = proxy.slope == 1 and proxy.inter == 0
    dtype = proxy.dtype if plain else np.dtype(np.float32)

    def read(block_info: Any) -> npt.NDArray[Any]:
        with reading(path):
            where = tuple(slice(*ends) for ends in block_info[None]["array-location"])
            return np.asarray(proxy[where] if plain else proxy[where].astype(np.float32))

    chunks = da.core.normalize_chunks((-1, -1, *[1] * (image.ndim - 2)), shape=image.shape, dtype=dtype)
    array = da.map_blocks(read, chunks=chunks, dtype=dtype, meta=np.empty((0,) * image.ndim, dtype))
    unit = NIFTI_UNITS.get(image.header.get_xyzt_units()[0])
    x, y, z = (*map(float, image.header.get_zooms()[:3]), 1.0, 1.0)[:3]
    return Source(array, "xyztc"[: image.ndim], None if unit is None else (unit * z, unit * y, unit * x))
