"""A real Chromium without a screen, and what its pages complain of or ask others for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

#: WebGL 2 by the processor; no name but this machine's resolves, so that nothing leaves it even where a page tries.
FLAGS = [
    "--no-sandbox",
    "--no-first-run",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]


@dataclass
class Watched:
    """A page, the errors of its console, and the addresses it asked for, its workers among them."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def strangers(self, origin: str) -> list[str]:
        """Addresses asked for that do not begin with `origin`, nor are in the page itself."""
        return [url for url in self.requests if not url.startswith((origin, "data:", "blob:", "about:"))]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, as the system has it or as playwright installed it."""
    with sync_playwright() as playwright:
        installed = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
        own = playwright.chromium.executable_path
        found = next(filter(None, installed), own if Path(own).exists() else None)
        if found is None:
            pytest.skip("no Chromium here: apt install chromium, or playwright install chromium")
        launched = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def watched(browser: Browser) -> Iterator[Callable[..., Watched]]:
    """Open an empty page (`width`, `height` in pixels; further options of a context) that is watched from then on."""
    contexts = []

    def new(width: int = 1280, height: int = 800, **options: object) -> Watched:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)  # type: ignore[arg-type]
        contexts.append(context)
        seen = Watched(context.new_page())

        def asked(request: Request) -> None:
            seen.requests.append(request.url)

        context.on("request", asked)
        context.on("console", lambda message: seen.errors.append(message.text) if message.type == "error" else None)
        context.on("weberror", lambda error: seen.errors.append(str(error.error)))
        return seen

    yield new
    for context in contexts:
        context.close()
