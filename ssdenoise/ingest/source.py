"""A lazy array with named axes, and what its file says of it: what every reader returns."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from ssdenoise.errors import ConfigError, FormatError, SsdenoiseError
from ssdenoise.grid import Region
from ssdenoise.remote import Remote

if TYPE_CHECKING:
    from collections.abc import Iterator


#: Bytes of what is read at once where a file leaves the choice.
CHUNK_BYTES = 2**23

#: Bytes that a file may claim whatever its size, and how many times its size it may claim beyond: deflate, which
#: most files are compressed by, makes a thousandth of nothing but zeros.
HARMLESS_BYTES, INFLATION = 2**30, 2000

#: Z, Y, X in micrometres; Z may be unknown.
VoxelSize = tuple[float | None, float, float]

#: Names that an error lists.
MOST_NAMED = 20


def nothing() -> None:
    """Close a file that is opened for each read."""


@dataclass
class Source:
    """A lazy array with named axes, and what its file says of them.

    Attributes
    ----------
    array : dask.array.Array
        Its chunks are what the file gives at once; each is read when it is asked for.
    axes : str
        Lower case.
    voxel_size_um : tuple of float, optional
        Z, Y, X; Z is None where the file does not say it.
    channels : tuple of str
        Names; empty if the file has none.
    colors : tuple of str
        Of each channel, as RRGGBB; empty if the file has none.
    sparse : bool
        Whether its voxels need not be in its file, so that only what is read at once has to fit the file's size.
    close : callable
        Closes the file, after which nothing can be read any more.
    """

    array: da.Array
    axes: str
    voxel_size_um: VoxelSize | None = None
    channels: tuple[str, ...] = ()
    colors: tuple[str, ...] = ()
    sparse: bool = False
    close: Callable[[], None] = nothing


@contextmanager
def reading(path: Path | Remote) -> Iterator[None]:
    """Faults of a file as one clear sentence: readers raise whatever their parsing stumbled over."""
    try:
        yield
    except SsdenoiseError:
        raise
    except Exception as error:
        why = str(error).partition("\n")[0].rstrip(".")
        kind = re.search(r"((nii\.)?[^.]*)$", path.name.lower())
        raise FormatError(f"{path} cannot be read as {kind and kind[0]} ({why}); is it whole?") from error


def lazy(
    read: Callable[[Region], npt.NDArray[Any]], shape: Sequence[int], blocks: Sequence[int], dtype: npt.DTypeLike
) -> da.Array:
    """An array of blocks of one size, but the last along each axis, each read by its place when it is asked for."""
    chunks = da.core.normalize_chunks(tuple(blocks), shape=tuple(shape), dtype=dtype)
    ends = [np.cumsum((0, *sizes)).tolist() for sizes in chunks]

    def block(block_id: tuple[int, ...]) -> npt.NDArray[Any]:
        return read(tuple(slice(axis[i], axis[i + 1]) for axis, i in zip(ends, block_id, strict=True)))

    # by a name, as dask would make one of a hash of all that `read` holds
    name, meta = f"read-{uuid.uuid4()}", np.empty((0,) * len(chunks), dtype)
    array: da.Array = da.map_blocks(block, name=name, chunks=chunks, dtype=meta.dtype, meta=meta)
    return array


def rows(shape: Sequence[int], itemsize: int, y: int) -> tuple[int, ...]:
    """Blocks of some rows of single planes, where Y is the axis `y` and all axes after it are whole."""
    row = itemsize * math.prod(shape[y + 1 :])
    return (*[1] * y, max(1, CHUNK_BYTES // max(1, row)), *shape[y + 1 :])


def in_one_piece(
    path: Path | Remote, offset: int, shape: Sequence[int], dtype: npt.DTypeLike, axes: str = ""
) -> da.Array:
    """An array that lies in a file as in memory, in C order, by rows of single planes, without `axes` the last two.

    It is read, not mapped: mapped pages count as memory of the process until something else needs it.
    """
    dtype = np.dtype(dtype)
    needed, size = offset + math.prod(shape) * dtype.itemsize, file_size(path)
    if needed > size:
        raise ValueError(f"its header speaks of {needed} bytes, it has {size}")

    def read(region: Region) -> npt.NDArray[Any]:
        inner = [one.stop - one.start for one in region]
        first = int(np.ravel_multi_index([one.start for one in region], shape)) if shape else 0
        with reading(path), path.open() if isinstance(path, Remote) else path.open("rb") as file:
            file.seek(offset + first * dtype.itemsize)
            return np.frombuffer(file.read(math.prod(inner) * dtype.itemsize), dtype).reshape(inner)

    y = axes.index("y") if "y" in axes else max(0, len(shape) - 2)
    return lazy(read, shape, rows(shape, dtype.itemsize, y), dtype)


def file_size(path: Path | Remote) -> int:
    """Bytes of a file."""
    return int(path.files[0]["size"]) if isinstance(path, Remote) else path.stat().st_size


def check_claim(path: Path | Remote, shape: Sequence[int], claimed: int) -> None:
    """Refuse a file whose header claims far more bytes than it can hold, before memory is filled with them."""
    if claimed > max(HARMLESS_BYTES, INFLATION * (size := file_size(path))):
        raise FormatError(
            f"{path} claims an array of {tuple(shape)}, {claimed / 1e9:.3g} GB, in a file of {size / 1e6:.3g} MB, more "
            "than any compression makes of it; is it whole?"
        )


def in_memory(array: npt.NDArray[Any], axes: str) -> da.Array:
    """An array that is in memory, by some rows of single planes."""
    row = array.itemsize * math.prod(n for n, axis in zip(array.shape, axes, strict=True) if axis not in "tczy")
    blocks = [
        1 if axis in "tcz" else max(1, CHUNK_BYTES // max(1, row)) if axis == "y" else n
        for n, axis in zip(array.shape, axes, strict=True)
    ]
    return lazy(lambda region: array[region], array.shape, blocks, array.dtype)


def last_axes(ndim: int) -> str:
    """Axes of an array whose file does not name them: the last of TCZYX."""
    return "tczyx"[-ndim:]


def picked(part: str | None, names: Sequence[str], what: str) -> int:
    """Position of the image that a source names, of those that its file holds: by its name, or counted from 0.

    Raises
    ------
    ConfigError
        If there is no such image, or several and none is named.
    """
    if part is None and len(names) == 1:
        return 0
    if part is not None and part in names:
        return list(names).index(part)
    if part is not None and part.isdigit() and int(part) < len(names):
        return int(part)
    if list(names) == [""]:
        raise ConfigError(f"there is no {what} {part!r}; the file has a single image: leave `{what}=` out")
    wanted = f"there is no {what} {part!r}" if part is not None else f"one {what} has to be chosen, as `#{what}=0`"
    raise ConfigError(f"{wanted}; the file has {', '.join(map(repr, names[:MOST_NAMED]))}")
