"""The page: one file that asks for nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

HERE = Path(__file__).parent

#: Scripts of the page, in their order.
SCRIPTS = ("pixels.js", "viewer.js", "table.js")


def page(content: Mapping[str, Any]) -> str:
    """HTML of a page from what it shows.

    Text is escaped by the template; pictures and the values of the viewers are JSON in which no tag can begin. The
    policy of the page allows its own style and scripts, by their digests, and pictures inside it, and nothing else.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["code"] = _code
    environment.filters["png"] = _png
    style = (HERE / "style.css").read_text()
    script = "".join((HERE / name).read_text() for name in SCRIPTS)
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return environment.get_template("page.html").render(
        **content, style=Markup(style), script=Markup(script), policy=policy
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _png(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _code(text: str) -> Markup:
    """Text with what stands between backquotes, one or two of them, as code, and emphasis by asterisks as such."""
    marked = re.sub(r"(`{1,2})([^`]+)\1", r"<code>\2</code>", str(escape(text)))
    return Markup(re.sub(r"(\*{1,2})([^*<>]+)\1", r"<em>\2</em>", marked))  # the text is escaped already
