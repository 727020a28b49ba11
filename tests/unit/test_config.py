"""Configuration: one clear line for each mistake, and a schema that is in step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssdenoise.config.models import read_sheet, schema
from ssdenoise.config.project import Project
from ssdenoise.config.specs import DenoiseSpec, IngestSpec, Storage, dump, parse_spec
from ssdenoise.errors import ConfigError, SsdenoiseError
from tests.conftest import ROOT

HEADER = ("dataset", "clean", "noisy", "reference", "pair", "methods", "slabs", "noise")


def project(tmp_path: Path, config: dict[str, Any] | None = None, **row: str) -> Project:
    (tmp_path / "a.npy").touch()
    cells = {"dataset": "d", "noisy": "a.npy"} | row
    header = [*HEADER, *(name for name in cells if name not in HEADER)]
    sheet = "\t".join(header) + "\n" + "\t".join(cells.get(name, "") for name in header) + "\n"
    (tmp_path / "datasets.tsv").write_text(sheet)
    base = {"run": "r", "datasets": "datasets.tsv", "methods": {"n2v": {"name": "n2v"}}}
    return Project(base | (config or {}), tmp_path)


def test_the_schema_is_in_step() -> None:
    assert (ROOT / "config" / "schema.json").read_text() == schema(), "run `make schema`"


def test_every_key_of_the_config_is_explained() -> None:
    text = (ROOT / "config" / "README.md").read_text()
    keys = set()

    def walk(value: object) -> None:
        if isinstance(value, dict):
            keys.update(value.get("properties", {}))
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(yaml.safe_load(schema()))
    assert {key for key in keys if f"`{key}`" not in text} == set()


def test_every_column_of_the_sheet_is_explained() -> None:
    from ssdenoise.config.models import Dataset

    text = (ROOT / "config" / "README.md").read_text()
    assert {name for name in Dataset.model_fields if f"`{name}`" not in text} == set()


def test_the_demo_is_a_valid_project() -> None:
    demo = Project(yaml.safe_load((ROOT / "config" / "config.yaml").read_text()), ROOT)
    assert {row.situation for row in demo.datasets.values()} == {"benchmark", "reference", "archive"}


@pytest.mark.parametrize("protocol", sorted((ROOT / "config" / "protocols").glob("*.yaml")), ids=lambda p: p.stem)
def test_protocols_are_valid_projects(protocol: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(protocol.read_text()) | {"data": str(tmp_path)}
    rows = read_sheet(ROOT / config["datasets"])
    sources = {source for row in rows for source in (row.clean, row.noisy, row.reference) if source}
    for source in sources:
        file = tmp_path / source.partition("#")[0].replace("*", "1")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    found = Project(config, ROOT)
    assert found.jobs()
    for source in sources:
        located = found.located(source).partition("#")[0]
        assert located in found.downloaded or found.files(located) == [located.replace("*", "1")]


def test_a_dataset_can_take_another_one_s_models(tmp_path: Path) -> None:
    (tmp_path / "a.npy").touch()
    (tmp_path / "datasets.tsv").write_text("dataset\tnoisy\tmodel\na\ta.npy\t\nb\ta.npy\ta\n")
    found = Project({"run": "r", "datasets": "datasets.tsv", "methods": {"n2v": {"name": "n2v"}}}, tmp_path)
    assert [found.model_folder(name, "measured", "n2v", 0).split("/")[2] for name in found.datasets] == ["a", "a"]
    assert len(found.jobs()) == 2


def test_a_dataset_can_be_there_for_training_only(tmp_path: Path) -> None:
    def found(sheet: str) -> Project:
        (tmp_path / "a.npy").touch()
        (tmp_path / "datasets.tsv").write_text(f"dataset\tnoisy\tmodel\ttrain_only\n{sheet}")
        return Project({"run": "r", "datasets": "datasets.tsv", "methods": {"n2v": {"name": "n2v"}}}, tmp_path)

    assert found("a\ta.npy\t\ttrue\nb\ta.npy\ta\t\n").jobs() == [("b", "measured", "n2v", 0)]
    with pytest.raises(SsdenoiseError, match="no other takes its models"):
        found("a\ta.npy\t\ttrue\nb\ta.npy\t\t\n")
    with pytest.raises(SsdenoiseError, match="one of the two"):
        found("a\ta.npy\tb\ttrue\nb\ta.npy\ta\ttrue\n")
    with pytest.raises(SsdenoiseError, match="train_only"):
        found("a\ta.npy\t\tyes, please\nb\ta.npy\ta\t\n")


def test_what_denoises_by_the_models_of_others_needs_no_pairs(tmp_path: Path) -> None:
    (tmp_path / "a.npy").touch()
    (tmp_path / "datasets.tsv").write_text("dataset\tnoisy\tpair\tmodel\na\ta.npy\trepeats\t\nb\ta.npy\t\ta\n")
    found = Project({"run": "r", "datasets": "datasets.tsv", **N2N}, tmp_path)
    assert found.jobs() == [("a", "measured", "n2n", 0), ("b", "measured", "n2n", 0)]


def test_where_pairs_come_from(tmp_path: Path) -> None:
    def row(pair: str) -> object:
        return project(tmp_path, N2N, pair=pair).train("d", "measured", "n2n", 0)

    assert (row("thinning").pairing, row("thinning").photon_gain) == ("thinning", 1.0)  # type: ignore[attr-defined]
    assert row("thinning=2.5").photon_gain == 2.5  # type: ignore[attr-defined]
    assert row("thinning=calibrated").photon_gain == "calibrated"  # type: ignore[attr-defined]
    assert row("repeats").pairing == "repeats"  # type: ignore[attr-defined]
    assert row("interleaved").pairing == "interleaved"  # type: ignore[attr-defined]
    assert row("a.npy").pairing == "volume"  # type: ignore[attr-defined]
    assert project(tmp_path, N2N, pair="repeats").calibrate("d").repeats
    assert not project(tmp_path, N2N, pair="interleaved").calibrate("d").repeats


N2N = {"methods": {"n2n": {"name": "n2n"}}}
WRONG = [
    pytest.param({"rn": "x"}, {}, "config: rn: unknown key", id="unknown-key"),
    pytest.param(
        {"methods": {"n2v": {"name": "n2v", "raduis": 2}}},
        {},
        "methods.n2v.n2v.raduis: unknown key; did you mean 'radius'?",
        id="unknown-option",
    ),
    pytest.param({"methods": {"n2v": {"name": "n3v"}}}, {}, "n3v", id="unknown-method"),
    pytest.param({"methods": {"n2v": {"name": "n2v", "steps": 0}}}, {}, "steps", id="bad-value"),
    pytest.param({"seeds": [0, 0]}, {}, "seeds: 0 stands there more than once", id="seed-twice"),
    pytest.param({"methods": {"noisy": {"name": "n2v"}}}, {}, "'noisy' is no name for a method entry", id="reserved"),
    pytest.param(
        {"noise": {"measured": {"kind": "gaussian", "sigma": 1}}}, {}, "'measured' is no name", id="reserved-level"
    ),
    pytest.param({}, {"methods": "n2v,n2v"}, "n2v stands there more than once", id="entry-twice"),
    pytest.param({"run": "a/b"}, {}, "config: run", id="run-name"),
    pytest.param({"methods": {"n2c": {"name": "n2c"}}}, {}, "has no clean volume, which 'n2c' needs", id="no-clean"),
    pytest.param(
        {"methods": {"median": {"name": "median", "sizes": [4]}}}, {}, "4 is even; a window", id="even-median"
    ),
    pytest.param(N2N, {}, "offers no pairs, which 'n2n' needs", id="no-pairs"),
    pytest.param(
        {"methods": {"n2n": {"name": "n2n", "both_directions": True}}},
        {"pair": "repeats"},
        "no second realization as a volume, which `both_directions` of 'n2n' denoises",
        id="both-directions-of-repeats",
    ),
    pytest.param(
        {"methods": {"n2v": {"name": "n2v", "planes": 3}}}, {}, "has `ndim` 2, where 'n2v' sees no", id="planes-in-2d"
    ),
    pytest.param({}, {"noisy": "b.npy"}, "no file b.npy", id="missing-file"),
    pytest.param({}, {"dataset": "a/b"}, "row 1: dataset: a name has letters, digits", id="slash"),
    pytest.param({"methods": {"n": {"name": "n2vv"}}}, {}, "methods.n: unknown name; did you mean 'n2v'", id="method"),
    pytest.param({}, {"noisy": "folder"}, "is a folder; name its files by a pattern", id="folder"),
    pytest.param({}, {"dataset": ".."}, "row 1: dataset", id="dots"),
    pytest.param({}, {"dataset": "a b"}, "row 1: dataset", id="space"),
    pytest.param({}, {"dataset": "a;rm"}, "row 1: dataset", id="semicolon"),
    pytest.param({}, {"methods": "n2v,nope"}, "names the method entry 'nope'", id="unknown-entry"),
    pytest.param({}, {"clean": "a.npy"}, "not both", id="clean-and-noisy"),
    pytest.param({}, {"noisy": ""}, "needs either", id="no-source"),
    pytest.param({}, {"noisy": "", "nosy": "a.npy"}, "nosy: unknown key; did you mean 'noisy'?", id="misspelt"),
    pytest.param({}, {"slabs": "0"}, "slabs", id="slabs"),
    pytest.param(N2N, {"pair": "thinning=0"}, "after `thinning=` comes a gain above 0", id="gain-zero"),
    pytest.param(N2N, {"pair": "thinning=x"}, "after `thinning=` comes a gain above 0", id="gain-word"),
    pytest.param(N2N, {"pair": "thinning=inf"}, "after `thinning=` comes a gain above 0", id="gain-infinite"),
    pytest.param(N2N, {"pair": "thinning="}, "after `thinning=` comes a gain above 0", id="gain-missing"),
    pytest.param(N2N, {"pair": "repeats=5"}, "nothing comes after `repeats`", id="repeats-of"),
    pytest.param({}, {"voxel_size_um": "1,0,1"}, "voxel_size_um.1: Input should be greater", id="voxel-size"),
    pytest.param({"methods": {"n": {"name": "n2v", "patch": [8, -64, 64]}}}, {}, "patch.1: Input should", id="patch"),
    pytest.param(
        {"methods": {"n": {"name": "n2v", "learning_rate": float("inf")}}}, {}, "should be a finite", id="infinite"
    ),
    pytest.param({"methods": {"g": {"name": "gaussian", "sigmas": [-1]}}}, {}, "sigmas.0: Input should", id="sigmas"),
    pytest.param(
        {"methods": {"n": {"name": "nlm", "strengths": [0]}}}, {}, "strengths.0: Input should", id="strengths"
    ),
    pytest.param(
        {"noise": {"n": {"kind": "gaussian", "sigma": [50, 5]}}}, {}, "is a range from low to high", id="sigma-range"
    ),
    pytest.param(
        {"noise": {"n": {"kind": "gaussian", "sigma": 3, "psnr": 20}}},
        {},
        "noise.n.gaussian: needed exactly one of `sigma`, `psnr`, `snr`; given: `sigma` and `psnr`",
        id="two-levels",
    ),
    pytest.param(
        {"noise": {"n": {"kind": "poison", "peak": 3}}}, {}, "noise.n: unknown kind; did you mean 'poisson'", id="kind"
    ),
    pytest.param(
        {"noise": {"n": {"kind": "gaussian", "sigma": 3, "bits": 17}}}, {}, "bits: Input should be less", id="bits"
    ),
    pytest.param(
        {"noise": {"n": {"kind": "impulse", "share": 0.5, "low": 2, "high": 2}}},
        {},
        "`high` must be above `low`",
        id="impulse-range",
    ),
    pytest.param(
        {"methods": {"h": {"name": "hqssl", "parameters": "known"}}}, {}, "its parameters are not known", id="known"
    ),
    pytest.param(
        {
            "methods": {"h": {"name": "hqssl", "parameters": "known"}},
            "noise": {"rows": {"kind": "striped", "sigma": 1}},
        },
        {"noisy": "", "clean": "a.npy"},
        "of 'rows' it is described by no likelihood",
        id="known-of-correlated",
    ),
    pytest.param(
        {
            "methods": {"h": {"name": "hqssl", "parameters": "known", "likelihood": "gaussian"}},
            "noise": {"faint": {"kind": "poisson", "peak": 5}},
        },
        {"noisy": "", "clean": "a.npy"},
        "of 'faint' it is described by poisson, poisson_gaussian",
        id="known-of-photons",
    ),
    pytest.param(
        {"methods": {"s": {"name": "structn2v", "replacement": "median", "radius": 1, "mask": [[[1] * 3] * 3]}}},
        {},
        "`mask` covers all neighbours",
        id="mask-too-large",
    ),
    pytest.param(
        {}, {"model": "x"}, "takes its models from 'x'; the sheet trains those of no dataset", id="model-of-nothing"
    ),
    pytest.param({}, {"model": "d"}, "the sheet trains those of no dataset", id="model-of-itself"),
    pytest.param({}, {"noisy": "*.tif"}, "no file *.tif", id="empty-pattern"),
    pytest.param(
        {"methods": {"h": {"name": "hqssl", "likelihood": "impulse"}}},
        {},
        "calibration says nothing of impulses",
        id="impulses",
    ),
    pytest.param(
        {"published": [{"dataset": "d", "noise": "n", "method": "n2v", "psnr": 1, "source": "x"}]},
        {},
        "no 'n2v' runs on 'd' at 'n'",
        id="published",
    ),
    pytest.param({}, {"colour": "x"}, "colour: unknown key", id="unknown-column"),
    pytest.param({}, {"noisy": "", "clean": "a.npy"}, "no noise levels", id="no-noise"),
    pytest.param({"storage": {"chunk": [4, 64, 64], "shard": [6, 128, 128]}}, {}, "no multiple of chunk", id="shard"),
]


@pytest.mark.parametrize(("config", "row", "match"), WRONG)
def test_mistakes_are_one_clear_line(tmp_path: Path, config: dict[str, Any], row: dict[str, str], match: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(SsdenoiseError) as caught:
        project(tmp_path, config, **row)
    assert match in str(caught.value)
    assert not any(clutter in str(caught.value) for clutter in ("\n", "Value error", "{'dataset"))


def test_sheets_of_spreadsheets_and_without_tabs(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.tsv"
    sheet.write_bytes("\ufeffdataset\tnoisy\r\na\tb.npy\r\n\t\r\n\r\n".encode())
    assert [row.dataset for row in read_sheet(sheet)] == ["a"]
    for text in ("dataset,noisy\na,b.npy\n", "dataset\tnoisy\na   b.npy\n"):
        sheet.write_text(text)
        with pytest.raises(SsdenoiseError, match="separate cells by tabs"):
            read_sheet(sheet)


def test_the_same_name_twice(tmp_path: Path) -> None:
    project(tmp_path)
    sheet = tmp_path / "datasets.tsv"
    sheet.write_text(sheet.read_text() + sheet.read_text().splitlines()[1] + "\n")
    with pytest.raises(SsdenoiseError, match="more than one row"):
        Project({"run": "r", "datasets": "datasets.tsv", "methods": {"n2v": {"name": "n2v"}}}, tmp_path)


def test_jobs_are_every_combination_and_baselines_run_once(tmp_path: Path) -> None:
    config = {
        "seeds": [0, 1],
        "noise": {"weak": {"kind": "gaussian", "sigma": 1}, "strong": {"kind": "gaussian", "sigma": 9}},
        "methods": {"n2v": {"name": "n2v"}, "gaussian": {"name": "gaussian"}},
    }
    jobs = project(tmp_path, config, noisy="", clean="a.npy").jobs()
    assert len(jobs) == 2 * (2 + 1)
    assert ("d", "weak", "gaussian", 1) not in jobs


def test_a_spec_from_the_shell_needs_only_what_has_no_default() -> None:
    spec = parse_spec(IngestSpec, '{"source": "scans/v.ome.tif#scene=1"}')
    whole = IngestSpec(name="v", source="scans/v.ome.tif#scene=1", axes=None, voxel_size_um=None, storage=Storage())
    assert dump(spec) == dump(whole)
    assert set(json.loads(dump(spec))) == {"name", "source", "axes", "voxel_size_um", "storage"}
    assert parse_spec(IngestSpec, '{"source": "s3://bucket/planes/*.png"}').name == "planes"
    assert parse_spec(DenoiseSpec, "{}") == DenoiseSpec(denoised_dtype="same")
    with pytest.raises(ConfigError, match="--spec: source: Input should be a valid string, found 1"):
        parse_spec(IngestSpec, '{"source": 1}')


def test_an_option_changes_the_spec_of_its_own_method_only(tmp_path: Path) -> None:
    methods = {"n2v": {"name": "n2v"}, "hqssl": {"name": "hqssl"}}
    before = project(tmp_path, {"methods": methods})
    after = project(tmp_path, {"methods": methods | {"n2v": {"name": "n2v", "radius": 2}}})
    assert before.train("d", "measured", "hqssl", 0) == after.train("d", "measured", "hqssl", 0)
    assert before.train("d", "measured", "n2v", 0) != after.train("d", "measured", "n2v", 0)
    assert before.ingest("d", "noisy") == after.ingest("d", "noisy")
