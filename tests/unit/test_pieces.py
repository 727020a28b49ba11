"""What passes the network at once, and who runs it: neither changes what is written."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssdenoise import denoise as stage
from ssdenoise import pieces
from ssdenoise.commit import commit
from ssdenoise.config.specs import DenoiseSpec, Storage
from ssdenoise.denoise import crew, denoise
from ssdenoise.errors import TooLittleMemory
from ssdenoise.grid import ceil_to, extent
from ssdenoise.methods import METHODS, Estimate, Method, Network
from ssdenoise.model import Model, load_model
from ssdenoise.pieces import Pieces, bytes_per_voxel, pieces_of
from ssdenoise.store import Volume
from tests.conftest import CPU, NOISE, make_store, scene
from tests.unit.test_denoise import FLOAT, make_model, run

EVERYTHING = (slice(None),) * 5


@given(
    st.tuples(*[st.integers(1, 3), st.just(2), st.integers(1, 20), st.integers(1, 90), st.integers(1, 90)]),
    st.tuples(*[st.just(0), st.just(0), st.integers(0, 5), st.integers(0, 20), st.integers(0, 20)]),
    st.tuples(*[st.just(1), st.just(1), st.just(1), st.sampled_from([1, 4, 8]), st.sampled_from([1, 4, 8])]),
    st.tuples(*[st.booleans()] * 3),
    st.integers(1, 10**5),
)
def test_pieces_cover_a_tile_once_and_fit(
    shape: tuple[int, ...], halo: tuple[int, ...], stride: tuple[int, ...], inner: tuple[bool, ...], voxels: int
) -> None:
    """A tile within a volume has its halo all around, one at the end of it ends where the volume does."""
    before = [ceil_to(h, s) if own else 0 for h, s, own in zip(halo, stride, (False, False, *inner), strict=True)]
    core = tuple(slice(b, b + n) for b, n in zip(before, shape, strict=True))
    pieces = pieces_of(core, tuple(s.stop for s in core), halo, stride, voxels)
    covered = np.zeros([s.stop for s in core], int)
    for piece in pieces:
        covered[piece.core] += 1
        smallest = all(n <= s for n, s in zip(extent(piece.core)[2:], stride[2:], strict=True))
        assert np.prod(extent(piece.read)[2:]) <= voxels or smallest
    assert (covered[core] == 1).all()
    assert covered.sum() == np.prod(shape)


def test_pieces_are_cut_where_halos_cost_least() -> None:
    core, halo, stride = (
        (slice(0, 1), slice(0, 1), *map(slice, (0, 0, 0), (64, 512, 512))),
        (0, 0, 5, 24, 24),
        (1, 1, 1, 4, 4),
    )
    for voxels in (10**6, 2 * 10**6, 4 * 10**6):
        pieces = pieces_of(core, (1, 1, 64, 512, 512), halo, stride, voxels)
        overhead = sum(np.prod(extent(piece.read)) for piece in pieces) / (64 * 512 * 512)
        halved = [  # z, y, x in so many parts
            np.prod([(n + 2 * h * (k - 1)) / n for n, h, k in zip((64, 512, 512), halo[2:], parts, strict=True)])
            for parts in itertools.product((1, 2, 4, 8), repeat=3)
            if np.prod([min(n // k + 2 * h, n) for n, h, k in zip((64, 512, 512), halo[2:], parts, strict=True)])
            <= voxels
        ]
        assert overhead <= min(halved) + 1e-9


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", ["nlm", "n2v", "hqssl", "sasl"])
def test_small_pieces_equal_large_ones(name: str, ndim: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = np.random.default_rng(0).poisson(scene((1, 2, 5, 93, 131)) / 20).astype(np.uint16)
    volume = make_store(tmp_path, "noisy", noisy, Storage(chunk=(2, 16, 16), shard=(6, 64, 128)))
    model = make_model(tmp_path, volume, name, ndim)
    passed, real = [], pieces.estimate

    def counted(model: Model, noisy: np.ndarray, *rest: object) -> object:
        passed.append(noisy.shape)
        return real(model, noisy, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(pieces, "estimate", counted)
    large, whole = run(FLOAT, volume, model, tmp_path / "large").read(EVERYTHING), len(passed)
    passed.clear()
    monkeypatch.setattr(stage, "PIECE_VOXELS", 10_000 if ndim == 2 else 60_000)
    monkeypatch.setattr(stage, "LEAST_VOXELS", 1)
    small = run(FLOAT, volume, model, tmp_path / "small").read(EVERYTHING)
    assert len(passed) >= 2 * whole
    assert np.abs(small - large).max() < 1e-5 * noisy.std()


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].trainable])
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_fused_network_gives_the_same(name: str, ndim: int) -> None:
    for network in ("small", "paper"):
        method = METHODS[name](network=network, **({"radius": 1} if name == "sasl" else {}))  # type: ignore[call-arg]
        net = method.build(1, ndim, [NOISE]).eval()
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
                module.running_mean.normal_()  # type: ignore[union-attr, operator]
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
        size = [max(s, 8) if s > 1 else 4 for s in net.stride]
        noisy = torch.randn(1, 1, *size)
        with torch.no_grad():
            expected = method.denoise(net, noisy).mean
            CPU.place_for_inference(net)
            found = method.denoise(net, CPU.send_for_inference(noisy)).mean
        assert (found - expected).abs().max() < 1e-4 * expected.std()


def test_memory_is_measured_as_the_tensors_alive_at_once(counts: Volume, tmp_path: Path) -> None:
    model = load_model(make_model(tmp_path, counts, "n2v", 2))
    CPU.place_for_inference(model.net)
    per_voxel = bytes_per_voxel(model)
    width = model.net.unet.encoder[0][0].conv.out_channels  # type: ignore[union-attr, index]
    # the first convolution after the last skip reads twice the width and writes once
    assert 3 * width * 4 <= per_voxel / (1 + pieces.WORKSPACE) <= 5 * width * 4


def test_out_of_memory_halves_the_pieces_and_goes_on(
    counts: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = make_model(tmp_path, counts, "n2v", 2)
    expected = run(FLOAT, counts, model, tmp_path / "enough").read(EVERYTHING)
    real = Method.denoise

    def fits(self: Method, net: Network, noisy: torch.Tensor) -> Estimate:
        if noisy.numel() > 3000:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, net, noisy)

    monkeypatch.setattr(Method, "denoise", fits)
    monkeypatch.setattr(stage, "bytes_per_voxel", lambda model: 100.0)
    found = run(FLOAT, counts, model, tmp_path / "scarce").read(EVERYTHING)
    assert np.abs(found - expected).max() < 1e-5 * expected.std()
    assert "going on with pieces of" in caplog.text
    assert 1 < caplog.text.count("going on with pieces") < 8  # the next tile begins with what has fitted

    def never(self: Method, net: Network, noisy: torch.Tensor) -> Estimate:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Method, "denoise", never)
    with pytest.raises(TooLittleMemory, match="use a smaller network"):
        run(FLOAT, counts, model, tmp_path / "none")


def test_less_memory_means_smaller_pieces(
    counts: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, limits, real = make_model(tmp_path, counts, "n2v", 2), [], Pieces.__init__

    def noted(self: Pieces, model: Model, device: object, voxels: int) -> None:
        limits.append(voxels)
        real(self, model, device, voxels)  # type: ignore[arg-type]

    monkeypatch.setattr(Pieces, "__init__", noted)
    for memory in (1000, 4000, 100):
        denoise(FLOAT, counts.path, model, tmp_path / f"{memory}", CPU, memory_mb=memory)
    assert limits == [limits[0], stage.PIECE_VOXELS, stage.LEAST_VOXELS]
    assert stage.LEAST_VOXELS < limits[0] < stage.PIECE_VOXELS
    assert "granted are 100 MB of memory, 8" in caplog.text


def test_empty_shards_are_copied(tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).poisson(scene((1, 2, 4, 64, 96)) / 20).astype(np.uint16)
    noisy[..., :64] = np.random.default_rng(1).poisson(2, noisy[..., :64].shape)
    noisy[0, 1, 0, 0, 0] = 50  # a single bright voxel in one of the channels is not nothing
    volume = make_store(tmp_path, "noisy", noisy)
    model = make_model(tmp_path, volume, "hqssl", 2)
    spec = DenoiseSpec(denoised_dtype="float32", empty_below=20)
    denoised = run(spec, volume, model, tmp_path / "out")
    full = run(FLOAT, volume, model, tmp_path / "full").read(EVERYTHING)
    found, empty = denoised.read(EVERYTHING), np.zeros((64, 96), bool)
    empty[:, :64] = True
    empty[:32, :32] = False
    np.testing.assert_array_equal(found[..., empty], noisy[..., empty])
    np.testing.assert_array_equal(found[..., ~empty], full[..., ~empty])
    uncertainty = Volume(tmp_path / "out" / "uncertainty.ome.zarr").read(EVERYTHING)
    assert (uncertainty[..., empty] == 0).all()
    assert (uncertainty[..., ~empty] > 0).all()
    assert denoised.record["copied_voxels"] == 2 * 4 * empty.sum()
    assert Volume(tmp_path / "full" / "denoised.ome.zarr").record["copied_voxels"] == 0


@pytest.mark.slow
def test_workers_give_the_same_bits(counts: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    monkeypatch.setattr(stage, "TILE_VOXELS", 1)
    model = make_model(tmp_path, counts, "hqssl", 2)
    expected = run(FLOAT, counts, model, tmp_path / "alone").digest

    def finished(output: Path) -> str:
        return str(commit(counts.path, [output / "slabs" / "0-of-1.json"], "denoised", output)["digest"])

    result = denoise(FLOAT, counts.path, model, tmp_path / "two", CPU, workers=2)
    assert result["provenance"]["peak_memory_mb"] > 100
    assert finished(tmp_path / "two") == expected
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0") as cluster:
        address = cluster.scheduler_address
        denoise(FLOAT, counts.path, model, tmp_path / "scheduler", CPU, scheduler=address)
    assert finished(tmp_path / "scheduler") == expected


def test_workers_of_one_machine_take_its_gpus_in_turn() -> None:
    """Two of `workers`, two of a job of dask-jobqueue with two GPUs, and one that has a name of its own."""
    assert [crew.number_of(name) for name in (0, 1)] == [0, 1]
    assert [crew.number_of(f"SLURMCluster-7-{i}") for i in (0, 1)] == [0, 1]
    assert [crew.number_of(name) for name in ("tcp://10.0.0.1:40123", "gpu-of-mine")] == [0, 0]
