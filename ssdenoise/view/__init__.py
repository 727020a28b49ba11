"""View: a run's volumes side by side in a browser, served to this machine only."""

from __future__ import annotations

import logging
import sys
import threading
import webbrowser
from importlib import import_module

from ssdenoise.errors import ConfigError
from ssdenoise.run import folder_of
from ssdenoise.view.scenes import Choice, scenes_of

__all__ = ["Choice", "view"]

log = logging.getLogger(__name__)


def view(run: str, choice: Choice, *, port: int = 0, browser: bool = True) -> None:
    """Serve a run's stores until it is interrupted, and show them in Neuroglancer.

    Noisy, denoised, uncertainty, and the clean volume or the reference are panes at one position and zoom, at full
    resolution where the zoom asks for it. All but the uncertainties have one display range, from the 0.1 % to the
    99.9 % quantile of the first denoised volume.

    Parameters
    ----------
    run : str
        A run's name, whose folder is `results/{run}`, or a run's folder.
    choice : Choice
        What of it to show. One scene is shown at once, of several a page with a link to each.
    port : int
        Port of 127.0.0.1; 0: any that is free.
    browser : bool
        Open a browser; else only print the address.

    Raises
    ------
    ConfigError
        If Neuroglancer is not installed, the run lacks what was chosen, or the port is taken.
    FormatError
        If Neuroglancer cannot show the only scene there is.
    MissingInputError
        If there is no such run, or none of its noisy volumes is finished.
    """
    folder = folder_of(run)
    scenes = scenes_of(folder, choice)
    _require_package()
    from ssdenoise.view.server import Server

    if len(scenes) == 1:
        for pane in scenes[0].panes:
            pane.volume()  # refused here, not in the browser
    with Server(folder, choice, port) as server:
        address = f"{server.origin}/open/{scenes[0].name}" if len(scenes) == 1 else f"{server.origin}/"
        for scene in scenes:
            log.info("%s, %s", scene.name, scene.description)
        print(address, flush=True)
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            if browser and not webbrowser.open(address):
                log.info("no browser found; open the address in one")
            log.info("serving until interrupted (Ctrl-C)")
            serving.join()
        except KeyboardInterrupt:
            sys.stderr.write("\n")
        finally:
            server.shutdown()


def _require_package() -> None:
    """Say that the viewer is not installed."""
    try:
        import_module("neuroglancer")
    except ImportError:
        raise ConfigError("view needs neuroglancer; `pip install ssdenoise[view]`") from None
