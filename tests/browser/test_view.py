"""`view` in a real Chromium: the voxels are on screen, all panes move together, and only this machine is asked."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import neuroglancer
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page
from scipy.ndimage import gaussian_filter

from ssdenoise.config.specs import Storage
from ssdenoise.store import Volume
from ssdenoise.view import Choice
from ssdenoise.view.server import Server
from tests.browser.conftest import Watched
from tests.conftest import make_run, scene

pytestmark = pytest.mark.browser

#: Several shards to a plane, and a pyramid of three levels.
STORED = Storage(chunk=(1, 64, 64), shard=(2, 256, 256))

Open = Callable[..., Watched]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    run = tmp_path_factory.mktemp("results") / "small"
    clean = scene((2, 1, 4, 400, 600)).astype(np.float32)
    noisy = clean + np.random.default_rng(0).normal(0, 150, clean.shape).astype(np.float32)
    denoised = gaussian_filter(noisy, (0, 0, 0, 2, 2))
    volumes = {"noisy": noisy, "clean": clean, "hqssl/denoised": denoised, "hqssl/uncertainty": np.sqrt(denoised)}
    make_run(run, "nuclei", "low", volumes, STORED)

    tones = np.rint(clean[:1, :, :2] / 4)
    kinds = {"noisy": "uint8", "a/denoised": "uint16", "b/denoised": "int16", "c/denoised": "float32"}
    make_run(run, "kinds", "measured", {name: tones.astype(kind) for name, kind in kinds.items()}, STORED)

    channels = np.concatenate([clean[:1, :, :2], clean[1:, :, :2]], axis=1).astype(np.uint16)
    make_run(run, "channels", "measured", {"noisy": channels, "n2v/denoised": channels}, STORED)
    with Server(run, Choice()) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def asked(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[str]]:
    """Lines of the server's log that hold some text."""
    caplog.set_level(logging.DEBUG, "ssdenoise.view.server")
    return lambda text: [message for message in caplog.messages if text in message]


def settled(page: Page) -> list[np.ndarray]:
    """What is within each pane once nothing changes any more: uint8 (height, width, RGB), in the panes' order."""
    deadline, before = time.monotonic() + 90, b""
    while time.monotonic() < deadline:
        page.wait_for_timeout(500)
        ready = page.evaluate("Boolean(window.viewer && viewer.isReady())")
        picture = page.screenshot()
        if ready and picture == before:
            break
        before = picture
    else:
        pytest.fail("the panes are not drawn after 90 s")
    shot = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    boxes = [pane.bounding_box() for pane in page.locator(".neuroglancer-rendered-data-panel").all()]
    sides = [[round(box[key]) for key in ("x", "y", "width", "height")] for box in boxes if box]
    return [shot[y : y + height, x : x + width] for x, y, width, height in sides]


