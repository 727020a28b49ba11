"""The volumes of a plan: their layouts, from their stores or their sources' headers, and what they take to store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace

import dask.array as da
import numpy as np
import pandas as pd

from ssdenoise.config.models import MEASURED, Dataset
from ssdenoise.config.project import Project
from ssdenoise.errors import SsdenoiseError
from ssdenoise.ingest import tczyx
from ssdenoise.ingest.sources import read_in_place, read_source
from ssdenoise.needs import size_of
from ssdenoise.remote import is_remote
from ssdenoise.store import Layout, Volume

#: Share that a pyramid adds to the voxels of its full resolution, if Y and X are halved.
PYRAMID = 1 / 3

#: Where the volume under a column of the sheet is ingested to.
STORES = {"clean": "clean", "reference": "reference", "noisy": f"{MEASURED}/noisy-0", "pair": f"{MEASURED}/noisy-1"}


def volumes(project: Project, layouts: Mapping[str, Layout | None]) -> pd.DataFrame:
    """Each dataset: its shape, its size, and that of the stores that the run makes of it; all before compression."""
    rows: list[dict[str, str]] = []
    total = dict.fromkeys(("noisy", "stores of it", "denoised"), 0.0)
    for name, layout in layouts.items():
        row = project.datasets[name]
        if layout is None:
            rows.append({"dataset": name, "shape (TCZYX)": "not known before it is downloaded"})
            continue
        dtype = layout.dtype if row.denoised_dtype == "same" else row.denoised_dtype
        done = [job for job in project.jobs() if job[0] == name]
        probabilistic = sum(project.config.methods[job[2]].probabilistic for job in done)
        out = np.dtype(dtype).itemsize
        sizes = {
            "noisy": size_of(layout),
            "stores of it": _stored(project, row, layout) * (1 + PYRAMID),
            "denoised": math.prod(layout.shape) * (out * len(done) + 4 * probabilistic) * (1 + PYRAMID),
        }
        total = {key: total[key] + size for key, size in sizes.items()}
        rows.append(
            {
                "dataset": name,
                "shape (TCZYX)": "x".join(map(str, layout.shape)),
                "dtype": layout.dtype,
                **{key: _size(size) for key, size in sizes.items()},
                "slabs": str(row.slabs),
                "shards": str(math.prod(-(-n // s) for n, s in zip(layout.shape, layout.shard, strict=True))),
            }
        )
    known = "of those that are known" if None in layouts.values() else ""
    rows.append({"dataset": "together", "shape (TCZYX)": known} | {key: _size(size) for key, size in total.items()})
    return pd.DataFrame(rows)


def _stored(project: Project, row: Dataset, noisy: Layout) -> int:
    """Bytes of all that is ingested and synthesized of a dataset, at full resolution."""
    if row.clean:
        methods = [project.config.methods[name] for name in project.methods_of(row.dataset)]
        paired = row.pairing == "volume" and any(method.target == "pair" for method in methods)
        realizations = (2 + paired) * len(project.noise_of(row.dataset))  # one of them for the scores
        return size_of(ingested(project, row.dataset, "clean") or noisy) + realizations * size_of(noisy)
    pair = row.pair if row.pairing == "volume" else None  # for training or for the scores
    others = [column for column, there in (("reference", row.reference), ("pair", pair)) if there]
    return size_of(noisy) + sum(size_of(ingested(project, row.dataset, column) or noisy) for column in others)


def noisy_layout(project: Project, name: str) -> Layout | None:
    """Layout of a dataset's noisy volumes; None of what is to be downloaded."""
    clean = project.datasets[name].clean is not None
    layout = ingested(project, name, "clean" if clean else "noisy")
    return replace(layout, dtype="float32") if layout and clean else layout  # in which noise is synthesized


def ingested(project: Project, name: str, column: str) -> Layout | None:
    """Layout of an ingested volume, from its store or from its source's header; None of what is to be downloaded."""
    row = project.datasets[name]
    store = project.root / "results" / project.config.run / name / f"{STORES[column]}.ome.zarr"
    if (store / "zarr.json").is_file():
        return Volume(store).layout
    source = project.located(getattr(row, column))
    if source.partition("#")[0] in project.downloaded and not project.files(source.partition("#")[0]):
        return None
    if is_remote(source) and not read_in_place(source):
        return None  # to see its shape all of it would be downloaded
    storage = project.config.storage
    try:
        with closing(read_source(source, project.root, row.axes)) as found:
            # only the shape is asked for, and of large volumes a graph of all chunks takes a while
            one_chunk = da.empty(found.array.shape, dtype=found.array.dtype, chunks=-1)
            voxels = tczyx(replace(found, array=one_chunk), source)
            return Layout.fit(voxels.shape, voxels.dtype.name, storage.chunk, storage.shard)
    except SsdenoiseError as error:
        raise type(error)(f"{project.config.datasets}: dataset {name!r}: {error}") from None


def _size(number: float) -> str:
    """Bytes for people."""
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= length:
            return f"{number / length:.3g} {unit}"
    return f"{number / 1e3:.3g} kB"
