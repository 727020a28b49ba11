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
        # a package is intel-rapl:0, its parts, which it includes, are intel-rapl:0:0 and so on
        self._packages = [folder for folder in powercap.glob("intel-rapl:*") if folder.name.count(":") == 1]
        self._start = self._packages_read(), _gpus()

    def joules(self) -> float | None:
        """Joules up to now; None if the machine does not tell those of its processors."""
        packages, gpus = self._start
        now = self._packages_read()
        if not packages or not now:
            return None
        # counters begin again at zero when they are full, every few minutes to hours
        spent = sum((b - a) % (most + 1) for (a, most), (b, _) in zip(packages, now, strict=True)) / 1e6
        return round(spent + (_gpus() - gpus) / 1e3, 3)

    def _packages_read(self) -> list[tuple[int, int]]:
        """Microjoules of each package, and how many its counter holds; nothing where they cannot be read."""
        names = ("energy_uj", "max_energy_range_uj")
        try:
            return [(int((f / names[0]).read_text()), int((f / names[1]).read_text())) for f in self._packages]
        except (OSError, ValueError):
            return []


def _gpus() -> int:
    """Millijoules of all NVIDIA GPUs since their driver was loaded; 0 without such, or of kinds that do not count."""
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
        if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) == 0:
            nvml.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(spent))
        total += spent.value
    nvml.nvmlShutdown()
    return total
