"""Energy from the counters of processors, where there are such."""

from __future__ import annotations

from pathlib import Path

from ssdenoise.energy import Energy


def counters(folder: Path, *values: int, most: int = 1_000_000) -> None:
    for index, value in enumerate(values):
        # a package, the part of it that its cores are, and all of the machine once more
        for name, kind in ((f"{index}", f"package-{index}"), (f"{index}:0", "core"), (f"9{index}", "psys")):
            name = f"intel-rapl:{name}"
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / "name").write_text(f"{kind}\n")
            (folder / name / "energy_uj").write_text(f"{value}\n")
            (folder / name / "max_energy_range_uj").write_text(f"{most}\n")


def test_packages_add_up_and_counters_that_are_full_begin_again(tmp_path: Path) -> None:
    counters(tmp_path, 100_000, 900_000)
    energy = Energy(tmp_path)
    counters(tmp_path, 600_000, 100_000)
    assert energy.joules() == 0.5 + 0.2
    assert Energy(tmp_path).joules() == 0


def test_a_machine_that_does_not_tell_is_not_guessed(tmp_path: Path) -> None:
    assert Energy(tmp_path / "none").joules() is None
    counters(tmp_path, 5)
    energy = Energy(tmp_path)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()  # as for others than root
    assert energy.joules() is None
