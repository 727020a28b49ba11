"""Code hashes: an edit concerns what can run it, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ssdenoise import provenance
from ssdenoise.provenance import code_hash, digest
from tests.conftest import ROOT

STAGES = ["ingest", "synthesize", "calibrate", "commit", "score", "compare", "figures", "report"]
#: Stages that run a method.
OF_A_METHOD = ("train", "denoise", "probe")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package that the hashes are taken of."""
    shutil.copytree(ROOT / "ssdenoise", tmp_path / "ssdenoise", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "ssdenoise")
    return tmp_path / "ssdenoise"


def hashes() -> dict[str, str]:
    provenance._tree.cache_clear()
    methods = ("n2n", "n2v", "hqssl", "gaussian", "nlm")
    found = {stage: code_hash(stage) for stage in STAGES}
    return found | {f"{s} {m}": code_hash(s, m) for s in OF_A_METHOD for m in methods}


def changed(package: Path, module: str, old: str, new: str) -> set[str]:
    before = hashes()
    path = package / module
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    return {name for name, value in hashes().items() if value != before[name]}


def test_editing_a_method_concerns_that_method(package: Path) -> None:
    assert changed(package, "methods/n2v.py", ".square().mean()", ".abs().mean()") == {
        f"{stage} n2v" for stage in OF_A_METHOD
    }


def test_editing_what_another_method_imports_concerns_both(package: Path) -> None:
    assert changed(package, "jinvariance.py", "np.argmin", "np.argmax") == {
        f"{stage} {method}" for stage in OF_A_METHOD for method in ("gaussian", "nlm")
    }


def test_editing_a_network_concerns_all_trained_methods_and_nothing_before(package: Path) -> None:
    found = changed(package, "networks/unet.py", "self.bottom = chain(w, w)", "self.bottom = chain(w, w, w)")
    assert found == {name for name in hashes() if name.startswith(tuple(f"{stage} " for stage in OF_A_METHOD))}


def test_editing_the_configuration_concerns_nothing_as_its_values_are_in_the_specs(package: Path) -> None:
    assert (
        changed(package, "config/models.py", '"""One row of the sheet."""', '"""A row."""\n    spare: int = 0') == set()
    )
    assert changed(package, "config/specs.py", "max_length=80", "max_length=81") == set()


def test_editing_a_docstring_or_a_comment_concerns_nothing(package: Path) -> None:
    assert changed(package, "methods/n2v.py", '"""Noise2Void (Krull', '"""Noise-2-Void (Krull') == set()
    assert changed(package, "train/loop.py", "# forward, backward", "# there and back") == set()


def test_editing_the_figures_concerns_the_figures(package: Path) -> None:
    assert changed(package, "figures/crops.py", "CROP = 256", "CROP = 128") == {"figures"}


@pytest.mark.parametrize("file", ["viewer.js", "page.html", "style.css"])
def test_editing_the_page_concerns_the_report(package: Path, file: str) -> None:
    assert changed(package, f"report/{file}", "pane", "else") == {"report"}


def test_editing_a_figure_retrains_nothing(package: Path) -> None:
    assert changed(package, "calibrate/figure.py", "recommended", "advised") == set()
    assert changed(package, "plotting.py", "dpi", "DPI") == {"figures"}


def test_editing_the_loop_concerns_all_training_and_nothing_before(package: Path) -> None:
    assert changed(package, "train/loop.py", "CLIP = 1.0", "CLIP = 2.0") == {
        name for name in hashes() if name.startswith("train ")
    }


def test_parts_count_with_their_length() -> None:
    assert digest("ab", "c") != digest("a", "bc")
