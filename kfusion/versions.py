"""Which libraries a result was made with."""

from __future__ import annotations

import importlib.metadata
import platform

LIBRARIES = ("kfusion", "keras", "tensorflow", "jax", "torch", "numpy", "scikit-learn", "scipy")


def library_versions() -> dict[str, str]:
    """Versions by name of Python and of those libraries that are installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
