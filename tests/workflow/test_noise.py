"""Noise levels of every kind through Snakemake, and the examples of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from ssdenoise.noise import AnyNoise
from ssdenoise.store import Volume
from tests.conftest import ROOT
from tests.workflow.conftest import make

pytestmark = pytest.mark.workflow

KINDS = {kind.model_fields["kind"].annotation.__args__[0] for kind in AnyNoise.__args__}  # type: ignore[union-attr]


def examples() -> dict[str, dict[str, object]]:
    """The noise levels that stand in the documentation."""
    (text,) = re.findall(r"```yaml\n(noise:\n.*?)```", (ROOT / "config" / "README.md").read_text(), re.DOTALL)
    levels: dict[str, dict[str, object]] = yaml.safe_load(text)["noise"]
    return levels


def test_levels_of_every_kind_are_synthesized(tmp_path: Path) -> None:
    levels = examples()
    assert {level["kind"] for level in levels.values()} == KINDS
    workflow = make(tmp_path / "kinds")
    workflow.configure(noise=levels, methods={"gaussian": {"name": "gaussian"}})
    (workflow.folder / "datasets.tsv").write_text("dataset\tclean\nbench\tclean.npy\n")
    assert {"synthesize", "calibrate", "score_noisy", "compare"} <= set(workflow.planned())
    stores = {name: f"results/tiny/bench/{name}/noisy-0.ome.zarr/zarr.json" for name in levels}
    third = "results/tiny/bench/gaussian/noisy-2.ome.zarr/zarr.json"  # which no model sees
    workflow.run(*stores.values(), third)
    clean = np.load(workflow.folder / "clean.npy").astype(float)
    for name, store in stores.items():
        noisy = Volume(workflow.folder / store)
        assert noisy.record["noise"]["kind"] == levels[name]["kind"]
        assert noisy.record["provenance"]["spec"]["key"] == [0, "bench", name, 0]
        assert bool(noisy.record["detector"]) == ("bits" in levels[name])
        assert np.ptp(noisy.array[:][0, 0] - clean) > 10
    first = Volume(workflow.folder / stores["gaussian"]).array[:][0, 0] - clean
    other = Volume(workflow.folder / third).array[:][0, 0] - clean
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.03
