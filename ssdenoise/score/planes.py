"""Scores of one plane, from sums over blocks of it; and the similarity of a volume in three dimensions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdenoise.grid import Region, blocks
from ssdenoise.metrics import Moments, MultiScale, Rings, Window, micro_ssim, similarity_maps
from ssdenoise.noise import NoiseModel
from ssdenoise.store import Volume

#: Pixels a side of what is compared at once, of a plane and of a volume (ZYX); multiples of what the scales need.
BLOCK = 1024
VOLUME_BLOCK = (16, 256, 256)

#: Pixels a side of the middle of a plane, for scores that take it at once.
MIDDLE = 2048

#: Of normally distributed errors, 95 % are within so many standard deviations.
WITHIN_95 = 1.959964

#: Time point, channel and plane.
Place = tuple[int, int, int]

Images = Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Scene:
    """The volumes that are compared.

    Attributes
    ----------
    volumes : mapping
        `noisy` and `denoised`, and where there are such `truth`, `pair` (another realization that the denoised volume
        does not depend on), `uncertainty`, and `sibling` (denoised by the model of another seed).
    noise : list of NoiseModel
        Calibrated, by channel.
    data_range : float
    window : Window
        Of SSIM.
    affine : bool
        Whether planes are fitted to the truth first.
    repeats : bool
        Whether the next time point is another realization.
    """

    volumes: Mapping[str, Volume]
    noise: list[NoiseModel]
    data_range: float
    window: Window
    affine: bool = False
    repeats: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """TCZYX."""
        return self.volumes["noisy"].shape

    def read(self, at: Place, region: Region, *names: str) -> dict[str, npt.NDArray[np.float64]]:
        """A region of a plane (YX) of the volumes named, or of all."""
        found = {name: _pixels(self.volumes[name], at, region) for name in names or self.volumes}
        if self.repeats and not names:
            t, c, z = at
            found["pair"] = _pixels(self.volumes["noisy"], ((t + 1) % self.shape[0], c, z), region)
        return found


def _pixels(volume: Volume, at: Place, region: Region) -> npt.NDArray[np.float64]:
    place = tuple(slice(i, i + 1) for i in at)
    return np.asarray(volume.read((*place, *region))[0, 0, 0], np.float64)


def plane(scene: Scene, at: Place, *, similarity: bool) -> dict[str, Any]:
    """Scores of one plane as a row of the table; with its SSIM, if that is taken in two dimensions."""
    shape = scene.shape[3:]
    known = "truth" in scene.volumes
    gain, offset = _fit(scene, at) if scene.affine and known else (1.0, 0.0)
    scales = known and min(shape) > 2 * MultiScale.halo()
    halo = MultiScale.halo() if scales else scene.window.halo
    sums: dict[str, Any] = defaultdict(float)
    for reach, inside in _with_halo(shape, (BLOCK, BLOCK), halo):
        images = scene.read(at, reach)
        images["fitted"] = gain * images["denoised"] + offset
        for name, value in _block(scene, at, images, inside, similarity=similarity, scales=scales).items():
            sums[name] = value if name not in sums else sums[name] + value
    row = dict(zip("tcz", at, strict=True)) | {"fit_gain": gain, "fit_offset": offset}
    return row | _row(sums, shape[0] * shape[1]) | _of_middle(scene, at)


def _with_halo(shape: tuple[int, ...], block: tuple[int, ...], halo: int) -> Iterator[tuple[Region, Region]]:
    """What is read for each block, and where the block lies in it."""
    for _, core in blocks(shape, block):
        reach = tuple(slice(max(0, s.start - halo), min(n, s.stop + halo)) for s, n in zip(core, shape, strict=True))
        yield reach, tuple(slice(s.start - r.start, s.stop - r.start) for s, r in zip(core, reach, strict=True))


def _block(
    scene: Scene, at: Place, images: Images, inside: Region, *, similarity: bool, scales: bool
) -> dict[str, Any]:
    """What the sums of a plane get from one block of it."""
    own = {name: image[inside] for name, image in images.items()}
    residual = own["noisy"] - own["denoised"]
    sums: dict[str, Any] = {
        "removed": np.sum(residual**2),
        "expected": np.sum(scene.noise[at[1]].variance(own["denoised"])),
    }
    for axis, (a, b) in {"y": (residual[:-1], residual[1:]), "x": (residual[:, :-1], residual[:, 1:])}.items():
        sums[f"neighbours_{axis}"] = np.array([np.sum(a * b), np.sum(a**2), np.sum(b**2)])
    if "pair" in own:
        sums["pair_error"] = np.sum((own["denoised"] - own["pair"]) ** 2)
        sums["pair_difference"] = np.sum((own["noisy"] - own["pair"]) ** 2)
    if "sibling" in own:
        sums["sibling_difference"] = np.sum((own["denoised"] - own["sibling"]) ** 2)
    if "uncertainty" in own:
        sums["stated_variance"] = np.sum(own["uncertainty"] ** 2)
    if "truth" not in own:
        return sums
    sums["moments"] = Moments.of(own["truth"], own["fitted"])
    both, width = (images["truth"], images["fitted"]), scene.data_range
    if similarity:
        found, _ = similarity_maps(*both, inside, data_range=width, window=scene.window)
        sums["similarity"] = np.array([found.sum(), found.size])
    if scales:
        sums["scales"] = MultiScale.of(*both, inside, data_range=width)
    if "uncertainty" in own:
        error = own["truth"] - own["denoised"]
        # pooled: where a method is certain, at zero photons, a single error would rule a mean of ratios
        sums["z"] = np.array([np.sum(error**2), np.sum(np.abs(error) <= WITHIN_95 * own["uncertainty"])])
    return sums


def _row(sums: Mapping[str, Any], n: int) -> dict[str, float]:
    """Columns of the table from the sums over the `n` pixels of a plane; NaN where nothing is known."""
    unknown = float("nan")
    row = {"pixels": n, "residual_square": sums["removed"], "noise_variance": sums["expected"]}
    for axis in "yx":
        names = [f"residual_{what}_{axis}" for what in ("product", "first_square", "second_square")]
        row |= dict(zip(names, sums[f"neighbours_{axis}"].tolist(), strict=True))
    for name in ("pair_error", "pair_difference", "sibling_difference", "stated_variance"):
        row[name] = sums[name] / n if name in sums else unknown
    moments: Moments | None = sums.get("moments")
    row["mean_squared_error"] = moments.error / n if moments else unknown
    row["fitted_squared_error"] = moments.fitted_error / n if moments else unknown
    row["reference_square"] = moments.reference_square / n if moments else unknown
    similarity, windows = sums.get("similarity", (0, 0))
    row["ssim"] = similarity / windows if windows else unknown
    row["ms_ssim"] = sums["scales"].value() if "scales" in sums else unknown
    row["unfitted_error"], row["within_95"] = sums["z"] / n if "z" in sums else (unknown, unknown)
    return row


def _fit(scene: Scene, at: Place) -> tuple[float, float]:
    """Gain and offset that bring a denoised plane closest to the true one."""
    total: Moments | None = None
    for _, core in blocks(scene.shape[3:], (BLOCK, BLOCK)):
        images = scene.read(at, core, "truth", "denoised")
        part = Moments.of(images["truth"], images["denoised"])
        total = part if total is None else total + part
    assert total is not None, "a plane has at least one block"
    return total.fit()


def _of_middle(scene: Scene, at: Place) -> dict[str, Any]:
    """Scores that take a plane at once, of its middle: MicroSSIM, and sums of Fourier rings with truth and pair."""
    middle = tuple(slice((n - min(n, MIDDLE)) // 2, (n + min(n, MIDDLE)) // 2) for n in scene.shape[3:])
    images = scene.read(at, middle) if "truth" in scene.volumes or "pair" in scene.volumes or scene.repeats else {}
    known = "truth" in images
    row: dict[str, Any] = {"micro_ssim": micro_ssim(images["truth"], images["denoised"]) if known else float("nan")}
    for other in ("truth", "pair"):
        rings = Rings.of(images["denoised"], images[other]) if other in images else None
        for part in ("cross", "first", "second"):
            row[f"rings_{other}_{part}"] = getattr(rings, part).tolist() if rings else []
    return row


def volume_similarity(scene: Scene, t: int, c: int, fits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """SSIM in three dimensions, over the windows centred in each plane; NaN where none is.

    Parameters
    ----------
    scene : Scene
    t, c : int
        Time point and channel.
    fits : array of shape (Z, 2)
        Gain and offset of each denoised plane.
    """
    sums = np.zeros((scene.shape[2], 2))
    for reach, inside in _with_halo(scene.shape[2:], VOLUME_BLOCK, scene.window.halo):
        x, y = (
            np.asarray(scene.volumes[name].read((slice(t, t + 1), slice(c, c + 1), *reach))[0, 0], np.float64)
            for name in ("truth", "denoised")
        )
        gain, offset = fits[reach[0]].T[..., None, None]
        found, _ = similarity_maps(x, gain * y + offset, inside, data_range=scene.data_range, window=scene.window)
        first = reach[0].start + max(inside[0].start, scene.window.halo)
        for z, one in enumerate(found, first):
            sums[z] += (one.sum(), one.size)
    with np.errstate(invalid="ignore"):
        return np.asarray(sums[:, 0] / sums[:, 1])
