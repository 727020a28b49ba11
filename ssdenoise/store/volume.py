"""Reading a finished store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import zarr

from ssdenoise.errors import DamagedStore, FormatError, MissingInputError
from ssdenoise.grid import Region
from ssdenoise.intensity import Intensities
from ssdenoise.store.commit import Metadata
from ssdenoise.store.place import place_from
from ssdenoise.store.shards import AXES, Layout

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr


class Volume:
    """A finished store, read only.

    Attributes
    ----------
    path : Path
    array : zarr.Array
        Full resolution, TCZYX.
    record : dict
        The commit record: digest, intensities, provenance.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        self.path = path.parent if path.name == "zarr.json" else path
        try:
            attributes = json.loads((self.path / "zarr.json").read_text())["attributes"]
            self.record: dict[str, Any] = attributes["ssdenoise"]
            ome, said = attributes["ome"]["multiscales"][0], self.record["metadata"]
            self._levels = len(ome["datasets"])
            size, colors = said["voxel_size_um"], said.get("colors", ())  # which stores of earlier versions do not have
            self.metadata = Metadata(ome["name"], tuple(size) if size else None, tuple(said["channels"]), tuple(colors))
        except (FileNotFoundError, NotADirectoryError):
            raise MissingInputError(
                f"{self.path} is no finished store: it has no zarr.json; finish the job that writes it"
            ) from None
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"{self.path}/zarr.json was not written by ssdenoise ({type(error).__name__}: {error}); ingest it first"
            ) from None
        self._place = place_from(self.path, self.record)
        self.array = self.level(0)

    @property
    def levels(self) -> int:
        """Number of levels of the pyramid, full resolution among them."""
        return self._levels

    def level(self, number: int) -> zarr.Array[Any]:
        """One level of the pyramid, TCZYX; 0 is full resolution."""
        try:
            return self._place.open(number)
        except (AttributeError, FileNotFoundError, KeyError, TypeError, ValueError) as error:
            told = str(error).partition("\n")[0]
            raise DamagedStore(
                f"{self.path}/{number} is no array any more ({told}); run the job that writes {self.path} again"
            ) from None

    def withdraw(self) -> None:
        """Remove the commit: to readers the store is unfinished from then on."""
        self._place.uncommit()

    @property
    def root(self) -> str | None:
        """Address in an object store that its voxels lie under, and where those of what is made of it go."""
        return self.record.get("stored_under")

    @property
    def shape(self) -> tuple[int, ...]:
        """TCZYX."""
        return tuple(self.array.shape)

    @property
    def digest(self) -> str:
        """Digest of all voxels of all levels."""
        return str(self.record["digest"])

    @property
    def layout(self) -> Layout:
        """Shape, dtype, chunk and shard."""
        assert self.array.shards is not None, "ssdenoise writes sharded arrays only"
        return Layout(self.array.shape, str(self.array.dtype), self.array.chunks, self.array.shards)

    def intensities(self) -> list[Intensities]:
        """Extrema and histogram of each channel at full resolution."""
        return [Intensities.from_json(channel) for channel in self.record["intensities"]]

    def read(self, region: Region) -> npt.NDArray[Any]:
        """Voxels of a region."""
        return np.asarray(self.array[region])

    def dask(self) -> da.Array:
        """Lazy array with one block per shard."""
        import dask.array as da  # a second to import, which most jobs would spend for nothing

        array: da.Array = da.from_array(self.array, chunks=self.layout.shard, name=f"{self.path.name}-{self.digest}")
        return array

    def to_xarray(self) -> xr.DataArray:
        """Lazy array with named axes and, where the voxel size is known, coordinates in micrometres."""
        import xarray as xr  # a second to import, which most jobs would spend for nothing

        size = self.metadata.voxel_size_um
        coords: dict[str, Any] = {"c": list(self.metadata.channels)}
        if size:
            coords |= {axis: np.arange(n) * s for axis, n, s in zip("zyx", self.shape[2:], size, strict=True)}
        return xr.DataArray(self.dask(), dims=AXES, coords=coords, name=self.metadata.name)
