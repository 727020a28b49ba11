"""The page of a run: what it holds, what it says is missing, how large it is, and that it can do no harm."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ssdenoise.calibrate import calibrate
from ssdenoise.compare import compare
from ssdenoise.config.specs import CalibrateSpec, CompareSpec, Expected, ReportSpec, ScoreSpec
from ssdenoise.provenance import file_digest
from ssdenoise.report import PAGE, report
from ssdenoise.report.collect import missing, scenes_of
from ssdenoise.report.page import page
from ssdenoise.report.slices import CHOICES, place_of
from ssdenoise.score import score
from tests.conftest import make_store, scene

CAPTION = "Something ``seen``; <b>not</b> bold."


def spec_of(*datasets: str, **more: Any) -> ReportSpec:
    jobs = (("gaussian", 0), ("hqssl", 0))
    one = Expected(datasets=datasets, situation="reference", noise=("measured",), jobs=jobs)
    return ReportSpec(run="r", expected=(one,), **({"figures": (("{dataset}/{noise}/images.png", CAPTION),)} | more))


def add_scene(run: Path, dataset: str, shape: tuple[int, int, int] = (6, 70, 45), *, hqssl: bool = True) -> None:
    """Stores, scores and a figure of one dataset, as the stages leave them."""
    folder, clean = run / dataset / "measured", scene(shape) / 20
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    reference = make_store(run / dataset, "reference", clean.astype(np.float32)).path
    noisy = make_store(folder, "noisy-0", rng.poisson(clean).astype(np.uint16)).path
    calibration = folder / "calibration.json"
    calibrate(CalibrateSpec(), noisy, calibration, folder / "images.png")

    def scored(method: str, denoised: Path, output: Path) -> None:
        names = {"dataset": dataset, "situation": "reference", "noise": "measured", "method": method, "seed": 0}
        spec = ScoreSpec.model_validate(names | {"data_range": "reference"})
        score(spec, noisy, denoised, calibration, None, reference, output)

    scored("noisy", noisy, folder / "noisy-scores.parquet")
    for entry in ("gaussian", "hqssl")[: 1 + hqssl]:
        job = folder / entry / "seed-0"
        job.mkdir(parents=True)
        denoised = make_store(job, "denoised", (clean + rng.normal(0, 0.5, shape)).astype(np.float32)).path
        _as_denoised(denoised)
        scored(entry, denoised, job / "scores.parquet")
    if hqssl:
        make_store(folder / "hqssl" / "seed-0", "uncertainty", np.sqrt(clean).astype(np.float32))


def _as_denoised(store: Path) -> None:
    """Add what only the commit record of a denoised volume has."""
    value = json.loads((store / "zarr.json").read_text())
    value["attributes"]["ssdenoise"] |= {"voxels": 1000, "clipped_voxels": 5.0, "copied_voxels": 0.0}
    (store / "zarr.json").write_text(json.dumps(value))


def make_comparison(run: Path) -> None:
    files = sorted(run.glob("*/measured/*scores.parquet")) + sorted(run.glob("*/measured/*/seed-0/scores.parquet"))
    compare(CompareSpec(run="r", average="error", bootstrap_block=4), files, run)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of one dataset; tests that change it work on a copy."""
    run = tmp_path_factory.mktemp("report") / "r"
    add_scene(run, "cells")
    make_comparison(run)
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "results" / "r")
    return tmp_path / "results" / "r"


