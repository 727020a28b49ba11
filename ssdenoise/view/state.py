"""A scene as Neuroglancer shows it: a pane for each store, all at one position and zoom, all images in one range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import neuroglancer as ng

from ssdenoise.intensity import TAIL
from ssdenoise.store import WHITE, Volume
from ssdenoise.view.scenes import Scene

#: Colours of channels that have none of their own.
CHANNEL_COLORS = ("00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000", "0000FF")

#: With more panes than these they stand in two rows.
MOST_IN_A_ROW = 4

GRAY = "#uicontrol invlerp range\nvoid main() { emitGrayscale(range()); }"
#: Not to be taken for an image, and as light as it is large, for the colour-blind too.
CUBEHELIX = "#uicontrol invlerp range\nvoid main() { emitRGB(colormapCubehelix(range())); }"
COLORED = """#uicontrol invlerp range
#uicontrol vec3 color color(default="#{color}")
void main() {{ emitRGB(color * range()); }}"""

#: Display range of each channel.
Ranges = list[tuple[float, float]]


@dataclass(frozen=True)
class Picture:
    """A scene, and what it takes to fit it into a window.

    Attributes
    ----------
    state : dict
        Neuroglancer's, as JSON, without the zoom.
    rows, columns : int
        Of panes.
    width, height : float
        Pixels that the volume takes at a `crossSectionScale` of 1.
    """

    state: dict[str, Any]
    rows: int
    columns: int
    width: float
    height: float


def picture(scene: Scene, run: str, addresses: Sequence[str]) -> Picture:
    """State of a scene.

    Parameters
    ----------
    scene : Scene
    run : str
        Name of its run, for the title.
    addresses : sequence of str
        Where the store of each pane is served, `http://host/path/`.

    Raises
    ------
    FormatError
        If Neuroglancer cannot show one of the stores.
    """
    volumes = [pane.volume() for pane in scene.panes]
    noisy, images = volumes[0], [v for p, v in zip(scene.panes, volumes, strict=True) if not p.is_uncertainty]
    ranges = _ranges(images[min(1, len(images) - 1)])  # noise would take most of the range of the noisy volume
    deviations = [v for p, v in zip(scene.panes, volumes, strict=True) if p.is_uncertainty]
    spreads = [(0.0, high) for _, high in _ranges(deviations[0])] if deviations else []

    size, (depth, height, width) = noisy.metadata.voxel_size_um, noisy.shape[2:]
    z, y, x = size or (1.0, 1.0, 1.0)
    unit = "um" if size else ""
    state = ng.ViewerState(
        title=f"{run}: {scene.name}, seed {scene.seed}",
        dimensions=ng.CoordinateSpace(names=["x", "y", "z", "t"], units=[unit] * 3 + [""], scales=[x, y, z, 1]),
        position=[(width - 1) / 2, (height - 1) / 2, depth // 2, 0],  # the centre of a voxel is its index
        show_axis_lines=False,
        show_default_annotations=False,
    )
    if len(ranges) > 1:
        state.cross_section_background_color = "#000000"  # channels are added up, and to what is behind them
    groups = []
    for pane, volume, address in zip(scene.panes, volumes, addresses, strict=True):
        of_pane, shader = (spreads, CUBEHELIX) if pane.is_uncertainty else (ranges, GRAY)
        layers = _layers(pane.title, volume, f"{address}|zarr3:", of_pane, shader)
        for name, layer in layers.items():
            state.layers[name] = layer
        groups.append(ng.LayerGroupViewer(layers=list(layers), layout="xy"))
    rows = 1 if len(groups) <= MOST_IN_A_ROW else 2
    columns = -(-len(groups) // rows)
    state.layout = ng.column_layout([ng.row_layout(groups[row * columns :][:columns]) for row in range(rows)])
    canonical = min(x, y, z)  # the zoom is told in the smallest side of a voxel
    return Picture(state.to_json(), rows, columns, width * x / canonical, height * y / canonical)


def _ranges(volume: Volume) -> Ranges:
    """Quantiles of the intensities, as the commit record has them."""
    found = [(of.quantile(TAIL), of.quantile(1 - TAIL)) for of in volume.intensities()]
    return [(low, high if high > low else low + 1) for low, high in found]


def _layers(title: str, volume: Volume, source: str, ranges: Ranges, shader: str) -> dict[str, ng.ImageLayer]:
    """A store as one layer, or as the sum of one in the colour of each channel.

    A single layer could add channels up only if each chunk held all of them.
    """
    if len(ranges) == 1:
        layer = ng.ImageLayer(source=source, shader=shader, shader_controls=_range(ranges[0]), opacity=1)
        return {title: layer}
    colors = volume.metadata.colors
    if not set(colors) - {WHITE}:  # white and white could not be told apart
        colors = tuple(CHANNEL_COLORS[number % len(CHANNEL_COLORS)] for number in range(len(ranges)))
    return {
        f"{title} {number}: {channel}": ng.ImageLayer(
            source=source,
            local_dimensions=ng.CoordinateSpace(names=["c'"], units=[""], scales=[1]),
            local_position=[number],
            shader=COLORED.format(color=color),
            shader_controls=_range(of),
            opacity=1,
            blend="additive",
        )
        for number, (channel, color, of) in enumerate(zip(volume.metadata.channels, colors, ranges, strict=True))
    }


def _range(of: tuple[float, float]) -> dict[str, ng.InvlerpParameters]:
    return {"range": ng.InvlerpParameters(range=list(of), window=list(of))}
