"""Keras multimodal fusion: from a table whose rows each have an image to one exported model.

Names load what they need when they are first used: `import kfusion` alone loads no Keras.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kfusion import datasets, layers
    from kfusion.branches import branch_from, edge_branch, image_branch, tabular_branch
    from kfusion.export import export_saved_model
    from kfusion.fusion_data import FusionData
    from kfusion.images import BadImageError, read_images
    from kfusion.loading import load_images, load_table
    from kfusion.models import build_fusion_model, build_unimodal_model, prediction_model
    from kfusion.prediction import evaluate, predict
    from kfusion.search import FusionHyperModel, search_fusion
    from kfusion.serving import load_exported
    from kfusion.tables import TableSchema
    from kfusion.tasks import Task, task
    from kfusion.training import compile_model, fit

__version__ = "0.1.0"

_MODULES = {
    "kfusion.branches": ["branch_from", "edge_branch", "image_branch", "tabular_branch"],
    "kfusion.export": ["export_saved_model"],
    "kfusion.fusion_data": ["FusionData"],
    "kfusion.images": ["BadImageError", "read_images"],
    "kfusion.loading": ["load_images", "load_table"],
    "kfusion.models": ["build_fusion_model", "build_unimodal_model", "prediction_model"],
    "kfusion.prediction": ["evaluate", "predict"],
    "kfusion.search": ["FusionHyperModel", "search_fusion"],
    "kfusion.serving": ["load_exported"],
    "kfusion.tables": ["TableSchema"],
    "kfusion.tasks": ["Task", "task"],
    "kfusion.training": ["compile_model", "fit"],
}
_SUBMODULES = ["datasets", "layers"]
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted([*_HOMES, *_SUBMODULES])


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"kfusion.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'kfusion' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
