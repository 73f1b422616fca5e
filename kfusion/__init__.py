"""Keras multimodal fusion: from a table whose rows each have an image to one exported model.

Names load what they need when they are first used: `import kfusion` alone loads no Keras.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kfusion import datasets, layers, metrics, plots, recipes
    from kfusion.baselines import boosted_trees, fused, single_input, standard_single_inputs
    from kfusion.blending import fit_blend
    from kfusion.branches import (
        branch_builders,
        edge_branch,
        embedding_branch,
        image_branch,
        image_set_branch,
        sequence_branch,
        tabular_branch,
        text_branch,
        text_vectorization,
    )
    from kfusion.calibration import fit_isotonic, fit_temperature
    from kfusion.comparison import compare, compare_results
    from kfusion.cross_validation import cross_validate
    from kfusion.disagreements import which_rows
    from kfusion.doctor.before_training import DoctorWarning
    from kfusion.doctor.examination import examine
    from kfusion.doctor.rate_range import RateRange, learning_rate_range_test
    from kfusion.estimators import FusionClassifier, FusionRegressor
    from kfusion.export import export_saved_model
    from kfusion.freezing import freeze, unfreeze
    from kfusion.frozen_features import cache_features
    from kfusion.fusion_data import FusionData
    from kfusion.gates import gate_values
    from kfusion.gradient_modulation import GradientModulation
    from kfusion.images import BadImageError, read_images
    from kfusion.inference_graph import inference_model
    from kfusion.loading import load_images, load_table
    from kfusion.many_fits import ManyFits, fit_many
    from kfusion.modality_shapley import shapley_values
    from kfusion.models import build_fusion_model, build_unimodal_model, prediction_model
    from kfusion.optimizers import StepDecay
    from kfusion.overfitting import OverfitGapStopping, overfit_score
    from kfusion.paired_comparison import compare_predictions
    from kfusion.portable_formats import export_litert, export_onnx
    from kfusion.prediction import evaluate, predict
    from kfusion.principal_components import fit_principal_components
    from kfusion.reports.page import report
    from kfusion.residual import build_residual_model
    from kfusion.search import FusionHyperModel, OptunaTuner, analyse, refit, search_fusion
    from kfusion.serving import load_exported
    from kfusion.streamed_images import StreamedImages
    from kfusion.tables import TableSchema
    from kfusion.tasks import Task, task
    from kfusion.texts import Vocabulary
    from kfusion.thresholds import (
        threshold_by_cost,
        threshold_by_sensitivity,
        threshold_by_specificity,
    )
    from kfusion.trained_branches import branch_from
    from kfusion.training import compile_model, fit
    from kfusion.tree_conversion import tree_ensemble

__version__ = "0.1.0"

_MODULES = {
    "kfusion.baselines": ["boosted_trees", "fused", "single_input", "standard_single_inputs"],
    "kfusion.blending": ["fit_blend"],
    "kfusion.branches": [
        "branch_builders",
        "edge_branch",
        "embedding_branch",
        "image_branch",
        "image_set_branch",
        "sequence_branch",
        "tabular_branch",
        "text_branch",
        "text_vectorization",
    ],
    "kfusion.calibration": ["fit_isotonic", "fit_temperature"],
    "kfusion.comparison": ["compare", "compare_results"],
    "kfusion.cross_validation": ["cross_validate"],
    "kfusion.disagreements": ["which_rows"],
    "kfusion.doctor.before_training": ["DoctorWarning"],
    "kfusion.doctor.examination": ["examine"],
    "kfusion.doctor.rate_range": ["RateRange", "learning_rate_range_test"],
    "kfusion.estimators": ["FusionClassifier", "FusionRegressor"],
    "kfusion.export": ["export_saved_model"],
    "kfusion.frozen_features": ["cache_features"],
    "kfusion.freezing": ["freeze", "unfreeze"],
    "kfusion.fusion_data": ["FusionData"],
    "kfusion.gates": ["gate_values"],
    "kfusion.gradient_modulation": ["GradientModulation"],
    "kfusion.images": ["BadImageError", "read_images"],
    "kfusion.inference_graph": ["inference_model"],
    "kfusion.loading": ["load_images", "load_table"],
    "kfusion.modality_shapley": ["shapley_values"],
    "kfusion.many_fits": ["ManyFits", "fit_many"],
    "kfusion.models": ["build_fusion_model", "build_unimodal_model", "prediction_model"],
    "kfusion.paired_comparison": ["compare_predictions"],
    "kfusion.portable_formats": ["export_litert", "export_onnx"],
    "kfusion.prediction": ["evaluate", "predict"],
    "kfusion.principal_components": ["fit_principal_components"],
    "kfusion.reports.page": ["report"],
    "kfusion.residual": ["build_residual_model"],
    "kfusion.optimizers": ["StepDecay"],
    "kfusion.overfitting": ["OverfitGapStopping", "overfit_score"],
    "kfusion.search": [
        "FusionHyperModel",
        "OptunaTuner",
        "analyse",
        "refit",
        "search_fusion",
    ],
    "kfusion.serving": ["load_exported"],
    "kfusion.streamed_images": ["StreamedImages"],
    "kfusion.tables": ["TableSchema"],
    "kfusion.tasks": ["Task", "task"],
    "kfusion.texts": ["Vocabulary"],
    "kfusion.thresholds": [
        "threshold_by_cost",
        "threshold_by_sensitivity",
        "threshold_by_specificity",
    ],
    "kfusion.trained_branches": ["branch_from"],
    "kfusion.tree_conversion": ["tree_ensemble"],
    "kfusion.training": ["compile_model", "fit"],
}
_SUBMODULES = ["datasets", "layers", "metrics", "plots", "recipes"]
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
