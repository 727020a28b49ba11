"""Report: all that a run found in one page, which needs no server and no network."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ssdenoise.config.specs import ReportSpec
from ssdenoise.errors import SsdenoiseError
from ssdenoise.provenance import code_hash, read_json, write_text
from ssdenoise.report.collect import Missing, Scene, missing, scenes_of
from ssdenoise.report.facts import advice, choices, denoised_facts, made_by, noise_facts, origins, volume_facts
from ssdenoise.report.page import page
from ssdenoise.report.slices import viewer
from ssdenoise.report.table import Table, comparison, tested, trusted

log = logging.getLogger(__name__)

#: Characters of the page at most, and how many of them figures may take.
PAGE, FIGURES = 28_000_000, 12_000_000


def report(spec: ReportSpec, run: Path, output: Path, *, unfinished: bool = False) -> list[Missing]:
    """Write the page of a run, of what is there of it.

    Parameters
    ----------
    spec : ReportSpec
        What the run is to have.
    run : Path
        Folder of the run.
    output : Path
        HTML file, under 30 MB. It depends on the run's files only: the same ones give the same bytes. Where something
        is missing, the file's time is set to 1970, so that a run that goes on makes it anew.
    unfinished : bool
        Whether the run did not complete, which products of an earlier one may hide.

    Returns
    -------
    list of Missing
        What the run lacks, which the page names, too.
    """
    scenes = scenes_of(spec, run)
    lacking, table = missing(spec, scenes, run), comparison(run, scenes)
    for one in lacking:
        where = f" (log: {run.parent / one.log})" if one.log else ""
        log.warning("missing: %s: %s%s", ", ".join(one.what), one.reason, where)
    figures = _figures(spec, scenes, run)
    content = {
        "run": spec.run,
        "summary": _summary(scenes, lacking),
        "missing": lacking,
        "unfinished": unfinished or bool(lacking),
        "table": table,
        "tested": tested(run) if table and not lacking else [],
        "trusted": trusted(run) if table and not lacking else [],
        "run_figures": figures[""],
        "scenes": [_scene(scene, number, figures[scene.title]) for number, scene in enumerate(scenes)],
        "origins": (records := origins(scenes)),
        "made_by": made_by(scenes, records),
        "commits": sorted({record["commit"] for record in records if record["commit"]}),
        "commands": spec.commands,
        "code": code_hash("report"),
    }
    room = PAGE - len(page(content | {"viewers": [None] * len(scenes)}))
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, page(content | {"viewers": _viewers(scenes, table, room)}))
    if content["unfinished"]:
        os.utime(output, (0, 0))
    return lacking


def _summary(scenes: Sequence[Scene], lacking: Sequence[Missing]) -> str:
    """The run in one sentence."""
    jobs = sum(len(scene.jobs) for scene in scenes)
    done = sum((scene.job(*job) / "scores.parquet").is_file() for scene in scenes for job in scene.jobs)
    entries = {entry for scene in scenes for entry, _ in scene.jobs}
    seeds = {seed for scene in scenes for _, seed in scene.jobs}
    parts = [
        _counted(len({scene.dataset for scene in scenes}), "dataset"),
        _counted(len(scenes), "noisy volume"),
        _counted(len(entries), "method entry", "method entries"),
        _counted(len(seeds), "seed"),
    ]
    state = (
        f"all {jobs} denoised volumes are scored"
        if done == jobs and not lacking
        else f"{done} of {jobs} denoised volumes are scored"
    )
    return f"{', '.join(parts)}: {state}."


def _counted(n: int, one: str, many: str = "") -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"


def _figures(spec: ReportSpec, scenes: Sequence[Scene], run: Path) -> dict[str, list[dict[str, Any]]]:
    """Figures that are there, by the title of their scene, those of the whole run by none; the first are embedded."""
    found: dict[str, list[dict[str, Any]]] = {"": [], **{scene.title: [] for scene in scenes}}
    room = FIGURES
    for title, names in [("", {}), *((s.title, {"dataset": s.dataset, "noise": s.noise}) for s in scenes)]:
        for pattern, caption in spec.figures:
            if ("{" in pattern) != bool(names):
                continue
            path = run / pattern.format(**names)
            if path.is_file():
                size = path.stat().st_size * 4 // 3
                embedded, room = size <= room, room - (size if size <= room else 0)
                figure = {"path": path, "name": path.stem, "caption": caption, "embedded": embedded}
                with Image.open(path) as picture:
                    found[title].append(figure | {"size": picture.size})
    return found


def _scene(scene: Scene, number: int, figures: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page says of a scene besides its pictures."""
    calibration = scene.folder / "calibration.json"
    found = read_json(calibration) if calibration.is_file() else None
    entry, why, warnings = advice(found) if found else ("", "", [])
    return {
        "id": f"scene-{number}",
        "dataset": scene.dataset,
        "noise": scene.noise,
        "figures": figures,
        "volume": volume_facts(scene),
        "channels_and_noise": noise_facts(found) if found else None,
        "recommended": entry,
        "why": why,
        "warnings": warnings,
        "choices": choices(scene),
        "denoised": denoised_facts(scene),
    }


def _viewers(scenes: Sequence[Scene], table: Table | None, room: float) -> list[Mapping[str, Any] | None]:
    """The pictures of each scene, which share what room there is; what one leaves, those after it get."""
    viewers: list[Mapping[str, Any] | None] = []
    for number, scene in enumerate(scenes):
        psnr = table.psnr(scene) if table else {}
        try:
            viewers.append(viewer(scene, room / (len(scenes) - number), psnr))
        except SsdenoiseError as error:  # a damaged store, of one scene of many
            log.warning("%s: no pictures: %s", scene.title, error)
            viewers.append({"error": str(error)})
        found = viewers[-1] or {}
        shown = [image["planes"] for image in found.get("images", [])] + [*found.get("uncertainty", {}).values()]
        room -= sum(len(picture) for planes in shown for picture in planes)
    return viewers
