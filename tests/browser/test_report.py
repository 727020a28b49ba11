"""The page of a run in a real Chromium: its images move in step, its table sorts, and it asks nothing of anyone."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page

from ssdenoise.report import report
from tests.browser.conftest import Watched
from tests.unit.test_report import add_scene, make_comparison, spec_of

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two datasets, of which one has lost its last job."""
    run = tmp_path_factory.mktemp("report") / "results" / "r"
    add_scene(run, "cells", (12, 96, 128))
    add_scene(run, "plane", (1, 96, 128), hqssl=False)
    make_comparison(run)
    report(spec_of("cells", "plane"), run, run / "report.html")
    return run / "report.html"


@pytest.fixture(params=[1280, 390])
def opened(path: Path, watched: Callable[..., Watched], request: pytest.FixtureRequest) -> Watched:
    """The page, wide and narrow; its first viewer has drawn."""
    seen = watched(width=request.param)
    seen.page.goto(f"file://{path}")
    viewer(seen.page).scroll_into_view_if_needed()
    seen.page.wait_for_selector("#scene-0 .viewer[data-drawn]")
    return seen


def viewer(page: Page, number: int = 0) -> Locator:
    return page.locator(f"#scene-{number} .viewer")


def state(page: Page, name: str) -> float:
    return float(viewer(page).get_attribute(f"data-{name}") or "nan")


def drawn(page: Page) -> list[np.ndarray]:
    """Grey values of each canvas of the first viewer, once it is at rest."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    urls = page.eval_on_selector_all("#scene-0 canvas", "(all) => all.map((canvas) => canvas.toDataURL())")
    files = [io.BytesIO(base64.b64decode(url.partition(",")[2])) for url in urls]
    return [np.asarray(Image.open(file).convert("RGB"), np.float64).mean(-1) for file in files]


def changed(before: list[np.ndarray], after: list[np.ndarray]) -> list[bool]:
    """Whether images differ by more than what Chromium's drawing by GPU and by processor does."""
    return [float(np.abs(a - b).mean()) > 1 for a, b in zip(before, after, strict=True)]


def middle(page: Page, selector: str = "#scene-0 canvas") -> tuple[float, float]:
    page.locator(selector).first.scroll_into_view_if_needed()
    box = page.locator(selector).first.bounding_box()
    assert box
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def select_slider(slider: Locator, value: int) -> None:
    slider.evaluate("(one, value) => { one.value = value; one.dispatchEvent(new Event('input')) }", value)


def test_nothing_is_complained_of_or_asked_for_and_nothing_is_wider_than_the_window(opened: Watched) -> None:
    page = opened.page
    for _ in range(40):
        page.mouse.wheel(0, 400)
    page.wait_for_selector("#scene-1 .viewer[data-drawn]")
    width = page.viewport_size["width"]  # type: ignore[index]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert opened.errors == []
    assert opened.strangers("file://") == []
    assert len(opened.requests) == len([url for url in opened.requests if url.startswith(("data:", "file://"))])
    # what the eye reads is not smaller than 12 pixels, what a finger meets not smaller than 24
    texts = "[...document.querySelectorAll('p, td, th, a, label, button')]"
    assert page.evaluate(f"{texts}.every((one) => parseFloat(getComputedStyle(one).fontSize) >= 12)")
    boxes = [one.bounding_box() for one in page.locator("button:visible").all()]
    assert all(box and box["height"] >= 24 and box["width"] >= 24 for box in boxes)


def test_the_policy_of_the_page_refuses_what_is_not_in_it(opened: Watched) -> None:
    blocked = """() => fetch("http://127.0.0.1:9/").then(() => "let through", () => "refused")"""
    assert opened.page.evaluate(blocked) == "refused"
    assert any("Content Security Policy" in text for text in opened.errors)


def test_zoom_and_pan_are_in_step(opened: Watched) -> None:
    page, before = opened.page, drawn(opened.page)
    assert len(before) == 4
    assert len({image.tobytes() for image in before}) == 4
    x, y = middle(page)
    page.mouse.move(x + 20, y)
    page.mouse.wheel(0, -300)
    page.wait_for_function("document.querySelector('#scene-0 .viewer').dataset.zoom > 1")
    zoomed = drawn(page)
    assert all(changed(before, zoomed))
    at = state(page, "x")
    assert at > 0.5  # about the pointer
    page.mouse.down()
    page.mouse.move(x + 60, y, steps=4)
    page.mouse.up()
    assert state(page, "x") < at
    panned = drawn(page)
    assert all(changed(zoomed, panned))
    viewer(page).get_by_role("button", name="Zoom in").click()
    assert state(page, "zoom") > 2
    viewer(page).get_by_role("button", name="Whole").click()
    assert state(page, "zoom") == 1
    assert not any(changed(before, drawn(page)))


