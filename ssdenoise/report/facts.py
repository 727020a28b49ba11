"""Facts of a scene: its noise, its volumes, and what they were made by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssdenoise.provenance import inline, listed, read_json
from ssdenoise.report.collect import Scene, finished
from ssdenoise.store import Volume

#: A row of a table: its head, and a cell for each column.
Row = tuple[str, list[str]]


def volume_facts(scene: Scene) -> list[Row]:
    """Shape, type and voxel size of the noisy volume."""
    noisy = scene.folder / "noisy-0.ome.zarr"
    if not finished(noisy):
        return []
    volume = Volume(noisy)
    size = volume.metadata.voxel_size_um
    return [
        ("situation", [scene.situation]),
        ("shape (T, C, Z, Y, X)", [" × ".join(map(str, volume.shape))]),
        ("type", [str(volume.array.dtype)]),
        ("voxel size (Z, Y, X)", [" × ".join(f"{s:.4g}" for s in size) + " µm" if size else "not known"]),
        ("channels", [", ".join(volume.metadata.channels)]),
    ]


def noise_facts(calibration: dict[str, Any]) -> tuple[list[str], list[Row]]:
    """Names of the channels, and what `calibrate` found of each."""
    channels = calibration["channels"]
    models = [channel["models"]["poisson_gaussian"] for channel in channels]
    rows = [
        ("gain, intensity units a photon", [short(model["gain"]) for model in models]),
        ("offset", [_offset(model, channel) for model, channel in zip(models, channels, strict=True)]),
        ("read noise, intensity units", [short(model["read_noise"]) for model in models]),
        ("correlation of neighbours, Z / Y / X", [_correlation(channel["correlation"]) for channel in channels]),
        ("correlated neighbours", [str(len(channel["correlation"]["offsets"])) for channel in channels]),
        ("noise variance of planes, over the fit's", [_spread(channel["plane_strengths"]) for channel in channels]),
        ("smallest step of intensity", [short(channel["step"]) for channel in channels]),
        ("saturated voxels", [percent(channel["saturated_share"]) for channel in channels]),
        ("voxels at zero", [percent(channel["zero_share"]) for channel in channels]),
        ("hot pixels", [_hot(channel["hot_pixels"]) for channel in channels]),
    ]
    return [channel["name"] for channel in channels], rows


def advice(calibration: dict[str, Any]) -> tuple[str, str, list[str]]:
    """Recommended method entry and why, or nothing, and warnings."""
    found = calibration["recommendation"]
    entry, why = (inline(found["entry"]), found["why"]) if found else ("", "")
    return entry, why, list(calibration["warnings"])


def _offset(model: dict[str, float], channel: dict[str, Any]) -> str:
    if channel["offset_from"] == "third cumulant":
        return f"{short(model['offset'])} ± {short(channel['offset_error'])}, from the skewness of the noise"
    return f"{short(model['offset'])}, from the darkest place: an upper bound"


def _correlation(correlation: dict[str, Any]) -> str:
    return " / ".join(f"{correlation[axis][0]:+.3f}" if correlation[axis] else "–" for axis in "zyx")


def _spread(strengths: Sequence[float]) -> str:
    return f"{min(strengths):.2f} to {max(strengths):.2f}" if strengths else "–"


def _hot(found: dict[str, Any]) -> str:
    return f"{found['number']} ({percent(found['share'])})"


def short(value: float) -> str:
    """A number with four digits and, where it has more before the point, all of these."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def percent(share: float) -> str:
    """A share, to three digits."""
    return f"{100 * share:.3g} %"


def choices(scene: Scene) -> list[tuple[str, str]]:
    """Method entries that were chosen among others, and why."""
    found = [(entry, scene.job(entry, seed) / "choice.json") for entry, seed in scene.jobs]
    return [(entry, str(read_json(file)["says"])) for entry, file in found if file.is_file()]


def denoised_facts(scene: Scene) -> list[Row]:
    """Of each denoised volume: type, and shares of its voxels that were clipped and that were copied."""
    rows = []
    for entry, seed in scene.jobs:
        store = scene.job(entry, seed) / "denoised.ome.zarr"
        if finished(store):
            volume = Volume(store)
            shares = [volume.record[f"{what}_voxels"] / volume.record["voxels"] for what in ("clipped", "copied")]
            row = [str(seed), str(volume.array.dtype), *map(percent, shares)]
            rows.append((entry, row))
    return rows


def origins(scenes: Sequence[Scene]) -> list[dict[str, Any]]:
    """What each volume of a run was made by: its path in the run's folder, and its commit record without the voxels."""
    found: dict[Path, None] = {}
    for scene in scenes:
        stores = [scene.truth] if scene.truth else []
        stores += [scene.folder / f"noisy-{realization}.ome.zarr" for realization in "012"]
        stores += [scene.job(entry, seed) / "denoised.ome.zarr" for entry, seed in scene.jobs]
        found |= dict.fromkeys(store for store in stores if finished(store))
    run = scenes[0].run if scenes else Path()
    return [
        {"path": str(store.relative_to(run)), "digest": record["digest"], **record["provenance"]}
        for store in found
        if (record := read_json(store / "zarr.json")["attributes"]["ssdenoise"])
    ]


def made_by(scenes: Sequence[Scene], records: Sequence[dict[str, Any]]) -> list[Row]:
    """Versions, machines and seeds that the volumes of a run were made with; several where they differ."""

    def of(key: str) -> str:
        return listed({str(record.get(key)) for record in records if record.get(key)}) or "not known"

    libraries = {f"{name} {version}" for record in records for name, version in record["libraries"].items()}
    seeds = {str(seed) for scene in scenes for _, seed in scene.jobs}
    drawn = {str(record["spec"]["key"][0]) for record in records if "key" in record["spec"]}
    return [
        ("ssdenoise", [of("version")]),
        ("commit", [of("commit")]),
        ("Python", [of("python")]),
        ("libraries", [listed(libraries)]),
        ("machine", [of("machine")]),
        ("device", [of("device")]),
        ("seeds of the training", [listed(seeds)]),
        ("seed of the synthesized noise", [listed(drawn) or "no noise was synthesized"]),
    ]
