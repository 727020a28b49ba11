"""Imports point down: the layers of the architecture, held by reading the syntax trees."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.conftest import ROOT

PACKAGE = ROOT / "ssdenoise"

L0, L1, L2, L3, L4 = range(5)
LAYERS = {
    **dict.fromkeys(("errors", "grid", "intensity", "noise", "metrics"), L0),
    **dict.fromkeys(("provenance", "store", "networks"), L1),
    **dict.fromkeys(("methods", "model", "device"), L2),
    "config": L3,
    **dict.fromkeys(
        ("fetch", "ingest", "synthesize", "calibrate", "train", "denoise", "score", "compare", "report"), L4
    ),
}
#: What L0 to L2 may import from outside, beside the standard library.
FORBIDDEN = {
    L0: {"torch", "zarr", "dask", "xarray", "pandas", "snakemake"},
    L1: {"snakemake"},
    L2: {"dask", "zarr", "xarray", "snakemake"},
    L3: {"dask", "zarr", "xarray", "snakemake"},
    L4: {"snakemake"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
    return found


def test_imports_point_down() -> None:
    for path in PACKAGE.rglob("*.py"):
        module = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if module in ("__init__", "__main__"):
            continue
        layer = LAYERS[module]
        for name in imports(path):
            top, _, rest = name.partition(".")
            assert top not in FORBIDDEN[layer], f"{path.name} (layer {layer}) imports {name}"
            other = rest.partition(".")[0]
            if top == "ssdenoise" and other and other != module:
                assert LAYERS[other] <= layer, f"{path.name} (layer {layer}) imports {name} (layer {LAYERS[other]})"
                assert layer != L4 or LAYERS[other] != L4, f"{path.name} is a stage and imports the stage {other}"
                assert module != "networks" or other == "grid", "networks know no storage"


def test_rules_import_only_config_errors_and_provenance() -> None:
    for path in [ROOT / "Snakefile", *(ROOT / "workflow" / "rules").glob("*.smk")]:
        for line in path.read_text().splitlines():
            if "ssdenoise" in line and line.lstrip().startswith(("from ", "import ")):
                assert line.split()[1] in {"ssdenoise.config", "ssdenoise.provenance", "ssdenoise.errors"}, line
