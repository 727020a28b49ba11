"""The Chromium of these tests draws, and what a page or its worker does wrong is seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.conftest import Watched

pytestmark = pytest.mark.browser

PAGE = """<!doctype html><script>
const worker = "fetch('http://elsewhere.invalid/worker').catch(() => console.error('of a worker'))";
new Worker(URL.createObjectURL(new Blob([worker])));
fetch("http://elsewhere.invalid/page").catch(() => console.error("of the page"));
const gl = document.createElement("canvas").getContext("webgl2");
document.title = Boolean(gl && gl.getExtension("EXT_color_buffer_float"));
setTimeout(() => { throw new Error("thrown") });
</script>"""


def test_webgl_is_there_and_errors_and_requests_are_seen(watched: Callable[..., Watched], tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(PAGE)
    seen = watched()
    seen.page.goto(f"file://{tmp_path}/page.html")
    assert seen.page.title() == "true"
    for _ in range(100):
        if {"thrown", "of a worker", "of the page"} <= set(seen.errors):
            break
        seen.page.wait_for_timeout(100)
    else:
        pytest.fail(f"errors not seen; only {seen.errors}")
    assert sorted(seen.strangers("file://")) == ["http://elsewhere.invalid/page", "http://elsewhere.invalid/worker"]
