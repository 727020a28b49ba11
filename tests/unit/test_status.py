"""What a run's files tell of its jobs: done, running, silent, failed, left."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ssdenoise.errors import ConfigError, MissingInputError
from ssdenoise.run import Worker
from ssdenoise.status import Status, status
from ssdenoise.status.state import PATIENCE
from ssdenoise.store import Layout, ShardWriter, claim

CONFIG = """\
run: r
datasets: sheet.tsv
methods:
  gaussian: {name: gaussian}
  n2v: {name: n2v}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of two datasets, none of whose jobs is begun; its folder is the current one."""
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.zeros((4, 8, 8), np.uint16))
    (tmp_path / "sheet.tsv").write_text("dataset\tnoisy\tslabs\na\ta.npy\t2\nb\tb.npy\t1\n")
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def worker() -> Iterator[Worker]:
    """A process that looks like a job's."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "ssdenoise"])
    while b"ssdenoise" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
        time.sleep(0.01)  # it is still a copy of this process
    yield Worker(process.pid, platform.node())
    process.kill()
    process.wait()


def look() -> Status:
    return status("r", Path("config.yaml"))


def states(found: Status) -> dict[str, str]:
    """State of each job that is not left, by its product."""
    products = {one.job.product.removeprefix("results/r/"): one.state for one in found.found}
    return {product: state for product, state in products.items() if state != "left"}


def says(found: Status, product: str) -> str:
    return next(one.says for one in found.found if one.job.product == f"results/r/{product}")


def write(path: str, text: str = "", age: float = 0.0) -> Path:
    """A file of the run, as old as is said."""
    file = Path("results/r") / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    os.utime(file, (time.time() - age,) * 2)
    return file


def signed(worker: Worker, *lines: str) -> str:
    """A log as the command line writes it."""
    return "".join(f"2026-11-27 02:15:47,123 {line}\n" for line in (str(worker), *lines))


def test_a_run_that_is_not_begun_has_all_jobs_left(project: Path) -> None:
    found = look()
    # of each dataset: ingest, calibrate, scores of the noisy volume, figures; of each model five, and a slab more of a
    assert found.count("left") == len(found.found) == 2 * 4 + 4 * 5 + 2 + 2
    assert str(found).startswith("r: 0 of 32 jobs are done, 32 left\n")


def test_products_are_what_is_done(project: Path) -> None:
    write("a/measured/noisy-0.ome.zarr/zarr.json")
    write("a/measured/calibration.json")
    write("a/measured/n2v/seed-0/slabs/1-of-2.json")
    write("report.html").touch()
    os.utime("results/r/report.html", (0, 0))  # that of a run that failed
    assert set(states(look()).values()) == {"done"}
    assert look().count("done") == 3
    table = [line.split("|")[1:7] for line in str(look()).splitlines() if line.startswith("| ")]
    cells = {stage.strip(): [cell.strip() for cell in rest] for stage, *rest in table}
    assert cells["denoise"] == ["1", "", "", "", "5"]
    assert cells["ingest"] == ["1", "", "", "", "1"]
    assert "fetch" not in cells


def test_a_job_is_running_as_long_as_its_process_is_there(project: Path, worker: Worker) -> None:
    log = write(
        "a/measured/n2v/seed-0/logs/train.log", signed(worker, "step 50 of 800: loss 0.1, validation 0.2"), 7200
    )
    model = "a/measured/n2v/seed-0/model.json"
    assert states(look()) == {model: "running"}  # however silent it is
    assert says(look(), model) == f"step 50 of 800: loss 0.1, validation 0.2; 2 h ago; {worker}"
    gone = Worker(2**22 + 1, platform.node())
    log.write_text(signed(gone, "step 50 of 800: loss 0.1, validation 0.2"))
    assert states(look()) == {model: "failed"}
    assert says(look(), model).startswith(f"killed: {gone} is gone; the last line of its log: ")
    other_program = Worker(os.getpid(), platform.node())
    if b"ssdenoise" not in Path("/proc/self/cmdline").read_bytes():
        log.write_text(signed(other_program))
        assert states(look()) == {model: "failed"}
    write(model)
    assert states(look()) == {model: "done"}


def test_what_was_done_and_whose_product_was_removed_is_left(project: Path) -> None:
    gone = Worker(2**22 + 1, platform.node())
    log = write("a/measured/logs/calibrate.log", signed(gone, "Traceback of a library", "done"))
    assert states(look()) == {}
    log.write_text(signed(gone))
    assert states(look()) == {"a/measured/calibration.json": "failed"}


def test_of_another_machine_s_job_its_silence_is_told(project: Path) -> None:
    there = Worker(7, "node-3.cluster")
    product, log = "a/measured/calibration.json", "a/measured/logs/calibrate.log"
    write(log, signed(there), 60)
    assert states(look()) == {product: "running"}
    assert says(look(), product) == f"begun; 60 s ago; {there}"
    write(log, signed(there), PATIENCE + 600)
    assert states(look()) == {product: "silent"}
    assert "silent for over half an hour" in str(look())
    assert "; 40 min ago; process 7 on node-3.cluster" in str(look())
    write(log, "", PATIENCE + 600)
    assert says(look(), product) == "begun; 40 min ago; who does it is not told"


