"""Pictures, and files that hold plain arrays: NumPy, HDF5, MRC, NIfTI."""

from __future__ import annotations

import gzip
import json
import math
import tempfile
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from ssdenoise.errors import FormatError
from ssdenoise.grid import Region
from ssdenoise.ingest.source import Source, check_claim, in_one_piece, last_axes, lazy, nothing, picked, reading, rows
from ssdenoise.remote import Remote

#: What Pillow calls the content of files by the end of their names, and the dtypes of its kinds of pictures.
PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP"}
MODES = {"L": "uint8", "I;16": "uint16", "RGB": "uint8", "P": "uint8"}

#: Micrometres of the units that NIfTI knows, and of the Angstrom of MRC.
NIFTI_UNITS = {"micron": 1.0, "mm": 1e3, "meter": 1e6}
ANGSTROM = 1e-4


def read_picture(path: Path, part: str | None) -> Source:
    """PNG, JPEG or BMP, grey or RGB; the bytes are read first, as Pillow leaves a file open that it cannot read."""
    from PIL import Image, UnidentifiedImageError

    picked(part, [""], "scene")

    def opened() -> Image.Image:
        return Image.open(BytesIO(path.read_bytes()))

    try:
        image = opened()
    except UnidentifiedImageError:  # whose message names an object in memory
        raise ValueError("it is no picture") from None
    if (kind := image.format) != PICTURES[path.suffix.lower()]:
        raise FormatError(f"{path} holds {kind}; let its name end as such a file's does, or convert it")
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise FormatError(f"{path} is a film of {frames} pictures; needed one picture a file: save them one by one")
    if image.mode not in MODES or image.has_transparency_data:
        raise FormatError(
            f"{path} is of the kind {image.mode}{' with transparency' * image.has_transparency_data}; needed grey (8 "
            "or 16 bits) or RGB: convert it"
        )
    dtype = np.dtype(MODES[image.mode])
    colours = image.mode in ("RGB", "P")
    shape = (image.height, image.width, *[3] * colours)

    def read(_: Region) -> npt.NDArray[Any]:
        with reading(path):
            found = opened()
            return np.asarray(found.convert("RGB") if colours else found, dtype)

    return Source(lazy(read, shape, shape, dtype), "yxc" if colours else "yx")


def read_npy(path: Path, part: str | None) -> Source:
    """NumPy's own."""
    picked(part, [""], "scene")
    found = np.lib.format.open_memmap(path, mode="r")  # for its header
    if not found.ndim:
        raise ValueError("it holds a single number")
    turned = not found.flags.c_contiguous  # columns first
    array = in_one_piece(path, found.offset, found.shape[::-1] if turned else found.shape, found.dtype)
    return Source(array.T if turned else array, last_axes(found.ndim))


def read_hdf5(path: Path | Remote, part: str | None) -> Source:
    """A dataset of an HDF5 file, by its name; axes from its dimension labels or ilastik's tags, where it has them."""
    import h5py

    file = h5py.File(path.open() if isinstance(path, Remote) else path, "r")
    try:
        names: list[str] = []
        file.visititems(
            lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) and node.ndim > 1 else None
        )
        if not names:
            raise ValueError("it holds no dataset of two axes or more")
        dataset = file[names[picked(part and part.strip("/"), names, "dataset")]]
        labels = [dim.label for dim in dataset.dims]
        if all(len(label) == 1 for label in labels):
            axes = "".join(labels).lower()
        elif "axistags" in dataset.attrs:
            axes = "".join(axis["key"] for axis in json.loads(dataset.attrs["axistags"])["axes"])
        else:
            axes = last_axes(dataset.ndim)
        size = np.ravel(dataset.attrs.get("element_size_um", (0, 0, 0)))
        if len(size) != 3 or size.dtype.kind not in "iuf":
            raise ValueError(f"its element_size_um is {', '.join(map(str, size))}; needed are Z, Y and X")
        z, y, x = map(float, size)
        if not (dataset.id.get_storage_size() or dataset.is_virtual or dataset.external or not dataset.size):
            raise ValueError(f"no voxel of {dataset.name} was ever written")
        first = axes.index("y") if "y" in axes else dataset.ndim - 2
        chunks = dataset.chunks or rows(dataset.shape, dataset.dtype.itemsize, first)
        array = da.from_array(dataset, chunks=chunks, name=False, lock=True)
        return Source(array, axes, (z or None, y, x) if x else None, sparse=True, close=file.close)
    except BaseException:
        file.close()
        raise


def read_mrc(path: Path, part: str | None) -> Source:
    """MRC 2014; a stack of images or a volume: Z, Y, X."""
    from mrcfile.mrcfile import MrcFile
    from mrcfile.utils import data_dtype_from_header, data_shape_from_header

    picked(part, [""], "scene")
    with MrcFile(path, header_only=True) as mrc:
        header = mrc.header
        shape, dtype = data_shape_from_header(header), data_dtype_from_header(header)
        z, y, x = (ANGSTROM * float(mrc.voxel_size[axis]) for axis in "zyx")
        array = in_one_piece(path, header.nbytes + int(header.nsymbt), shape, dtype)
        return Source(array, last_axes(len(shape)), (z or None, y, x) if x else None)


def read_nifti(path: Path, part: str | None) -> Source:
    """NIfTI, whose first axis is X; scaled if its header says so, which makes floats of it."""
    import nibabel
    from nibabel.volumeutils import apply_read_scaling

    picked(part, [""], "scene")
    image: Any = nibabel.load(path)
    proxy = image.dataobj
    plain = proxy.slope == 1 and proxy.inter == 0
    voxels, close = path, nothing
    if path.suffix.lower() == ".gz":
        bytes_of = math.prod(image.shape) * proxy.dtype.itemsize
        check_claim(path, image.shape, bytes_of)
        voxels, close = _unpacked(path, proxy.offset + bytes_of)
    array = in_one_piece(voxels, proxy.offset, image.shape[::-1], proxy.dtype).T
    if not plain:
        scale = partial(apply_read_scaling, slope=proxy.slope, inter=proxy.inter)
        array = array.map_blocks(
            lambda block: scale(block).astype(np.float32),
            dtype=np.float32,
            meta=np.empty((0,) * image.ndim, np.float32),
        )
    unit = NIFTI_UNITS.get(image.header.get_xyzt_units()[0])
    x, y, z = (*map(float, image.header.get_zooms()[:3]), 0.0, 0.0)[:3]
    size = None if unit is None else (unit * z or None, unit * y, unit * x)
    return Source(array, "xyztc"[: image.ndim], size, close=close)


def _unpacked(path: Path, needed: int) -> tuple[Path, Callable[[], None]]:
    """A copy of the first bytes of what gzip packed, as that is read from its start only, and what removes the copy."""
    folder = tempfile.TemporaryDirectory(prefix="ssdenoise-")
    try:
        copy, left = Path(folder.name) / "unpacked", needed
        with gzip.open(path) as packed, copy.open("wb") as sink:
            while left and (data := packed.read(min(left, 2**24))):
                left -= sink.write(data)
            packed.read(1)  # at the end, it compares the checksum
        if left:
            raise ValueError(f"its header speaks of {needed} bytes, it has {needed - left}")
    except BaseException:
        folder.cleanup()
        raise
    return copy, folder.cleanup
