"""Synthesize: draw one realization of a noise level on a clean volume."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ssdenoise import noise
from ssdenoise.config.specs import SynthesizeSpec, dump
from ssdenoise.provenance import Clock, code_hash, digest, record
from ssdenoise.store import Layout, ShardWriter, Volume, claim, commit, lock_of


def synthesize(spec: SynthesizeSpec, clean: Path, output: Path) -> dict[str, Any]:
    """Write a noisy volume, float32, neither clipped nor rounded.

    Parameters
    ----------
    spec : SynthesizeSpec
        Noise level, and the key that its random streams derive from.
    clean : Path
        Store of the clean volume.
    output : Path
        Store of the realization.

    Returns
    -------
    dict
        The commit record; its `noise` says with what parameters the noise was drawn, if with the same everywhere.
    """
    clock, code = Clock(), code_hash("synthesize")
    volume = Volume(clean)
    layout = Layout.fit(volume.shape, "float32", spec.storage.chunk, spec.storage.shard)
    key = digest(dump(spec), volume.digest, code)
    with claim(lock_of(output)):
        writer = ShardWriter(output, layout, key, root=spec.storage.root)
        for index, region in writer.regions():
            if not writer.is_done(index):
                writer.write(index, noise.synthesize(volume.read, volume.shape, region, spec.noise, spec.key))
        provenance = record(
            "synthesize",
            spec=spec.model_dump(mode="json"),
            inputs={"clean": volume.digest},
            code=code,
            clock=clock,
        )
        model = spec.noise.model()
        facts = {"provenance": provenance} | ({"noise": asdict(model)} if model else {})
        metadata = replace(volume.metadata, name=f"{spec.key[1]} {spec.key[2]}")  # (seed, dataset, noise, ...)
        return commit(output, layout, key, metadata, facts, root=spec.storage.root)