def test_a_failed_job_has_its_reason_and_its_log(project: Path, worker: Worker) -> None:
    there = Worker(7, "node-3")
    log = write("a/measured/logs/noisy-0.log", signed(there) + "ssdenoise: a.npy cannot be read as npy\n")
    write("b/measured/logs/noisy-0.log", signed(there) + "Traceback (most recent call last):\n  x\nMemoryError: 3 GB\n")
    found = look()
    assert found.count("failed") == 2
    assert f"  ingest a/measured/noisy-0.ome.zarr: a.npy cannot be read as npy ({log})\n" in str(found)
    assert "MemoryError: 3 GB (results/r/b/measured/logs/noisy-0.log)\n" in str(found)
    # a library logged its own error, and the job goes on
    write("b/measured/logs/noisy-0.log", signed(worker) + "Traceback (most recent call last):\n  x\nOSError: again\n")
    assert states(look())["b/measured/noisy-0.ome.zarr/zarr.json"] == "running"


def test_shards_tell_how_far_a_job_is(project: Path) -> None:
    there = Worker(7, "node-3")
    layout = Layout((1, 1, 5, 40, 40), "uint16", (1, 1, 2, 16, 16), (1, 1, 4, 32, 32))
    folder = Path("results/r/a/measured/n2v/seed-0")
    writer = ShardWriter(folder / "denoised.ome.zarr", layout, "key")
    for index, region in list(writer.regions())[:3]:
        writer.write(index, np.ones([s.stop - s.start for s in region], np.uint16))
    write("a/measured/n2v/seed-0/logs/denoise-1-of-2.log", signed(there), 3600)
    (one,) = states(look()).items()
    assert one == ("a/measured/n2v/seed-0/slabs/1-of-2.json", "running")  # shards are a sign of life
    assert says(look(), one[0]).startswith("3 of 8 shards of the volume; ")
    (folder / "denoised.ome.zarr" / "0" / "zarr.json").unlink()  # as if voxels went to an object store
    assert says(look(), one[0]).startswith("3 shards of the volume; ")


def test_a_job_without_a_log_is_known_by_its_claim(project: Path, worker: Worker) -> None:
    path = Path("results/r/b/measured/n2v/seed-0/train.lock")
    with claim(path):
        assert Worker.named_in(path) == Worker.here()
    assert states(look()) == {}
    path.write_text(str(worker))
    assert states(look()) == {"b/measured/n2v/seed-0/model.json": "running"}
    path.write_text(str(Worker(2**22 + 1, platform.node())))
    assert states(look()) == {}


def test_long_lists_are_cut(project: Path) -> None:
    rows = "".join(f"d{i}\ta.npy\n" for i in range(40))
    (project / "sheet.tsv").write_text("dataset\tnoisy\n" + rows)
    for i in range(40):
        write(f"d{i}/measured/logs/noisy-0.log", "ssdenoise: no\n")
    assert str(look()).count("ssdenoise: no") == 0
    assert str(look()).count(": no (results/r/d") == 30
    assert str(look()).endswith("  and 10 more\n")


def test_another_run_s_configuration_is_refused(project: Path) -> None:
    Path("results/s").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"config\.yaml is the configuration of the run 'r', not of 's'"):
        status("s", Path("config.yaml"))
    with pytest.raises(MissingInputError, match=r"no file nowhere\.yaml; name the configuration with --configfile"):
        status("r", Path("nowhere.yaml"))
    with pytest.raises(MissingInputError, match="there is no folder"):
        status("elsewhere/r", Path("config.yaml"))


def test_a_run_is_found_by_its_folder_and_nothing_is_written(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("a/measured/calibration.json")
    before = sorted((path, path.stat().st_mtime_ns) for path in project.rglob("*"))
    (project.parent / "elsewhere").mkdir()
    monkeypatch.chdir(project.parent / "elsewhere")
    found = status(str(project / "results" / "r"), project / "config.yaml", ["noise_seed=3"])
    assert found.count("done") == 1
    assert sorted((path, path.stat().st_mtime_ns) for path in project.rglob("*")) == before


def test_the_command_line_signs_logs_and_exits_with_1_for_a_failure(project: Path) -> None:
    command = [sys.executable, "-m", "ssdenoise"]
    log = write("a/measured/logs/noisy-0.log")
    spec = json.dumps({"source": "missing.npy"})
    output = "results/r/a/measured/noisy-0.ome.zarr"
    with log.open("w") as file:
        assert subprocess.run([*command, "ingest", "--spec", spec, "--output", output], stderr=file).returncode == 2
    assert Worker.named_in(log) is not None
    assert not log.read_text().endswith(" done\n")
    done = subprocess.run([*command, "status", "r", "--configfile", "config.yaml"], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "missing.npy" in done.stdout
    with log.open("w") as file:
        spec = json.dumps({"source": "a.npy", "axes": "ZYX"})
        assert subprocess.run([*command, "ingest", "--spec", spec, "--output", output], stderr=file).returncode == 0
    assert log.read_text().endswith(" done\n")
    done = subprocess.run([*command, "status", "r", "--configfile", "config.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("r: 1 of 32 jobs are done, 31 left\n")


def test_ten_thousand_jobs_take_seconds(project: Path) -> None:
    methods = "".join(f"  n2v-{i}: {{name: n2v, masked_percent: {1 + i}}}\n" for i in range(6))
    (project / "config.yaml").write_text(CONFIG.partition("methods")[0] + "seeds: [0, 1, 2]\nmethods:\n" + methods)
    rows = "".join(f"d{i}\ta.npy\n" for i in range(120))
    (project / "sheet.tsv").write_text("dataset\tnoisy\n" + rows)
    for i in range(120):
        for product in ("noisy-0.ome.zarr/zarr.json", "calibration.json", "n2v-0/seed-0/model.json"):
            write(f"d{i}/measured/{product}")
        write(f"d{i}/measured/n2v-1/seed-0/logs/train.log", signed(Worker(7, "node-3"), "step 50 of 800"))
    started = time.perf_counter()
    found = look()
    assert time.perf_counter() - started < 5
    assert len(found.found) > 10_000
    assert (found.count("done"), found.count("running")) == (360, 120)