def test_planes_change_by_slider_and_arrow_keys(opened: Watched) -> None:
    page, before = opened.page, drawn(opened.page)
    assert "z = 6" in viewer(page).inner_text()
    select_slider(viewer(page).get_by_label("plane"), 0)
    page.wait_for_selector("#scene-0 .viewer[data-drawn='0']")
    assert "z = 1" in viewer(page).inner_text()
    first = drawn(page)
    assert all(changed(before, first))
    viewer(page).locator(".panes").focus()
    for key in ("ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    page.wait_for_selector("#scene-0 .viewer[data-drawn='2']")
    assert not any(changed(before, drawn(page)))
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("#scene-0 .viewer[data-drawn='1']")


def test_all_can_be_done_by_keys(opened: Watched) -> None:
    page = opened.page
    page.get_by_role("button", name="Swipe").first.focus()
    page.keyboard.press("Enter")
    assert page.get_by_role("button", name="Swipe").first.get_attribute("aria-pressed") == "true"
    page.get_by_label("divider").first.focus()
    page.keyboard.press("ArrowLeft")
    assert state(page, "divider") == 0.49
    viewer(page).locator(".panes").focus()
    for key in ("+", "+", "Shift+ArrowRight", "Shift+ArrowDown"):
        page.keyboard.press(key)
    assert state(page, "zoom") == 2.25
    assert state(page, "x") > 0.5
    assert state(page, "y") > 0.5
    page.keyboard.press("-")
    assert state(page, "zoom") == 1.5
    page.keyboard.press("0")
    assert (state(page, "zoom"), state(page, "x")) == (1, 0.5)
    # where the keyboard is can be seen, and no stop on the way lacks a name
    for _ in range(30):
        page.keyboard.press("Tab")
        found = page.evaluate("""() => { const e = document.activeElement, s = getComputedStyle(e);
            return [s.outlineStyle, e.ariaLabel || e.textContent || (e.labels && e.labels[0].textContent) || ""] }""")
        assert found[0] != "none" or page.evaluate("document.activeElement === document.body")
        assert found[1].strip()


def test_swipe_shows_one_image_left_and_another_right_of_the_divider(opened: Watched) -> None:
    page = opened.page
    viewer(page).get_by_role("button", name="Swipe").click()
    viewer(page).get_by_label("left").select_option(label="noisy")
    viewer(page).get_by_label("right").select_option(label="reference")
    select_slider(viewer(page).get_by_label("divider"), 100)
    (left,) = drawn(page)
    select_slider(viewer(page).get_by_label("divider"), 0)
    (right,) = drawn(page)
    assert changed([left], [right]) == [True]
    select_slider(viewer(page).get_by_label("divider"), 50)
    (both,) = drawn(page)
    half = both.shape[1] // 2
    assert changed([both[:, :half], both[:, half:]], [left[:, :half], right[:, half:]]) == [False, False]
    assert changed([both[:, half:], both[:, :half]], [left[:, half:], right[:, :half]]) == [True, True]
    x, y = middle(page, "#scene-0 .divider")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 50, y, steps=3)
    page.mouse.up()
    assert state(page, "divider") < 0.45


def test_uncertainty_lies_over_the_method_that_has_it_and_differences_over_all_but_the_reference(
    opened: Watched,
) -> None:
    page, before = opened.page, drawn(opened.page)
    select_slider(viewer(page).get_by_label("uncertainty"), 80)
    assert changed(before, drawn(page)) == [False, False, True, False]  # noisy, gaussian, hqssl, reference
    select_slider(viewer(page).get_by_label("uncertainty"), 0)
    assert not any(changed(before, drawn(page)))
    viewer(page).get_by_label("difference to the reference").check()
    assert changed(before, drawn(page)) == [True, True, True, False]


def test_the_table_sorts_and_filters_by_click_and_key(opened: Watched) -> None:
    page = opened.page

    def column(name: str) -> list[str]:
        number = page.locator("#comparison-table th").evaluate_all(
            "(all, name) => all.findIndex((h) => h.dataset.name === name)", name
        )
        return page.locator(f"#comparison-table tbody tr:not([hidden]) td:nth-child({number + 1})").all_inner_texts()

    def sorting() -> list[str | None]:
        return [head.get_attribute("aria-sort") for head in page.locator("#comparison-table th[aria-sort]").all()]

    assert len(column("method")) == 5
    assert sorting() == []
    head = page.locator("#comparison-table th[data-name=psnr] button")
    head.click()
    values = [float(text) for text in column("psnr")]
    assert values == sorted(values)
    assert sorting() == ["ascending"]
    head.focus()
    page.keyboard.press("Enter")
    assert [float(text) for text in column("psnr")] == values[::-1]
    assert sorting() == ["descending"]
    page.locator("#comparison-table th[data-name=psnr_lo] button").click()
    assert column("psnr_lo")[-2:] == ["–", "–"]  # of the single plane there is no interval: last, either way
    page.locator("#comparison-table th[data-name=psnr_lo] button").click()
    assert column("psnr_lo")[-2:] == ["–", "–"]
    page.locator("[data-filter=dataset]").select_option("plane")
    assert set(column("dataset")) == {"plane"}
    assert page.locator("#rows").inner_text() == "2 of 5 rows"
    assert not page.locator("#comparison-table th[data-name=planes]").is_visible()
    page.get_by_role("button", name="All columns").click()
    page.locator("#comparison-table th[data-name=planes]").scroll_into_view_if_needed()
    assert page.locator("#comparison-table th[data-name=planes]").is_visible()


def test_two_fingers_zoom(path: Path, watched: Callable[..., Watched]) -> None:
    seen = watched(width=390, has_touch=True, is_mobile=True)
    seen.page.goto(f"file://{path}")
    viewer(seen.page).scroll_into_view_if_needed()
    seen.page.wait_for_selector("#scene-0 .viewer[data-drawn]")
    x, y = middle(seen.page)
    session = seen.page.context.new_cdp_session(seen.page)
    for kind, apart in (("touchStart", 10), ("touchMove", 20), ("touchMove", 30), ("touchEnd", None)):
        points = [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}] if apart else []
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert state(seen.page, "zoom") > 1.5


def test_what_is_missing_stands_first(opened: Watched) -> None:
    heads = opened.page.locator("h2").all_inner_texts()
    assert heads[0] == "Missing"
    assert "plane/measured, seed 0: hqssl" in opened.page.locator("#missing").inner_text()
