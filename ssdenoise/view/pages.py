"""The pages around Neuroglancer: what there is to see, and how a scene is opened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from ssdenoise.errors import SsdenoiseError
from ssdenoise.view.scenes import Scene
from ssdenoise.view.state import Picture

#: The icon is empty: asking for one would be an error on the console.
HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width"><style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
th, td { text-align: left; vertical-align: top; padding: .2rem 1.5rem .2rem 0 }
</style>"""

#: Fits the volume into a pane of the window at hand; bars above each row of panes take some of its height.
SCRIPT = """<script>
const { state, rows, columns, width, height, client } = JSON.parse(document.getElementById("shown").textContent);
const wide = (innerWidth || 1280) / columns - 10, high = ((innerHeight || 800) - 40) / rows - 40;
state.crossSectionScale = Math.max(width / wide, height / high);
location.replace(client + "#!" + encodeURIComponent(JSON.stringify(state)));
</script>"""


def index(run: str, scenes: Sequence[Scene]) -> str:
    """A link to each scene, with its panes, or why it cannot be shown."""
    lines = [f"{HEAD}<title>{escape(run)}</title><h1>{escape(run)}</h1><table>"]
    lines.append("<tr><th>dataset<th>noise level<th>panes")
    for scene in scenes:
        try:
            for pane in scene.panes:
                pane.volume()
        except SsdenoiseError as error:
            noise, panes = escape(scene.noise), str(error)
        else:
            noise = f'<a href="/open/{quote(scene.name)}">{escape(scene.noise)}</a>'
            panes = scene.description
        lines.append(f"<tr><td>{escape(scene.dataset)}<td>{noise}<td>{escape(panes)}")
    return "\n".join([*lines, "</table></html>\n"])


def opening(shown: Picture, client: str) -> str:
    """A page that goes on to Neuroglancer, once it knows the window that the volume has to fit into."""
    facts = json.dumps(vars(shown) | {"client": client}).replace("<", "\\u003c")  # which could end the script
    return f'{HEAD}<title>opening</title><script type="application/json" id="shown">{facts}</script>{SCRIPT}</html>\n'


def refusal(error: SsdenoiseError) -> str:
    """Why something cannot be shown."""
    return f"{HEAD}<title>not shown</title><p>{escape(str(error))}</p></html>\n"
