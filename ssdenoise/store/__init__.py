"""Volumes on disk: OME-Zarr 0.5, axes TCZYX, sharded, written shard by shard, resumable and committed last.

A store under construction has its arrays but no root `zarr.json`; no reader opens it. `ShardWriter` writes its shards,
`commit` builds the pyramid, adds up the digests and writes the root `zarr.json` last: that file is the product.
`Volume` reads a finished store.
"""

from ssdenoise.store.claims import claim, lock_of, share
from ssdenoise.store.commit import WHITE, Metadata, commit
from ssdenoise.store.shards import (
    AXES,
    Layout,
    ShardWriter,
    combined,
    record_path,
    records_of,
    to_dtype,
    voxels_digest,
)
from ssdenoise.store.volume import Volume

__all__ = [
    "AXES",
    "WHITE",
    "Layout",
    "Metadata",
    "ShardWriter",
    "Volume",
    "claim",
    "combined",
    "commit",
    "lock_of",
    "record_path",
    "records_of",
    "share",
    "to_dtype",
    "voxels_digest",
]