def middle(pane: np.ndarray, side: int = 160) -> np.ndarray:
    """The centre of a pane, where no button covers it."""
    y, x = ((n - side) // 2 for n in pane.shape[:2])
    return pane[y : y + side, x : x + side].astype(float)


def roughness(image: np.ndarray) -> float:
    """Share of the variance that differs from one pixel to the next."""
    return float(np.mean(np.diff(image[..., 1], axis=1) ** 2) / np.var(image[..., 1]))


def go(page: Page, **changes: object) -> list[np.ndarray]:
    """Change Neuroglancer's state through the address, as a bookmark does."""
    state = neuroglancer.parse_url(page.url)
    for name, value in changes.items():
        setattr(state, name, value)
    page.evaluate("url => { location.href = url }", neuroglancer.to_url(state, prefix=page.url.partition("#")[0]))
    return settled(page)


def expected(store: Path, c: int = 0, z: int = 0, of: Path | None = None) -> np.ndarray:
    """A plane in the display range of `of`, 0 to 255."""
    intensities = Volume(of or store).intensities()[c]
    low, high = intensities.quantile(0.001), intensities.quantile(0.999)
    plane = Volume(store).read(np.s_[:1, c : c + 1, z : z + 1, :, :])[0, 0, 0].astype(float)
    return 255 * np.clip((plane - low) / (high - low), 0, 1)


def found_in(image: np.ndarray, plane: np.ndarray) -> float:
    """Median difference between a piece of a pane and the place of the plane that it is nearest to, at one to one."""
    side = len(image)
    corner = [(n - side) // 2 for n in plane.shape]
    places = [(corner[0] + dy, corner[1] + dx) for dy in range(-2, 3) for dx in range(-2, 3)]
    return min(float(np.median(np.abs(image - plane[y : y + side, x : x + side]))) for y, x in places)


def test_the_panes_show_the_voxels_and_move_together(
    server: Server, watched: Open, asked: Callable[[str], list[str]]
) -> None:
    seen = watched(1600, 700)
    page = seen.page
    page.goto(f"{server.origin}/")
    page.get_by_role("link", name="low").click()
    panes = settled(page)
    titles = page.locator(".neuroglancer-layer-item-label").all_inner_texts()
    assert titles == ["noisy", "hqssl", "hqssl uncertainty", "clean volume"]
    assert len(panes) == 4
    noisy, denoised, uncertainty, clean = map(middle, panes)
    for image in (noisy, denoised, uncertainty, clean):
        assert image.std() > 10
    assert roughness(noisy) > 3 * roughness(denoised)
    for image in (noisy, denoised, clean):
        assert np.ptp(image, axis=-1).max() == 0  # shades of grey
    assert np.ptp(uncertainty, axis=-1).max() > 50
    # the volume fills its pane: the grey beside it is above and below only
    assert all((pane[len(pane) // 2, 15:-15] != 128).any(axis=-1).mean() > 0.95 for pane in panes)

    # a pixel for a voxel: what is on screen is what is in the stores, at full resolution
    scene_folder = server.run / "nuclei" / "low"
    first = scene_folder / "hqssl/seed-0/denoised.ome.zarr"
    stores = {0: scene_folder / "noisy-0.ome.zarr", 1: first, 3: server.run / "nuclei/clean.ome.zarr"}
    panes = go(page, cross_section_scale=1)
    for number, store in stores.items():
        assert found_in(middle(panes[number])[..., 1], expected(store, z=2, of=first)) <= 1
    assert asked("/noisy-0.ome.zarr/0/c/")

    # a key, the wheel, and the address move all panes
    page.mouse.move(200, 350)
    page.keyboard.press(".")
    moved = settled(page)
    assert list(neuroglancer.parse_url(page.url).position)[2] == 3
    for number, store in stores.items():
        assert found_in(middle(moved[number])[..., 1], expected(store, z=3, of=first)) <= 1
        assert found_in(middle(moved[number])[..., 1], expected(store, z=2, of=first)) > 5  # planes can be told apart
    assert np.abs(middle(moved[2]) - middle(panes[2])).mean() > 5
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    zoomed = settled(page)
    assert neuroglancer.parse_url(page.url).cross_section_scale < 1
    assert all(np.abs(middle(a) - middle(b)).mean() > 5 for a, b in zip(zoomed, moved, strict=True))
    later = go(page, position=[300, 200, 3, 1], cross_section_scale=1)
    assert all(np.abs(middle(a) - middle(b)).mean() > 5 for a, b in zip(later, moved, strict=True))

    chunks = [line for line in asked("/c/") if '"GET ' in line]
    assert len(chunks) > 50
    assert all(" 206 " in line and "[bytes=" in line for line in chunks)
    assert {line.split()[1].split(".ome.zarr/")[1][0] for line in chunks} >= {"0", "1"}  # the pyramid, too
    assert seen.errors == []
    assert seen.strangers(server.origin) == []


def test_every_dtype_is_drawn_alike(server: Server, watched: Open) -> None:
    seen = watched(1600, 700)
    seen.page.goto(f"{server.origin}/open/kinds/measured")
    settled(seen.page)
    folder = server.run / "kinds" / "measured"
    panes = go(seen.page, cross_section_scale=1)
    stores = [folder / "noisy-0.ome.zarr", *(folder / name / "seed-0/denoised.ome.zarr" for name in "abc")]
    assert [str(Volume(store).array.dtype) for store in stores] == ["uint8", "uint16", "int16", "float32"]
    assert len(panes) == 4
    for pane in panes:
        assert found_in(middle(pane)[..., 1], expected(stores[1], z=1)) <= 1
    assert seen.errors == []


def test_channels_are_added_up_in_their_colours(server: Server, watched: Open) -> None:
    seen = watched(1280, 800)
    seen.page.goto(f"{server.origin}/open/channels/measured")
    settled(seen.page)
    panes = go(seen.page, cross_section_scale=1)
    store = server.run / "channels/measured/n2v/seed-0/denoised.ome.zarr"
    assert len(panes) == 2
    for pane in panes:
        red, green, blue = np.moveaxis(middle(pane), -1, 0)
        assert found_in(green, expected(store, 0, 1)) <= 1
        assert found_in(red, expected(store, 1, 1)) <= 1
        np.testing.assert_array_equal(red, blue)  # magenta
    assert seen.errors == []


def test_the_page_says_what_cannot_be_shown(server: Server, watched: Open) -> None:
    make_run(server.run, "half", "measured", {"noisy": scene((1, 1, 2, 40, 40)).astype(np.float16)})
    seen = watched(390, 800)
    seen.page.goto(f"{server.origin}/")
    assert "noisy-0.ome.zarr is float16; Neuroglancer draws" in seen.page.inner_text("body")
    links = [link.get_attribute("href") for link in seen.page.get_by_role("link").all()]
    assert links == ["/open/channels/measured", "/open/kinds/measured", "/open/nuclei/low"]
    assert seen.errors == []
