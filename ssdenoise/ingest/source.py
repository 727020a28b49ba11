"""A lazy array with named axes, and what its file says of it: what every reader returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy.typing as npt

from ssdenoise.errors import ConfigError, FormatError, SsdenoiseError
from ssdenoise.remote import Remote

if TYPE_CHECKING:
    from collections.abc import Iterator


#: Bytes of what is read at once where a file leaves the choice.
CHUNK_BYTES = 2**23

#: Names that an error lists.
MOST_NAMED = 20


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
        Z, Y, X.
    channels : tuple of str
        Names; empty if the file has none.
    colors : tuple of str
        Of each channel, as RRGGBB; empty if the file has none.
    assembled : bool
        Whether its voxels lie in other files, so that the size of its own says nothing.
    close : callable
        Closes the file, after which nothing can be read any more.
    """

    array: da.Array
    axes: str
    voxel_size_um: tuple[float, float, float] | None = None
    channels: tuple[str, ...] = ()
    colors: tuple[str, ...] = ()
    assembled: bool = False
    close: Callable[[], None] = field(default=lambda: None)


@contextmanager
def reading(path: Path | Remote) -> Iterator[None]:
    """Faults of a file as one clear sentence: readers raise whatever their parsing stumbled over."""
    try:
        yield
    except SsdenoiseError:
        raise
    except Exception as error:
        why = str(error).partition("\n")[0].rstrip(".")
        raise FormatError(f"{path} cannot be read as {path.suffix[1:].lower()} ({why}); is it whole?") from error


def in_memory(array: npt.NDArray[Any], axes: str) -> da.Array:
    """An array that is in memory or mapped, by some rows of single planes."""
    row = array.itemsize * math.prod(n for n, axis in zip(array.shape, axes, strict=False) if axis not in "tczy")
    rows = max(1, CHUNK_BYTES // max(1, row))
    chunks = (
        tuple(1 if axis in "tcz" else rows if axis == "y" else -1 for axis in axes)
        if len(axes) == array.ndim
        else "auto"
    )
    lazy: da.Array = da.from_array(array, chunks=chunks, name=False)
    return lazy


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
    wanted = f"there is no {what} {part!r}" if part is not None else f"one {what} has to be chosen, as `#{what}=0`"
    raise ConfigError(f"{wanted}; the file has {', '.join(map(repr, names[:MOST_NAMED])) or 'none'}")
