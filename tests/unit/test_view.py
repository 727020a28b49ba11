"""The viewer's server gives the files of finished stores in the run's folder, to this machine, and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import numpy as np
import pytest

from ssdenoise.config.specs import IngestSpec
from ssdenoise.errors import ConfigError, FormatError, MissingInputError
from ssdenoise.ingest import ingest
from ssdenoise.provenance import read_json, write_json
from ssdenoise.store import Volume
from ssdenoise.view import Choice, view
from ssdenoise.view.scenes import MOST_METHODS, scenes_of
from ssdenoise.view.server import Server
from ssdenoise.view.state import picture
from tests.conftest import ROOT, STORAGE, make_run, make_store, scene

CLEAN = scene((2, 1, 4, 70, 45)).astype(np.float32)
SHARD = "nuclei/low/noisy-0.ome.zarr/0/c/1/0/0/2/1"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of one dataset at one noise level, denoised by two entries, and a store of another origin."""
    folder = tmp_path_factory.mktemp("made")
    run = folder / "results" / "small"
    volumes = {"noisy": CLEAN + 9, "clean": CLEAN, "n2v/denoised": CLEAN + 1, "hqssl/denoised": CLEAN + 2}
    make_run(run, "nuclei", "low", volumes | {"hqssl/uncertainty": CLEAN / 50})
    make_store(folder, "outside", CLEAN)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the run, which a test may change."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "results" / "small"


@contextmanager
def serving(run: Path) -> Iterator[Server]:
    with Server(run, Choice()) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def served(made: Path) -> Iterator[Server]:
    """The run as it was made."""
    with serving(made / "results" / "small") as server:
        yield server


@pytest.fixture
def server(run: Path) -> Iterator[Server]:
    """A run that a test may change."""
    with serving(run) as server:
        yield server


