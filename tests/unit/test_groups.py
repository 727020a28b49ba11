"""Volumes larger than memory, and several to a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ssdenoise.calibrate import calibrate
from ssdenoise.config.project import Project
from ssdenoise.config.specs import CalibrateSpec
from ssdenoise.errors import FormatError, SsdenoiseError
from ssdenoise.intensity import Normalization
from ssdenoise.methods import METHODS
from ssdenoise.store import Volume
from ssdenoise.train import Scene, sampling, train
from ssdenoise.train.pool import Part, Pool, parts_of
from ssdenoise.train.sampling import Sampler
from tests.conftest import CPU, make_store, scene, spec_for

UNITS = Normalization((0.0,), (1.0,))


def test_parts_cover_a_volume_and_have_room_for_patches() -> None:
    shape, shard, patch = (3, 9, 70, 45), (4, 32, 32), (3, 16, 30)
    parts = parts_of(5, shape, shard, patch, frames=1)
    covered = np.zeros(shape, int)
    for part in parts:
        assert part.scene == 5
        covered[part.region] += 1
        assert all(s.stop - s.start >= p for s, p in zip(part.region[1:], patch, strict=True))
        assert all(s.stop % b == 0 or s.stop == n for s, b, n in zip(part.region[1:], shard, shape[1:], strict=True))
    assert covered.min() == 1
    assert sum(part.voxels for part in parts) == covered.sum()


def test_a_pool_moves_on_reads_ahead_and_holds_what_the_step_says() -> None:
    parts, read = [Part(0, (slice(i, i + 1),) * 4) for i in range(7)], []

    def reads(part: Part) -> list[np.ndarray]:
        read.append(part.region[0].start)
        return [np.array(part.region[0].start)]

    pool = Pool(parts, 3, 2, reads, ("key",))
    seen = [[int(volumes[0]) for _, volumes in pool.at(step)] for step in range(40)]
    assert seen == [[int(volumes[0]) for _, volumes in Pool(parts, 3, 2, reads, ("key",)).at(s)] for s in range(40)]
    assert all(len(set(window)) == len(window) <= 3 for window in seen)
    assert seen[0] == seen[1]
    for earlier, later in zip(seen[::2], seen[2::2], strict=False):
        assert len(set(later) - set(earlier)) <= 1
    assert {number for window in seen[:14] for number in window} == set(range(7))

    read.clear()
    pool = Pool(parts, 3, 2, reads, ("key",))
    pool.at(0)
    pool._thread.shutdown(wait=True)
    assert len(read) == 4  # three that are held, and the next
    everything = Pool(parts, 10, 2, reads, ("key",))
    assert [part for part, _ in everything.at(0)] == [part for part, _ in everything.at(30)] == parts


@pytest.mark.parametrize("ndim", [2, 3])
def test_patches_of_a_volume_larger_than_the_pool_are_the_same_whenever_asked_for(
    ndim: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.arange(2 * 8 * 70 * 45, dtype=np.float32).reshape(2, 1, 8, 70, 45)
    volume = make_store(tmp_path, "labels", labels)
    monkeypatch.setattr(sampling, "POOL_BYTES", 3 * 8 * 32 * 32 * 4)
    monkeypatch.setattr(sampling, "PATCHES_PER_PART", 4)
    spec = spec_for("n2v", ndim, patch=(3, 10, 10))

    def sampler() -> Sampler:
        return Sampler(spec, spec.method, [[volume]], UNITS, (1, 1))  # type: ignore[arg-type]

    first, places = sampler(), set()
    assert 3 <= first.pool.held < len(first.pool.parts)
    batches = [first.batch(step)[0].noisy.numpy() for step in range(200)]
    for patch in np.concatenate(batches).astype(int):
        box = [np.unique(c) for c in np.unravel_index(patch, labels.shape)]
        assert np.prod([len(c) for c in box]) == patch.size  # a box of the volume
        places |= {int(box[0][0]) * 100 + int(z) for z in box[2]}
    assert places == {100 * t + z for t in range(2) for z in range(8)}
    np.testing.assert_array_equal(sampler().batch(77)[0].noisy.numpy(), batches[77])


def test_repeats_of_a_volume_larger_than_the_pool_are_of_the_same_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = np.arange(6 * 70 * 45, dtype=np.float32).reshape(1, 1, 6, 70, 45)
    volume = make_store(
        tmp_path, "repeats", places + 100_000 * np.arange(20, dtype=np.float32)[:, None, None, None, None]
    )
    monkeypatch.setattr(sampling, "POOL_BYTES", 2**16)
    monkeypatch.setattr(sampling, "PATCHES_PER_PART", 4)
    spec = spec_for("n2n", pairing="repeats")
    sampler = Sampler(spec, spec.method, [[volume]], UNITS, (4, 4))  # type: ignore[arg-type]
    times = set()
    for step in range(60):
        batch = sampler.batch(step)[0]
        assert batch.target is not None
        np.testing.assert_array_equal(batch.noisy.numpy() % 100_000, batch.target.numpy() % 100_000)
        pairs = [
            (int(a.min() // 100_000), int(b.min() // 100_000)) for a, b in zip(batch.noisy, batch.target, strict=True)
        ]
        assert all(a != b for a, b in pairs)
        times |= {time for pair in pairs for time in pair}
    assert max(times) == 19


@pytest.fixture
def two(tmp_path: Path) -> list[Scene]:
    scenes = []
    for name, brightness in (("dim", 10), ("bright", 25)):
        clean = scene((1, 1, 6, 70, 45)) / brightness
        volume = make_store(tmp_path, name, np.random.default_rng(1).poisson(clean).astype(np.uint16))
        calibrate(CalibrateSpec(), volume.path, tmp_path / f"{name}.json")
        scenes.append(Scene(volume.path, tmp_path / f"{name}.json"))
    return scenes


def test_a_model_of_a_group_sees_all_of_it(two: list[Scene], tmp_path: Path) -> None:
    spec = spec_for("n2v")
    volumes = [Volume(one.noisy) for one in two]
    sampler = Sampler(spec, spec.method, [[volume] for volume in volumes], UNITS, (4, 4))  # type: ignore[arg-type]
    means = [float(patch.mean()) for step in range(30) for patch in sampler.batch(step)[0].noisy]
    limit = np.mean([volume.read((slice(None),) * 5).mean() for volume in volumes])
    assert 15 < sum(mean > limit for mean in means) < 45
    result = train(spec, two, tmp_path / "m", CPU)
    assert {f"{what} {i}" for what in ("noisy", "calibration") for i in range(2)} == set(result["provenance"]["inputs"])
    assert result["trained_on"] == {"dataset": "d", "noise": "n", "volumes": ["dim", "bright"]}
    both = np.concatenate([volume.read((slice(None),) * 5).ravel() for volume in volumes])
    assert result["normalization"]["offset"] == pytest.approx([both.mean()], rel=0.02)
    assert train(spec_for("gaussian"), two, tmp_path / "g", CPU)["fitted"]


def test_volumes_that_are_not_alike_are_told_or_refused(
    two: list[Scene], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loud = json.loads(two[1].calibration.read_text())
    for models in (channel["models"] for channel in loud["channels"]):
        models["poisson_gaussian"] |= {"read_noise": 60.0}
    (tmp_path / "loud.json").write_text(json.dumps(loud))
    train(spec_for("n2v", steps=1), [*two, Scene(two[1].noisy, tmp_path / "loud.json")], tmp_path / "m", CPU)
    assert "bright.ome.zarr: the standard deviation of its noise is" in caplog.text
    assert caplog.text.count("standard deviation of its noise") == 1
    channels = make_store(tmp_path, "channels", np.ones((1, 2, 6, 40, 40), np.uint16))
    with pytest.raises(FormatError, match=r"2 channels.*groups of their own"):
        train(spec_for("n2v"), [*two, Scene(channels.path, two[0].calibration)], tmp_path / "m", CPU)


METHOD_ENTRIES = {"n2v": {"name": "n2v"}, "hqssl": {"name": "hqssl"}}


def project(folder: Path, sheet: str) -> Project:
    (folder / "a.npy").touch()
    (folder / "datasets.tsv").write_text(sheet)
    return Project({"run": "r", "datasets": "datasets.tsv", "methods": METHOD_ENTRIES}, folder)


def test_small_scenes_of_a_large_group_are_not_held_out_whole(tmp_path: Path) -> None:
    """Each has room for little more than a patch: to hold its only cell out would leave none of it to training."""
    spec = spec_for("n2v", patch=(1, 16, 16))
    noisy = np.random.default_rng(0).poisson(20, (1, 1, 1, 20, 20)).astype(np.uint16)
    volumes = [[make_store(tmp_path, f"{i}", noisy)] for i in range(25)]
    sampler = Sampler(spec, spec.method, volumes, UNITS, (4, 4))  # type: ignore[arg-type]
    assert not sampler.held_out
    assert len(sampler.validation()[0][0].noisy) == 2
    large = make_store(tmp_path, "large", np.zeros((1, 1, 4, 80, 80), np.uint16))
    sampler = Sampler(spec, spec.method, [*volumes, [large]], UNITS, (4, 4))  # type: ignore[arg-type]
    assert {scene for scene, *_ in sampler.held_out} == {25}
    for step in range(50):
        sampler.batch(step)


def test_a_part_without_room_is_left_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_for("n2v", patch=(1, 16, 16))
    volumes = [make_store(tmp_path, f"{i}", np.full((1, 1, 1, 20, 20), i, np.uint16)) for i in range(2)]
    sampler = Sampler(spec, spec.method, [[volume] for volume in volumes], UNITS, (4, 4))  # type: ignore[arg-type]
    monkeypatch.setattr(sampler, "held_out", {(0, 0, 0, 0, 0)})
    assert all((sampler.batch(step)[0].noisy == 1).all() for step in range(20))


def test_parts_without_room_do_not_stop_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The window holds one part at a time."""
    monkeypatch.setattr(sampling, "POOL_BYTES", 1)
    spec = spec_for("n2v", patch=(1, 16, 16))
    volumes = [make_store(tmp_path, f"{i}", np.full((1, 1, 1, 20, 20), i, np.uint16)) for i in range(2)]
    for held in ({(0, 0, 0, 0, 0)}, {(0, 0, 0, 0, 0), (1, 0, 0, 0, 0)}):
        monkeypatch.setattr(Sampler, "_chosen_cells", lambda self, held=held: ([(0, 0, 0, 0, 0)], held))
        sampler = Sampler(spec, spec.method, [[volume] for volume in volumes], UNITS, (4, 4))  # type: ignore[arg-type]
        seen = {float(sampler.batch(step)[0].noisy.max()) for step in range(0, 300, 10)}
        assert seen == ({1.0} if len(held) == 1 else {0.0, 1.0})


