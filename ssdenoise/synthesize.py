"""Synthesize: draw a realization of a noise level on a clean volume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ssdenoise import noise
from ssdenoise.config.specs import SynthesizeSpec, dump
from ssdenoise.provenance import Clock, code_hash, digest, record
from ssdenoise.store import Layout, ShardWriter, Volume, claim, commit, lock_of


def synthesize(spec: SynthesizeSpec, clean: Path, output: Path) -> dict[str, Any]:
    """Write a noisy volume, float32; neither clipped nor rounded, unless the noise level has a detector that does.

    Parameters
    ----------
    spec : SynthesizeSpec
        Noise level, and the key that its random streams derive from: any words and numbers; another key, another
        realization.
    clean : Path
        Store of the clean volume.
    output : Path
        Store of the realization.

    Returns
    -------
    dict
        The commit record. Its `noise` says what was drawn, by plain parameters where the level was a target; its
        `detector` what was done then, `clip` and `step`, or nothing.

    Raises
    ------
    ConfigError
        If no parameters reach the target on this volume.
    """
    clock, code = Clock(), code_hash("synthesize")
    volume = Volume(clean)
    layout = Layout.fit(volume.shape, "float32", spec.storage.chunk, spec.storage.shard)
    key = digest(dump(spec), volume.digest, code)
    channels = volume.intensities()
    extrema = min(one.minimum for one in channels), max(one.maximum for one in channels)
    drawn = spec.noise.resolved(noise.Clean(volume.read, volume.shape, *extrema))
    with claim(lock_of(output)):
        writer = ShardWriter(output, layout, key, root=spec.storage.root)
        for index, region in writer.regions():
            if not writer.is_done(index):
                writer.write(index, noise.synthesize(volume.read, volume.shape, region, drawn, spec.key))
        provenance = record(
            "synthesize",
            spec=spec.model_dump(mode="json"),
            inputs={"clean": volume.digest},
            code=code,
            clock=clock,
        )
        facts = {
            "provenance": provenance,
            "noise": drawn.model_dump(mode="json", exclude_none=True),
            "detector": drawn.detector,
        }
        name = " ".join(map(str, spec.key[1:3]))  # (seed, dataset, noise, ...)
        metadata = replace(volume.metadata, name=name or volume.metadata.name)
        return commit(output, layout, key, metadata, facts, root=spec.storage.root)