class Parsed(HTMLParser):
    """Tags with their attributes, and the text of scripts and of all else."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: dict[str, str] = {}
        self.within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.within = (dict(attrs).get("id") or tag) if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self.within = ""
        self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        self.data[self.within] = self.data.get(self.within, "") + data

    @property
    def words(self) -> str:
        """What is read, with single spaces."""
        return " ".join(self.data[""].split())


def read(path: Path) -> Parsed:
    return Parsed(path.read_text())


def test_all_of_a_run_is_in_its_page(run: Path) -> None:
    assert report(spec_of("cells"), run, run / "report.html") == []
    parsed = read(run / "report.html")
    words = parsed.words
    table = pd.read_csv(run / "comparison.csv").set_index("method")
    for method in ("noisy", "gaussian", "hqssl"):
        assert f"{table.loc[method, 'psnr']:.2f}" in words
    assert "PSNR over the pooled squared error of all planes" in words
    assert "data range" in words
    assert "1 dataset, 1 noisy volume, 2 method entries, 1 seed: all 2 denoised volumes are scored." in words
    assert "1 × 1 × 6 × 70 × 45" in words
    assert "0.5 %" in words  # clipped
    assert json.loads((run / "cells/measured/calibration.json").read_text())["recommendation"]["why"] in words
    noisy = json.loads((run / "cells/measured/noisy-0.ome.zarr/zarr.json").read_text())["attributes"]["ssdenoise"]
    assert noisy["digest"][:12] in words
    assert "missing" not in {attributes.get("id") for _, attributes in parsed.tags}


def test_pictures_are_the_voxels_at_the_display_range_that_is_told(run: Path) -> None:
    report(spec_of("cells"), run, run / "report.html")
    shown = json.loads(read(run / "report.html").data["scene-0-data"])
    assert [image["name"] for image in shown["images"]] == ["noisy", "gaussian", "hqssl", "reference"]
    assert shown["planes"] == [0, 1, 3, 4, 5]
    assert shown["planes"][shown["first"]] == 3
    reference = scene((6, 70, 45)) / 20
    for index, z in enumerate(shown["planes"]):
        picture = Image.open(io.BytesIO(base64.b64decode(shown["images"][3]["planes"][index])))
        assert picture.mode == "L"
        low, high = map(float, shown["ranges"][index].split(" to "))
        expected = np.clip((reference[z] - low) / (high - low), 0, 1) * 255
        np.testing.assert_allclose(np.asarray(picture), expected, atol=1.5)  # the range is told to four digits
    assert list(shown["uncertainty"]) == ["hqssl"]


def test_the_same_run_gives_the_same_bytes(run: Path) -> None:
    for name in ("a.html", "b.html"):
        report(spec_of("cells"), run, run / name)
    assert file_digest(run / "a.html") == file_digest(run / "b.html")


def test_nothing_in_the_page_can_act_as_code_or_reach_out(run: Path) -> None:
    evil = '</script><script>alert("1")</script><img src=x onerror=alert(2)>'
    store = run / "cells/measured/noisy-0.ome.zarr/zarr.json"
    value = json.loads(store.read_text())
    value["attributes"]["ssdenoise"]["metadata"]["channels"] = [evil]
    store.write_text(json.dumps(value))
    (run / "comparison.md").write_text(f"# r\n\n| a |\n\n{evil} `{evil}`\n")
    found = json.loads((run / "cells/measured/calibration.json").read_text()) | {"warnings": [evil]}
    (run / "cells/measured/calibration.json").write_text(json.dumps(found))
    report(spec_of("cells", commands=(evil,)), run, run / "report.html")
    text, parsed = (run / "report.html").read_text(), read(run / "report.html")
    assert evil in parsed.words
    assert evil not in text
    scripts = [attributes for tag, attributes in parsed.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "scene-0-data"}, {}]
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)
    outside = [a.get(key) for _, a in parsed.tags for key in ("src", "href") if a.get(key)]
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in outside)
    policy = next(a["content"] for _, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    for tag in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(parsed.data[tag].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:; ")


def test_values_of_the_viewers_cannot_end_their_script() -> None:
    viewers = [{"title": "</script><b>", "planes": [0], "first": 0, "images": [], "uncertainty": {}, "reference": None}]
    viewers[0]["said"] = {"where": "", "uncertainty": ""}
    viewers[0]["ranges"] = [""]
    one = {"id": "s", "dataset": "d", "noise": "n", "figures": [], "volume": [], "channels_and_noise": None}
    one |= {"recommended": "", "why": "", "warnings": [], "choices": [("best", "because")], "denoised": []}
    content = dict.fromkeys(("missing", "unfinished", "run_figures", "origins", "made_by", "commits", "commands"), ())
    text = page(content | {"run": "r", "summary": "", "table": None, "code": "", "scenes": [one], "viewers": viewers})
    assert json.loads(Parsed(text).data["s-data"])["title"] == "</script><b>"


def test_what_is_missing_is_listed_with_its_reason(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    (run / "lost" / "logs").mkdir(parents=True)
    log = "2026-11-27 12:00:00 reading\nssdenoise: lost.npy cannot be <read>; fetch it\nRuleException: of Snakemake\n"
    (run / "lost" / "logs" / "reference.log").write_text(log)
    folder = run / "cells/measured/hqssl/seed-0"
    for product in ("scores.parquet", "denoised.ome.zarr/zarr.json", "uncertainty.ome.zarr/zarr.json"):
        (folder / product).unlink()
    (folder / "logs").mkdir()
    (folder / "logs" / "train.log").write_text(
        "step 1\nTraceback (most recent call last):\n  File\nMemoryError: 3 GB\n"
    )
    (run / "comparison.csv").unlink()
    output = run / "report.html"
    lacking = report(spec_of("cells", "lost"), run, output)
    assert [(one.what, one.reason, one.log) for one in lacking] == [
        (("cells/measured, seed 0: hqssl",), "MemoryError: 3 GB", "r/cells/measured/hqssl/seed-0/logs/train.log"),
        (
            ("lost/measured, seed 0: gaussian, hqssl",),
            "lost.npy cannot be <read>; fetch it",
            "r/lost/logs/reference.log",
        ),
    ]
    told = "missing: cells/measured, seed 0: hqssl: MemoryError: 3 GB"
    assert caplog.messages[0] == f"{told} (log: {run}/cells/measured/hqssl/seed-0/logs/train.log)"
    words = read(output).words
    assert "lost.npy cannot be <read>; fetch it lost/measured, seed 0: gaussian, hqssl" in words
    assert "2 datasets, 2 noisy volumes, 2 method entries, 1 seed: 1 of 4 denoised volumes are scored." in words
    # the comparison is not there: what scores there are
    planes = pd.read_parquet(run / "cells/measured/gaussian/seed-0/scores.parquet")
    mean = (10 * np.log10(planes["data_range"] ** 2 / planes["mean_squared_error"])).mean()
    assert f"gaussian 0 {mean:.2f}" in words
    assert "The comparison of this run is not made yet." in words
    assert output.stat().st_mtime == 0  # older than all that a run that goes on makes


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("reading\n", "it was killed, or is still running; the last line of its log: reading"),
        ("", "it was killed, or is still running"),
        (None, "it was not begun"),
    ],
)
def test_a_job_that_left_no_error_has_a_reason_too(run: Path, log: str | None, reason: str) -> None:
    shutil.rmtree(run / "cells/measured/gaussian")
    if log is not None:
        (run / "cells/measured/gaussian/seed-0/logs").mkdir(parents=True)
        (run / "cells/measured/gaussian/seed-0/logs/train.log").write_text(log)
    (one,) = missing(spec_of("cells"), scenes_of(spec_of("cells"), run), run)
    assert reason in one.reason


def test_a_group_s_training_and_a_download_are_looked_for_where_they_are(run: Path) -> None:
    spec = spec_of("a", "b", trained={"a": "g"}, downloads={"b": ("b.tif",)})
    for log in (run / "g/measured/hqssl/seed-0/logs/train.log", run.parent / "downloads/logs/b.tif.log"):
        log.parent.mkdir(parents=True)
        log.write_text(f"ssdenoise: of {log.name}\n")
    found = {what: one.reason for one in missing(spec, scenes_of(spec, run), run) for what in one.what}
    assert found["a/measured, seed 0: hqssl"] == "of train.log"
    assert found["b/measured, seed 0: gaussian, hqssl"] == "of b.tif.log"
    assert found["a/measured, seed 0: gaussian"].startswith("it was not begun")


def test_a_probe_and_what_is_only_chosen_from_are_looked_for_too(run: Path) -> None:
    for log in ("hqssl/seed-0/logs/probe.log", "n2v/seed-1/logs/train.log"):
        (run / "cells/measured" / log).parent.mkdir(parents=True)
        (run / "cells/measured" / log).write_text(f"ssdenoise: in {log}\n")
    spec = spec_of("cells")
    found = {what: one.reason for one in missing(spec, scenes_of(spec, run), run) for what in one.what}
    assert found == {
        "cells/measured: hqssl/seed-0/probe.parquet": "in hqssl/seed-0/logs/probe.log",
        "cells/measured: n2v/seed-1/model.json": "in n2v/seed-1/logs/train.log",
    }


def test_what_failed_since_an_earlier_run_is_missing_too(run: Path) -> None:
    log = run / "cells/measured/hqssl/seed-0/logs/train.log"
    log.parent.mkdir()
    log.write_text("ssdenoise: the loss is no number\n")  # and no model.json beside it
    report(spec_of("cells"), run, run / "report.html")
    assert "the loss is no number cells/measured, seed 0: hqssl" in read(run / "report.html").words
    os.utime(log, (1, 1))  # of before the scores that there are
    report(spec_of("cells"), run, run / "report.html", unfinished=True)
    assert "what is shown may be of an earlier one" in read(run / "report.html").words
    assert (run / "report.html").stat().st_mtime == 0


def test_rows_of_an_earlier_run_whose_volumes_are_gone_are_not_shown(run: Path) -> None:
    assert "hqssl" in (run / "comparison.csv").read_text()
    shutil.rmtree(run / "cells/measured/hqssl")
    report(spec_of("cells"), run, run / "report.html")
    rows = [attributes for tag, attributes in read(run / "report.html").tags if tag == "td"]
    methods = {row["data-value"] for row in rows if row.get("data-value") in ("noisy", "gaussian", "hqssl")}
    assert methods == {"noisy", "gaussian"}


def test_a_comparison_older_than_the_scores_is_not_shown(run: Path) -> None:
    path = run / "cells/measured/gaussian/seed-0/scores.parquet"
    planes = pd.read_parquet(path)
    planes.assign(mean_squared_error=planes["mean_squared_error"] / 100).to_parquet(path)
    report(spec_of("cells"), run, run / "report.html")
    assert "The comparison of this run is not made yet." in read(run / "report.html").words


def test_a_damaged_store_costs_its_images_only(run: Path) -> None:
    shutil.rmtree(run / "cells/measured/hqssl/seed-0/uncertainty.ome.zarr/0")
    report(spec_of("cells"), run, run / "report.html")
    assert "uncertainty.ome.zarr/0 is no array any more" in read(run / "report.html").words


def test_a_reference_in_other_units_is_shown_in_those_of_the_noisy_volume(tmp_path: Path) -> None:
    run = tmp_path / "r"
    add_scene(run, "cells", hqssl=False)
    shutil.rmtree(run / "cells/reference.ome.zarr")
    make_store(run / "cells", "reference", (scene((6, 70, 45)) * 3 + 500).astype(np.float32))
    one = Expected(datasets=("cells",), situation="reference", noise=("measured",), jobs=(("gaussian", 0),))
    for fit in ("none", "affine"):
        spec = ReportSpec(run="r", expected=(one.model_copy(update={"reference_fit": fit}),))
        report(spec, run, run / "report.html")
        high = json.loads(read(run / "report.html").data["scene-0-data"])["ranges"][0].split(" to ")[1]
        assert (float(high) < 60) == (fit == "affine")


@pytest.mark.parametrize("pictures", [3, 10, 100, 3000])
@pytest.mark.parametrize("shape", [(1, 1, 60, 256, 256), (2, 3, 4, 2000, 100), (1, 1, 1, 33, 4000)])
def test_what_is_shown_keeps_to_the_budget(shape: tuple[int, ...], pictures: int) -> None:
    place = place_of(shape, pictures, 10e6)
    if place is None:
        assert pictures == 3000
        return
    height, width = (s.stop - s.start for s in (place.rows, place.columns))
    assert len(place.planes) * height * width * pictures * 4 / 3 < 10e6
    assert place.planes[place.first] == shape[2] // 2 or len(place.planes) % 2 == 0
    assert len(set(place.planes)) == len(place.planes) <= 5
    assert max(height, width) <= 512


@pytest.mark.slow
def test_a_page_of_many_large_volumes_of_noise_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scaled down by 56: the budget, and with it what is worth showing."""
    monkeypatch.setattr("ssdenoise.report.PAGE", PAGE // 56)
    monkeypatch.setattr("ssdenoise.report.FIGURES", 100_000)
    monkeypatch.setattr("ssdenoise.report.slices.CHOICES", tuple((planes, side // 2) for planes, side in CHOICES))
    names = [f"v{i}" for i in range(6)]
    for name in names:
        add_scene(tmp_path / "r", name, (6, 256, 256))
    report(spec_of(*names), tmp_path / "r", tmp_path / "r" / "report.html")
    size = (tmp_path / "r" / "report.html").stat().st_size
    assert size < PAGE // 56
    parsed = read(tmp_path / "r" / "report.html")
    shown = [json.loads(parsed.data[f"scene-{i}-data"]) for i in range(6)]
    assert all(len(one["images"]) == 4 for one in shown)
    assert size > PAGE // 56 // 3  # room is used
    assert "Not in this page, for its size" in parsed.words
    assert re.search(r"\d of 6 planes, z = [\d, ]+, counted from 0; rows \d+ to \d+ of 256", parsed.words)