@pytest.fixture(scope="module")
def baited(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The run with links that leave it, a circle of links, and stores in hidden folders."""
    folder = tmp_path_factory.mktemp("baited")
    shutil.copytree(made, folder, dirs_exist_ok=True)
    run, outside = folder / "results" / "small", folder / "outside.ome.zarr"
    (run / "leak").symlink_to(folder)
    (run / "nuclei" / "leak.ome.zarr").symlink_to(outside)
    (run / "nuclei" / "circle.ome.zarr").symlink_to("circle.ome.zarr")
    leak = run / "nuclei" / "low" / "leak-0.ome.zarr"  # a store of the run, but for one shard
    for copy in (leak, run / "nuclei" / ".hidden.ome.zarr", run / ".hidden" / "clean.ome.zarr"):
        shutil.copytree(run / "nuclei" / "clean.ome.zarr", copy)
    (leak / "0/c/0/0/0/0/0").unlink()
    (leak / "0/c/0/0/0/0/0").symlink_to(outside / "0/c/0/0/0/0/0")
    with serving(run) as server:
        assert ask(server, "/data/nuclei/low/leak-0.ome.zarr/0/c/0/0/0/1/0")[0].status == 200
        yield server


def ask(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, bytes]:
    """Response and body; the path goes out as it is."""
    connection = HTTPConnection(*server.server_address[:2], timeout=30)  # type: ignore[arg-type]
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def test_files_of_stores_come_whole(served: Server) -> None:
    for path in (SHARD, "nuclei/clean.ome.zarr/zarr.json", "nuclei/low/hqssl/seed-0/uncertainty.ome.zarr/0/zarr.json"):
        response, body = ask(served, f"/data/{path}")
        assert response.status == 200
        assert body == (served.run / path).read_bytes()
        assert response.headers["Accept-Ranges"] == "bytes"
        assert response.headers["Access-Control-Allow-Origin"] is None  # other pages must not read
    assert (served.run / SHARD).stat().st_size > 200


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=10-49", slice(10, 50)),
        ("bytes=100-", slice(100, None)),
        ("bytes=-52", slice(-52, None)),
        ("bytes=10-9999999", slice(10, None)),
        ("bytes=-9999999", slice(0, None)),
    ],
)
def test_ranges(served: Server, asked: str, part: slice) -> None:
    whole = (served.run / SHARD).read_bytes()
    response, body = ask(served, f"/data/{SHARD}", Range=asked)
    first, stop, _ = part.indices(len(whole))
    assert response.status == 206
    assert body == whole[part]
    assert response.headers["Content-Range"] == f"bytes {first}-{stop - 1}/{len(whole)}"
    head, nothing = ask(served, f"/data/{SHARD}", "HEAD", Range=asked)
    assert (head.status, nothing) == (206, b"")
    assert head.headers["Content-Length"] == response.headers["Content-Length"] == str(len(body))


@pytest.mark.parametrize("asked", ["bytes=9999999-", "bytes=9999999-99999999", "bytes=-0", "bytes=5-4"])
def test_a_range_beyond_the_file_is_refused(served: Server, asked: str) -> None:
    response, body = ask(served, f"/data/{SHARD}", Range=asked)
    assert (response.status, body) == (416, b"")
    assert response.headers["Content-Range"] == f"bytes */{(served.run / SHARD).stat().st_size}"


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,4-5", "bytes=-", "bytes=a-b", "lines=0-1", "bytes", "bytes=0-" + "9" * 5000]
)
def test_what_is_no_single_range_is_ignored(served: Server, asked: str) -> None:
    response, body = ask(served, f"/data/{SHARD}", Range=asked)
    assert response.status == 200
    assert body == (served.run / SHARD).read_bytes()


def test_a_browser_that_has_a_file_does_not_get_it_again_until_it_changes(server: Server) -> None:
    response, _ = ask(server, f"/data/{SHARD}")
    tag = response.headers["ETag"]
    response, body = ask(server, f"/data/{SHARD}", If_None_Match=tag)
    assert (response.status, body) == (304, b"")
    assert ask(server, f"/data/{SHARD}", Range="bytes=0-9", If_Range=tag)[0].status == 206
    os.utime(server.run / SHARD, ns=(1, 1))
    assert ask(server, f"/data/{SHARD}", If_None_Match=tag)[0].status == 200
    assert ask(server, f"/data/{SHARD}", Range="bytes=0-9", If_Range=tag)[0].status == 200


def test_head_is_get_without_a_body(served: Server) -> None:
    for path in ("/", "/open/nuclei/low", "/v/ssdenoise/index.html", f"/data/{SHARD}", "/nothing", "/favicon.ico"):
        (get, body), (head, nothing) = ask(served, path), ask(served, path, "HEAD")
        assert (head.status, nothing) == (get.status, b"")
        assert head.headers["Content-Length"] == get.headers["Content-Length"]
        assert int(get.headers["Content-Length"] or 0) == len(body)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
def test_nothing_can_be_written(served: Server, method: str) -> None:
    before = (served.run / SHARD).read_bytes()
    response, _ = ask(served, f"/data/{SHARD}", method)
    assert response.status == 405
    assert response.headers["Allow"] == "GET, HEAD"
    assert (served.run / SHARD).read_bytes() == before


@pytest.mark.parametrize(
    "path",
    [
        "nuclei/low/../../../../outside.ome.zarr/zarr.json",
        "../../outside.ome.zarr/zarr.json",
        "%2e%2e/%2e%2e/outside.ome.zarr/zarr.json",
        "..%2f..%2foutside.ome.zarr%2fzarr.json",
        "%252e%252e/%252e%252e/outside.ome.zarr/zarr.json",
        "..%5c..%5coutside.ome.zarr/zarr.json",
        "nuclei/%2e/clean.ome.zarr/zarr.json",
        "{outside}/zarr.json",
        "/{outside}/zarr.json",
        "%2f{outside}/zarr.json",
        "nuclei/leak.ome.zarr/zarr.json",
        "nuclei/leak.ome.zarr/0/zarr.json",
        "leak/outside.ome.zarr/zarr.json",
        "nuclei/low/leak-0.ome.zarr/0/c/0/0/0/0/0",
        "nuclei/.hidden.ome.zarr/zarr.json",
        ".hidden/clean.ome.zarr/zarr.json",
        "nuclei/low/noisy-0.ome.zarr.shards/0/{record}",
        "nuclei/low/noisy-0.npy",
        "nuclei/low/noisy-0.ome.zarr/zarr.json%00.txt",
        "nuclei/low/noisy-0.ome.zarr/zarr.json/",
        "nuclei/low/noisy-0.ome.zarr/",
        "nuclei/low/noisy-0.ome.zarr",
        "nuclei/low/noisy-0.ome.zarr/0/c/1/0/0/2",
        "nuclei/low/",
        "nuclei/circle.ome.zarr/zarr.json",
        "nuclei/{long}.ome.zarr/zarr.json",
        "",
    ],
)
def test_nothing_else_is_served(baited: Server, path: str) -> None:
    outside, records = baited.run.parents[1] / "outside.ome.zarr", baited.run / "nuclei/low/noisy-0.ome.zarr.shards/0"
    record = next(path.name for path in records.iterdir() if path.is_file())
    response, body = ask(baited, f"/data/{path.format(outside=outside, record=record, long='n' * 300)}")
    assert (response.status, body) == (404, b"")


@pytest.mark.parametrize("path", ["/v/ssdenoise/../server.py", "/v/ssdenoise/%2e%2e/__init__.py", "/etc/passwd", "/v/"])
def test_nor_is_anything_beside_the_client(served: Server, path: str) -> None:
    assert ask(served, path)[0].status == 404


def test_a_link_within_the_folder_is_followed(server: Server) -> None:
    (server.run / "nuclei" / "again.ome.zarr").symlink_to("clean.ome.zarr")
    assert ask(server, "/data/nuclei/again.ome.zarr/zarr.json")[0].status == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "[::1]", ""])
def test_pages_that_give_this_address_another_name_get_nothing(served: Server, host: str) -> None:
    response, body = ask(served, "/data/nuclei/clean.ome.zarr/zarr.json", Host=host)
    assert response.status == 403
    assert b"ome" not in body


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:{port}", "localhost:8000"])
def test_names_of_this_machine_and_forwarded_ports_are_served(served: Server, host: str) -> None:
    host = host.format(port=served.server_address[1])
    response, body = ask(served, "/open/nuclei/low", Host=host)
    assert response.status == 200
    assert f"http://{host}/data/nuclei/low/noisy-0.ome.zarr/|zarr3:" in body.decode()


def test_no_other_machine_reaches_it(served: Server) -> None:
    address, port = served.server_address[:2]
    assert address == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port))
    with pytest.raises(ConfigError, match=f"--port {port} cannot be had"):
        Server(served.run, Choice(), int(port))


def test_pages_may_ask_nobody_else(served: Server) -> None:
    for path in ("/", "/open/nuclei/low", "/v/ssdenoise/"):
        policy = ask(served, path)[0].headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self' data: blob:; script-src 'self' ")
        assert "http" not in policy


def test_unfinished_stores_are_not_shown_until_they_are_finished(server: Server) -> None:
    commit = server.run / "nuclei/low/hqssl/seed-0/denoised.ome.zarr/zarr.json"
    record = commit.read_text()
    shard = f"/data/{commit.parent.relative_to(server.run)}/0/c/0/0/0/0/0"
    assert ask(server, shard)[0].status == 200
    commit.unlink()
    assert ask(server, shard)[0].status == 404
    assert b"seed 0: noisy, n2v, clean volume" in ask(server, "/")[1]
    commit.write_text(record)
    assert b"seed 0: noisy, hqssl, n2v, hqssl uncertainty, clean volume" in ask(server, "/")[1]


def test_the_stream_of_events_stays_open_until_the_server_stops(server: Server) -> None:
    connection = HTTPConnection(*server.server_address[:2], timeout=30)  # type: ignore[arg-type]
    connection.request("GET", "/events/ssdenoise?c=1")
    response = connection.getresponse()
    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.read(3) == b":\n\n"
    server.shutdown()
    assert response.read() == b""
    connection.close()


def state_of(server: Server, name: str) -> dict[str, object]:
    """What the page that opens a scene goes on with."""
    response, body = ask(server, f"/open/{name}")
    assert response.status == 200
    match = re.search(r'<script type="application/json" id="shown">(.*?)</script>', body.decode())
    assert match is not None
    shown: dict[str, object] = json.loads(match[1])
    return shown


def test_panes_are_linked_and_images_have_the_range_of_the_first_denoised(served: Server) -> None:
    shown = state_of(served, "nuclei/low")
    state = shown["state"]
    assert isinstance(state, dict)
    panes = ["noisy", "hqssl", "n2v", "hqssl uncertainty", "clean volume"]
    assert [layer["name"] for layer in state["layers"]] == panes
    groups = [group for row in state["layout"]["children"] for group in row["children"]]
    assert [group["layers"] for group in groups] == [[pane] for pane in panes]
    assert all(group.keys() == {"type", "layers", "layout"} for group in groups)  # no position or zoom of its own
    assert (shown["rows"], shown["columns"], shown["width"], shown["height"]) == (2, 3, 45, 70)
    assert state["position"] == [22, 34.5, 2, 0]
    ranges = {layer["name"]: layer["shaderControls"]["range"]["range"] for layer in state["layers"]}
    first = Volume(served.run / "nuclei/low/hqssl/seed-0/denoised.ome.zarr").intensities()[0]
    assert ranges["noisy"] == ranges["hqssl"] == ranges["n2v"] == ranges["clean volume"]
    assert ranges["noisy"] == [first.quantile(0.001), first.quantile(0.999)]
    of_uncertainty = Volume(served.run / "nuclei/low/hqssl/seed-0/uncertainty.ome.zarr").intensities()[0]
    assert ranges["hqssl uncertainty"] == [0, of_uncertainty.quantile(0.999)]


def test_voxel_size_and_channels_are_those_of_the_store(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "cells" / "measured"
    folder.mkdir(parents=True)
    np.save(tmp_path / "v.npy", np.concatenate([CLEAN, CLEAN * 3], axis=1))
    spec = IngestSpec(source=str(tmp_path / "v.npy"), voxel_size_um=(2.0, 0.25, 0.5), storage=STORAGE)
    ingest(spec, folder / "noisy-0.ome.zarr", root=Path("/"))
    (of_scene,) = scenes_of(tmp_path / "run", Choice())
    shown = picture(of_scene, "run", ["http://127.0.0.1/x/"])
    assert shown.state["dimensions"] == {"x": [5e-7, "m"], "y": [2.5e-7, "m"], "z": [2e-6, "m"], "t": [1, ""]}
    assert (shown.width, shown.height) == (45 * 2, 70)  # a pixel is as wide as two are high
    dim, bright = shown.state["layers"]
    assert [dim["localPosition"], bright["localPosition"]] == [[0], [1]]
    assert [dim["blend"], bright["blend"]] == ["additive", "additive"]
    assert '"#00FF00"' in dim["shader"]
    assert '"#FF00FF"' in bright["shader"]
    of = [volume.quantile(0.999) for volume in Volume(folder / "noisy-0.ome.zarr").intensities()]
    assert [layer["shaderControls"]["range"]["range"][1] for layer in (dim, bright)] == of
    assert shown.state["layout"]["children"][0]["children"][0]["layers"] == [dim["name"], bright["name"]]
    assert shown.state["crossSectionBackgroundColor"] == "#000000"


def test_what_is_chosen_is_shown_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    run, entries = tmp_path / "run", ["a", "b", "c", "d", "e", "f"]
    make_run(run, "v", "low", {"noisy": CLEAN} | {f"{entry}/denoised": CLEAN for entry in entries})
    make_run(run, "v", "high", {"noisy": CLEAN})
    shutil.copytree(run / "v/low/b/seed-0", run / "v/low/b/seed-3")
    high, low = scenes_of(run, Choice("v"))
    assert (high.name, [pane.title for pane in high.panes]) == ("v/high", ["noisy"])
    assert [pane.title for pane in low.panes] == ["noisy", *entries[:MOST_METHODS]]
    assert low.description.endswith("at most 4 methods, left out: e, f")
    (low,) = scenes_of(run, Choice("v", "low", ("e", "b")))
    assert low.description == "seed 0: noisy, b, e"
    (low,) = scenes_of(run, Choice("v", "low", seed=3))
    assert low.panes[1].store == run / "v/low/b/seed-3/denoised.ome.zarr"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice("cells"), "no finished volume of dataset 'cells'; there are: nuclei"),
        (Choice("nuclei", "high"), "noise level 'high'; there are: low"),
        (Choice(methods=("n2v", "n2n")), "method entry 'n2n'; there are: hqssl, n2v"),
        (Choice(seed=7), "seed 7; there are: 0"),
    ],
)
def test_what_a_run_does_not_have_is_told(run: Path, choice: Choice, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        scenes_of(run, choice)


def test_stores_that_cannot_be_shown_are_told(server: Server, tmp_path: Path) -> None:
    make_run(server.run, "half", "measured", {"noisy": CLEAN.astype(np.float16)})
    with pytest.raises(FormatError, match=r"noisy-0.ome.zarr is float16; Neuroglancer draws uint8, uint16, int16"):
        view(str(server.run), Choice("half"), browser=False)
    make_run(server.run, "far", "measured", {"noisy": CLEAN})
    commit = server.run / "far/measured/noisy-0.ome.zarr/zarr.json"
    record = read_json(commit)
    record["attributes"]["ssdenoise"] |= {"stored_under": "s3://bucket", "stored_at": "s3://bucket/far"}
    write_json(commit, record)
    with pytest.raises(FormatError, match="lie at s3://bucket/far"):
        view(str(server.run), Choice("far"), browser=False)
    index = ask(server, "/")[1].decode()
    assert "is float16" in index
    assert "lie at s3://bucket/far" in index
    assert '<a href="/open/nuclei/low">' in index
    response, body = ask(server, "/open/half/measured")
    assert response.status == 409
    assert "is float16" in body.decode()
    assert ask(server, "/open/nuclei/high")[0].status == 404


def test_runs_that_are_not_there_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingInputError, match="no folder results/small, nor small"):
        view("small", Choice())
    (tmp_path / "results" / "small").mkdir(parents=True)
    with pytest.raises(MissingInputError, match=r"results/small has no finished noisy volume"):
        view("small", Choice())


def test_a_viewer_that_is_not_installed_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "neuroglancer", None)
    with pytest.raises(ConfigError, match=re.escape("`pip install ssdenoise[view]`")):
        view(str(run), Choice())


def test_the_verb_serves_until_it_is_interrupted(run: Path) -> None:
    command = [sys.executable, "-m", "ssdenoise", "view", "small", "nuclei", "--no-browser"]
    environment, pipe = os.environ | {"PYTHONPATH": str(ROOT)}, subprocess.PIPE
    interruptible = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what is started in the background is not
    with subprocess.Popen(
        command, cwd=run.parents[1], env=environment, stdout=pipe, stderr=pipe, text=True, preexec_fn=interruptible
    ) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            match = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/open/nuclei/low", address)
            assert match is not None, address
            connection = HTTPConnection("127.0.0.1", int(match[1]), timeout=30)
            connection.request("GET", "/open/nuclei/low")
            assert connection.getresponse().status == 200
            connection.close()
        finally:
            process.send_signal(signal.SIGINT)
        try:
            _, told = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode == 0, told
    assert "nuclei/low, seed 0: noisy, hqssl, n2v, hqssl uncertainty, clean volume" in told
    assert "Traceback" not in told