def test_a_group_trains_one_model_and_denoises_each(tmp_path: Path) -> None:
    found = project(tmp_path, "dataset\tnoisy\tgroup\na\ta.npy\tg\nb\ta.npy\tg\nc\ta.npy\t\nd\ta.npy\t\n")
    assert found.trained() == ["g", "c", "d"]
    assert [row.dataset for row in found.members("g")] == ["a", "b"]
    folders = {found.model_folder(*job) for job in found.jobs() if job[2] == "n2v"}
    assert folders == {f"results/r/{name}/measured/n2v/seed-0" for name in "gcd"}
    assert found.train("g", "measured", "n2v", 0).dataset == "g"


@pytest.mark.parametrize(
    ("sheet", "message"),
    [
        ("dataset\tnoisy\tgroup\na\ta.npy\tb\nb\ta.npy\t\n", "group 'b' is the name of a dataset"),
        ("dataset\tnoisy\tgroup\tndim\na\ta.npy\tg\t2\nb\ta.npy\tg\t3\n", "'a' and 'b' differ in `ndim`"),
        ("dataset\tnoisy\tgroup\tpair\na\ta.npy\tg\trepeats\nb\ta.npy\tg\t\n", "'a' and 'b' differ in `pair`"),
        ("dataset\tnoisy\tgroup\tmethods\na\ta.npy\tg\tn2v\nb\ta.npy\tg\t\n", "'a' and 'b' differ in `methods`"),
        ("dataset\tnoisy\tgroup\tmodel\na\ta.npy\tg\tb\nb\ta.npy\t\t\n", "one of the two"),
        ("dataset\tnoisy\tmodel\na\ta.npy\tnowhere\nb\ta.npy\t\n", "trains those of b"),
        ("dataset\tnoisy\tmodel\na\ta.npy\tno/where\n", "no no/where/model.json"),
        ("dataset\tnoisy\tmodel\na\ta.npy\tm/{x}\n", "in braces may stand"),
        (
            "dataset\tnoisy\tmodel\na\ta.npy\tm/{method}\n",
            "m/hqssl holds a model of n2v for 2 dimensions; needed hqssl",
        ),
    ],
)
def test_wrong_groups_and_models_are_one_line(tmp_path: Path, sheet: str, message: str) -> None:
    for entry in METHOD_ENTRIES:
        (tmp_path / "m" / entry).mkdir(parents=True)
        method = METHODS["n2v"]().model_dump()  # type: ignore[call-arg]
        (tmp_path / "m" / entry / "model.json").write_text(json.dumps({"method": method, "ndim": 2}))
        (tmp_path / "m" / entry / "model.safetensors").touch()
    with pytest.raises(SsdenoiseError, match=message.replace("{", "\\{")) as raised:
        project(tmp_path, sheet)
    assert "\n" not in str(raised.value)


def test_a_given_model_denoises_without_training(tmp_path: Path) -> None:
    (tmp_path / "m" / "n2v-3").mkdir(parents=True)
    method = METHODS["n2v"]().model_dump()  # type: ignore[call-arg]
    (tmp_path / "m" / "n2v-3" / "model.json").write_text(json.dumps({"method": method, "ndim": 2}))
    (tmp_path / "m" / "n2v-3" / "model.safetensors").touch()
    found = project(tmp_path, "dataset\tnoisy\tmodel\tmethods\na\ta.npy\tm/n2v-3\tn2v\n")
    assert found.trained() == []
    assert found.model_folder("a", "measured", "n2v", 0) == "m/n2v-3"
