"""Files of microscopes by bioio: Nikon's ND2, Leica's LIF and Zeiss's CZI."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from ssdenoise.errors import ConfigError, FormatError
from ssdenoise.ingest.source import Source, VoxelSize, picked, reading


def read_nd2(path: Path, part: str | None) -> Source:
    """Nikon; a position, by its name or number; a chunk is a plane of all channels, as they are interleaved.

    The file is opened for each `compute`, and threads read one after the other.
    """
    return _source(_opened("bioio_nd2", path, part), path)


def read_lif(path: Path, part: str | None) -> Source:
    """Leica; an image, by its path within the file or number, tiles of a scan put together."""
    from liffile import LifFile

    image = _opened("bioio_lif", path, part, chunk_dims=["Y", "X"])
    source = _source(image, path)
    if "M" not in image.reader.dims.order:  # bioio parses the description of the whole file for each plane
        file = LifFile(path)
        try:
            source.array, source.close = _planes(file.images[image.current_scene_index], path), file.close
        except BaseException:
            file.close()
            raise
    return source


def read_czi(path: Path, part: str | None) -> Source:
    """Zeiss; a scene, by its name or number, its tiles put together; a chunk is a plane, or as large as a tile.

    The file is opened anew for each chunk, so that threads share nothing.
    """
    # A is what the file calls the axis of colours
    return _source(_opened("bioio_czi", path, part, chunk_dims=["Y", "X", "A"]), path)


def _opened(package: str, path: Path, part: str | None, **options: Any) -> Any:
    """A `BioImage` at the scene that is named."""
    from bioio import BioImage

    try:
        reader = import_module(package).Reader
    except ModuleNotFoundError as error:
        if error.name == "bioio_czi":
            why = "under the GPL; `pip install -e '.[czi]'` if that is fine with you"
        else:
            why = "not installed; `pip install -e .` installs it"
        raise ConfigError(f"{path} needs the package {str(error.name).replace('_', '-')}, which is {why}") from None
    reader(str(path), **options)  # says in one line why it cannot, and `BioImage` in several and a warning
    image = BioImage(path, reader=reader, **options)
    image.set_scene(picked(part, image.scenes, "scene"))
    return image


def _source(image: Any, path: Path) -> Source:
    array, said = image.xarray_dask_data, image.reader.xarray_dask_data
    _check_scenes(path, image.scenes, said.attrs["unprocessed"])
    if "S" in array.dims and array.sizes["C"] == 1:
        array = array.isel(C=0)  # colours are channels
    names = tuple(map(str, said.coords["C"].values)) if "C" in said.coords else ()
    return Source(array.data, "".join(array.dims).lower(), _voxel_size(image), names, _colors(image))


def _planes(image: Any, path: Path) -> da.Array:
    """Planes of a LIF, which stays open, one read at a time."""
    shape = tuple(image.sizes.get(axis, 1) for axis in "TCZYX")
    lock = Lock()

    def read(block_id: tuple[int, ...]) -> npt.NDArray[Any]:
        with lock, reading(path):
            frame = image.frames(**{a: i for a, i in zip("TCZ", block_id, strict=False) if a in image.sizes})
            order = [frame.dims.index(axis) for axis in "YX" if axis in frame.dims]
            return np.asarray(frame.asarray().transpose(order).reshape(1, 1, 1, *shape[3:]))

    chunks = (*((1,) * n for n in shape[:3]), *((n,) for n in shape[3:]))
    lazy: da.Array = da.map_blocks(read, chunks=chunks, dtype=image.dtype, meta=np.empty((0,) * 5, image.dtype))
    return lazy


def _check_scenes(path: Path, names: tuple[str, ...], metadata: Any) -> None:
    """Refuse a CZI that holds more scenes than its metadata name, as the reader would show the first only."""
    number = metadata.findtext("Metadata/Information/Image/SizeS") if hasattr(metadata, "findtext") else None
    if number is not None and int(number) > len(names):
        raise FormatError(
            f"{path} holds {number} scenes, its metadata name {len(names)}; name them, or write one file a scene"
        )


def _voxel_size(image: Any) -> VoxelSize | None:
    """Z, Y, X; None where the file does not say."""
    z, y, x = image.physical_pixel_sizes
    metadata = image.reader.xarray_dask_data.attrs["unprocessed"]
    if isinstance(metadata, dict):  # ND2, which has 1 where nothing was calibrated
        known = metadata["metadata"].channels[0].volume.axesCalibrated
        x, y, z = (size if is_known else None for size, is_known in zip((x, y, z), known, strict=True))
    return (float(z) if z else None, float(y), float(x)) if x and y else None


def _colors(image: Any) -> tuple[str, ...]:
    """Of each channel, where the reader has metadata as OME's."""
    images = getattr(image.metadata, "images", ())
    channels = images[image.current_scene_index].pixels.channels if images else ()
    rgb = [channel.color.as_rgb_tuple(alpha=False) for channel in channels if channel.color is not None]
    return tuple("".join(f"{part:02X}" for part in color) for color in rgb) if len(rgb) == len(channels) else ()
