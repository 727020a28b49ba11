"""The methods, one file each, found by scanning this folder: adding a method is adding a file."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from ssdenoise.methods.base import Batch, Estimate, Method, TrainedMethod
from ssdenoise.networks import Network


def _scan() -> dict[str, type[Method]]:
    found: dict[str, type[Method]] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name != "base"):
        for value in vars(import_module(f"{__name__}.{module}")).values():
            if isinstance(value, type) and issubclass(value, Method) and value.model_fields["name"].default == module:
                found[module] = value
    return found


#: Name of each method, which is the name of its file, and its class.
METHODS = _scan()

__all__ = ["METHODS", "Batch", "Estimate", "Method", "Network", "TrainedMethod"]
