"""What jobs ask for, against what they take."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ssdenoise import needs
from ssdenoise.denoise import piece_voxels, tile_bytes, tiles_of
from ssdenoise.grid import extent
from ssdenoise.methods import METHODS, Method
from ssdenoise.model import load_model
from ssdenoise.networks import UNet
from ssdenoise.pieces import bytes_per_voxel, footprint
from ssdenoise.store import Layout
from tests.conftest import CPU, make_store, scene
from tests.unit.test_denoise import make_model

SMALL = Layout.fit((1, 1, 16, 128, 128), "uint16", (16, 64, 64), (16, 128, 128))
LARGE = Layout.fit((1, 1, 2000, 2048, 2048), "uint16", (16, 128, 128), (64, 512, 512))


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", ["n2v", "neighbor2neighbor"])
def test_a_traced_step_is_as_large_as_a_real_one(name: str, ndim: int) -> None:
    method = METHODS[name]()
    net = method.build(1, ndim, [needs.placeholder_noise()])
    batch = needs.batch_of(method, ndim, 1, net.stride)  # type: ignore[arg-type]
    optimiser = torch.optim.Adam(net.parameters())

    def step() -> None:
        loss = method.loss(net, batch, torch.Generator().manual_seed(0), 0.5)  # type: ignore[attr-defined]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    assert needs.traced(method, ndim, 1).step_bytes == pytest.approx(footprint(step), rel=0.02)


def test_arithmetic_is_that_of_the_convolutions() -> None:
    takes = needs.traced(METHODS["n2v"](), 2, 1)
    net = METHODS["n2v"]().build(1, 2, [needs.placeholder_noise()])
    assert any(isinstance(module, UNet) for module in net.modules())
    size, seen = 64, list[float]()

    def count(module: torch.nn.Conv2d, inputs: object, output: torch.Tensor) -> None:
        seen.append(2 * module.weight.numel() * math.prod(output.shape[2:]))

    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        net(torch.zeros(1, 1, size, size))
    assert takes.voxel_flop == pytest.approx(sum(seen) / size**2, rel=0.01)


@pytest.mark.parametrize("method", [METHODS["n2v"](), METHODS["hqssl"](network="paper"), METHODS["nlm"]()], ids=str)
def test_larger_volumes_and_networks_ask_for_more_up_to_a_limit(method: Method) -> None:
    small, large = (
        needs.denoise(method, 2, layout, passes=1, slabs=1, threads=2, gpu=False) for layout in (SMALL, LARGE)
    )
    assert small.memory_mb < large.memory_mb < 6000
    assert small.minutes < large.minutes
    parted = needs.denoise(method, 2, LARGE, passes=1, slabs=10, threads=2, gpu=False)
    assert parted.memory_mb == large.memory_mb
    start = needs.START_MINUTES
    assert parted.minutes - start == pytest.approx((large.minutes - start) / 10, rel=0.1)
    on_gpu = needs.denoise(method, 2, LARGE, passes=1, slabs=1, threads=2, gpu=True)
    assert on_gpu.minutes <= large.minutes
    assert on_gpu.gpu_memory_mb > 0 == large.gpu_memory_mb
    held = [needs.train(method, 2, [SMALL] * n, paired=False, threads=1, gpu=False).memory_mb for n in (1, 2, 2000)]
    assert held[0] < held[1] < held[2] < 2500


def test_a_choice_asks_for_the_most_of_what_it_chooses_from() -> None:
    assert needs.largest([needs.Need(1, 5, 0), needs.Need(2, 3, 9)]) == needs.Need(2, 5, 9)


def test_an_ingest_asks_by_what_its_files_may_hold(tmp_path: Path) -> None:
    for name in ("a.npy", "a.tif", "zarr.json"):
        (tmp_path / name).write_bytes(bytes(1_000_000))
    plain, packed, zarr = (needs.ingest([str(tmp_path / name)]) for name in ("a.npy", "a.tif", "zarr.json"))
    assert plain == needs.stage("ingest", 1e6)
    assert packed == needs.stage("ingest", needs.PACKED * 1e6)
    assert zarr == needs.ingest([]) == needs.stage("ingest")


def test_a_filter_is_no_faster_on_a_gpu() -> None:
    takes = [
        needs.denoise(METHODS["nlm"](), 3, LARGE, passes=1, slabs=1, threads=4, gpu=gpu).minutes
        for gpu in (False, True)
    ]
    assert takes[0] == takes[1] > needs.START_MINUTES


def test_stages_hold_so_much_and_no_more() -> None:
    assert needs.stage("ingest", 1e6).memory_mb < needs.stage("ingest", 1e8).memory_mb
    assert (
        needs.stage("ingest", 1e12).memory_mb
        == needs.stage("ingest", 1e13).memory_mb
        == needs.stage("ingest").memory_mb
    )
    assert needs.stage("ingest", 1e12).minutes > 1000


@pytest.mark.parametrize("name", needs.SAMPLED)
def test_stages_that_read_crops_take_as_long_of_any_volume(name: str) -> None:
    assert needs.stage(name, 1e13).minutes == needs.stage(name, 1e3).minutes


@pytest.mark.parametrize("layout", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("name", ["n2v", "hqssl", "n2n", "median"])
def test_with_what_it_asks_for_or_more_inference_makes_the_same_pieces(name: str, layout: Layout) -> None:
    method = METHODS[name]()
    takes = needs.traced(method, 2, 1)
    tiles = tiles_of(layout.shape, layout.shard, (0, 0, 0, *takes.halo), (1, 1, 1, *takes.stride))
    held = tile_bytes(tiles, 2, method, CPU)
    asked = needs.denoise(method, 2, layout, passes=1, slabs=1, threads=1, gpu=False).memory_mb
    read = max(math.prod(extent(tile.read)) for tile in tiles)
    pieces = [min(read, piece_voxels(held, factor * math.ceil(asked), takes.voxel_bytes, CPU)) for factor in (1, 2, 3)]
    assert len(set(pieces)) == 1


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.trainable])
def test_traced_inference_takes_what_a_real_one_does(name: str, tmp_path: Path) -> None:
    volume = make_store(tmp_path, "noisy", scene((1, 1, 4, 32, 32)).astype(np.uint16))
    model = load_model(make_model(tmp_path, volume, name, 2))
    CPU.place_for_inference(model.net)
    assert needs.traced(model.method, 2, 1).voxel_bytes == pytest.approx(bytes_per_voxel(model), rel=1e-6)


def test_the_layout_of_a_store_is_told_by_its_record_also_by_that_of_earlier_versions(tmp_path: Path) -> None:
    volume = make_store(tmp_path, "noisy", scene((1, 1, 4, 32, 32)).astype(np.uint16))
    path = volume.path / "zarr.json"
    assert needs.layout_of(str(path)) == volume.layout
    root = json.loads(path.read_text())
    del root["attributes"]["ssdenoise"]["layout"]
    path.write_text(json.dumps(root))
    assert needs.layout_of(str(path)) == volume.layout
    with pytest.raises(FileNotFoundError) as found:
        needs.layout_of(str(tmp_path / "none" / "zarr.json"))
    assert found.value.filename == str(tmp_path / "none" / "zarr.json")  # by which Snakemake knows its input
