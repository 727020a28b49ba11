"""Energy that the machine says it has spent: its processors' packages, and its NVIDIA GPUs."""

from __future__ import annotations

import ctypes
from pathlib import Path

#: Where Linux shows the counters of processor packages (RAPL); most systems show them to root only.
POWERCAP = Path("/sys/class/powercap")


class Energy:
    """Joules since it was made, of the whole machine, whatever else ran on it.

    Parameters
    ----------
    powercap : Path, optional
        Folder of the counters.
    """

    def __init__(self, powercap: Path = POWERCAP) -> None:
        # packages include their cores; memory is apart from them, and `psys` is all of it once more
        self._packages = [folder for folder in powercap.glob("intel-rapl:*") if _kind(folder) in ("package", "dram")]
        self._start = self._packages_read(), _gpus()

    def joules(self) -> float | None:
        """Joules up to now; None if the machine does not tell those of its processors, or of a GPU."""
        packages, gpus = self._start
        now, gpus_now = self._packages_read(), _gpus()
        if not packages or not now or gpus is None or gpus_now is None:
            return None
        # counters begin again at zero when they are full, every few minutes to hours
        spent = sum((b - a) % (most + 1) for (a, most), (b, _) in zip(packages, now, strict=True)) / 1e6
        return round(spent + (gpus_now - gpus) / 1e3, 3)

    def _packages_read(self) -> list[tuple[int, int]]:
        """Microjoules of each package, and how many its counter holds; nothing where they cannot be read."""
        names = ("energy_uj", "max_energy_range_uj")
        try:
            return [(int((f / names[0]).read_text()), int((f / names[1]).read_text())) for f in self._packages]
        except (OSError, ValueError):
            return []


def _kind(folder: Path) -> str:
    """What a counter is of: `package`, `core`, `dram`, `psys` and so on."""
    try:
        return (folder / "name").read_text().strip().partition("-")[0]
    except OSError:
        return ""


def _gpus() -> int | None:
    """Millijoules of all NVIDIA GPUs since their driver was loaded; 0 without such, None if one does not count."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return 0
    if nvml.nvmlInit_v2() != 0:
        return 0
    count, total = ctypes.c_uint(), 0
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    for index in range(count.value):
        device, spent = ctypes.c_void_p(), ctypes.c_ulonglong()
        failed = nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device))
        if failed or nvml.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(spent)):
            return None
        total += spent.value
    return total
