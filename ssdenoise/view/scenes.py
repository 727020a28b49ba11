"""What there is to see in a run's folder: datasets, noise levels, and the panes of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssdenoise.errors import ConfigError, FormatError, MissingInputError
from ssdenoise.provenance import read_json
from ssdenoise.store import Volume

#: Denoised volumes side by side; more would be narrow strips.
MOST_METHODS = 4

#: What Neuroglancer draws of the dtypes that a store may have; float16 is none of them.
DRAWN = ("uint8", "uint16", "int16", "float32")


@dataclass(frozen=True)
class Choice:
    """What to show of a run; None and an empty tuple stand for all there is (`seed`: the lowest)."""

    dataset: str | None = None
    noise: str | None = None
    methods: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True)
class Pane:
    """One store on screen. `title` is unique within its scene: titles with a space are no method entry's name."""

    title: str
    store: Path
    is_uncertainty: bool = False

    def volume(self) -> Volume:
        """The store, opened.

        Raises
        ------
        FormatError
            If Neuroglancer cannot show it from the folder.
        """
        record = read_json(self.store / "zarr.json").get("attributes", {}).get("ssdenoise", {})
        if "stored_at" in record:  # asked before it is opened, which would take a network
            raise FormatError(
                f"the voxels of {self.store} lie at {record['stored_at']}; `view` shows only what lies in the run's "
                "folder: open that address in a viewer that may read it, or run without `storage: {root: ...}`"
            )
        volume = Volume(self.store)
        if str(volume.array.dtype) not in DRAWN:
            raise FormatError(
                f"{self.store} is {volume.array.dtype}; Neuroglancer draws {', '.join(DRAWN)}: "
                "set `denoised_dtype: float32` for what is denoised, or save the source as float32"
            )
        return volume


@dataclass(frozen=True)
class Scene:
    """A dataset at one noise level: its panes, and the method entries for which there was no room."""

    dataset: str
    noise: str
    seed: int
    panes: tuple[Pane, ...]
    left_out: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As in the comparison."""
        return f"{self.dataset}/{self.noise}"

    @property
    def description(self) -> str:
        """Its panes, and what is left out."""
        panes = f"seed {self.seed}: {', '.join(pane.title for pane in self.panes)}"
        left_out = f"; at most {MOST_METHODS} methods, left out: {', '.join(self.left_out)}" if self.left_out else ""
        return panes + left_out


def scenes_of(run: Path, choice: Choice) -> list[Scene]:
    """The scenes of a run whose noisy volume is finished, as far as they are chosen.

    Raises
    ------
    ConfigError
        If the run lacks what was chosen.
    MissingInputError
        If no noisy volume is finished.
    """
    folders = [store.parents[1] for store in _visible(run, "*/*/noisy-0.ome.zarr/zarr.json")]
    if not folders:
        raise MissingInputError(f"{run} has no finished noisy volume, DATASET/NOISE/noisy-0.ome.zarr; run the workflow")
    _require("dataset", choice.dataset, [folder.parent.name for folder in folders])
    folders = [folder for folder in folders if choice.dataset in (None, folder.parent.name)]
    _require("noise level", choice.noise, [folder.name for folder in folders])
    folders = [folder for folder in folders if choice.noise in (None, folder.name)]
    jobs = [job for folder in folders for job in _jobs(folder)]
    for method in choice.methods:
        _require("method entry", method, [entry for entry, _ in jobs])
    _require("seed", choice.seed, [seed for _, seed in jobs])
    return [_scene(folder, choice) for folder in folders]


def _require(what: str, wanted: str | int | None, there: list[str] | list[int]) -> None:
    """Refuse a name that is not there."""
    if wanted is not None and wanted not in there:
        names = ", ".join(dict.fromkeys(map(str, there))) or "none"
        raise ConfigError(f"no finished volume of {what} {wanted!r}; there are: {names}")


def _scene(folder: Path, choice: Choice) -> Scene:
    """The panes of one folder: noisy, denoised, uncertainty, and the clean volume or the reference."""
    jobs = _jobs(folder)
    seed = choice.seed if choice.seed is not None else min((seed for _, seed in jobs), default=0)
    entries = [entry for entry, of in jobs if of == seed and entry in (choice.methods or [entry])]
    shown, left_out = entries[:MOST_METHODS], entries[MOST_METHODS:]
    stores = {entry: folder / entry / f"seed-{seed}" for entry in shown}
    panes = [
        Pane("noisy", folder / "noisy-0.ome.zarr"),
        *(Pane(entry, store / "denoised.ome.zarr") for entry, store in stores.items()),
        *(Pane(f"{entry} uncertainty", store / "uncertainty.ome.zarr", True) for entry, store in stores.items()),
        *(Pane(f"{role} volume", folder.parent / f"{role}.ome.zarr") for role in ("clean", "reference")),
    ]
    finished = tuple(pane for pane in panes if (pane.store / "zarr.json").exists())
    return Scene(folder.parent.name, folder.name, seed, finished, tuple(left_out))


def _jobs(folder: Path) -> list[tuple[str, int]]:
    """Method entry and seed of each finished denoised volume."""
    seeds = [commit.parents[1] for commit in _visible(folder, "*/seed-*/denoised.ome.zarr/zarr.json")]
    return [(seed.parent.name, int(seed.name.removeprefix("seed-"))) for seed in seeds]


def _visible(folder: Path, pattern: str) -> list[Path]:
    """Files in the folder by a pattern, in the order of their names; none that are hidden."""
    found = sorted(folder.glob(pattern))
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
