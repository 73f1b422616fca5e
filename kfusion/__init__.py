"""Keras multimodal fusion: from a table whose rows each have an image to one exported model.

Names load what they need when they are first used: `import kfusion` alone loads no Keras.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kfusion import datasets, layers, metrics, plots, recipes
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
    from kfusion.data.fusion_data import FusionData
    from kfusion.data.images import BadImageError, read_images
    from kfusion.data.loading import load_images, load_table
    from kfusion.data.streamed_images import StreamedImages
    from kfusion.data.tables import TableSchema
    from kfusion.data.texts import Vocabulary
    from kfusion.doctor.before_training import DoctorWarning
    from kfusion.doctor.examination import examine
    from kfusion.estimators.blending import fit_blend
    from kfusion.estimators.fusion_estimators import FusionClassifier, FusionRegressor
    from kfusion.evidence.calibration import fit_isotonic, fit_temperature
    from kfusion.evidence.disagreements import which_rows
    from kfusion.evidence.modality_shapley import shapley_values
    from kfusion.evidence.paired_comparison import compare_predictions
    from kfusion.evidence.thresholds import (
        threshold_by_cost,
        threshold_by_sensitivity,
        threshold_by_specificity,
    )
    from kfusion.exports.export import export_saved_model
    from kfusion.exports.inference_graph import inference_model
    from kfusion.exports.portable_formats import export_litert, export_onnx
    from kfusion.exports.serving import load_exported
    from kfusion.frozen.freezing import freeze, unfreeze
    from kfusion.frozen.frozen_features import cache_features
    from kfusion.models.building import build_fusion_model, build_unimodal_model, prediction_model
    from kfusion.models.gates import gate_values
    from kfusion.models.prediction import evaluate, predict
    from kfusion.models.principal_components import fit_principal_components
    from kfusion.models.residual import build_residual_model
    from kfusion.models.trained_branches import branch_from
    from kfusion.models.tree_conversion import tree_ensemble
    from kfusion.optimizers import StepDecay
    from kfusion.reports.page import report
    from kfusion.search import FusionHyperModel, OptunaTuner, analyse, refit, search_fusion
    from kfusion.stacked.many_fits import ManyFits, fit_many
    from kfusion.stacked.programs import Programs
    from kfusion.tasks import Task, task
    from kfusion.training.compiling import compile_model
    from kfusion.training.fitting import fit
    from kfusion.training.gradient_modulation import GradientModulation
    from kfusion.training.overfitting import OverfitGapStopping, overfit_score
    from kfusion.training.precision import choose_precision
    from kfusion.training.rate_range import RateRange, learning_rate_range_test
    from kfusion.validation.baselines import (
        boosted_trees,
        fused,
        single_input,
        standard_single_inputs,
    )
    from kfusion.validation.comparison import compare, compare_results
    from kfusion.validation.cross_validation import cross_validate

__version__ = "0.1.0"

_MODULES = {
    "kfusion.validation.baselines": [
        "boosted_trees",
        "fused",
        "single_input",
        "standard_single_inputs",
    ],
    "kfusion.estimators.blending": ["fit_blend"],
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
    "kfusion.evidence.calibration": ["fit_isotonic", "fit_temperature"],
    "kfusion.validation.comparison": ["compare", "compare_results"],
    "kfusion.validation.cross_validation": ["cross_validate"],
    "kfusion.evidence.disagreements": ["which_rows"],
    "kfusion.doctor.before_training": ["DoctorWarning"],
    "kfusion.doctor.examination": ["examine"],
    "kfusion.training.rate_range": ["RateRange", "learning_rate_range_test"],
    "kfusion.estimators.fusion_estimators": ["FusionClassifier", "FusionRegressor"],
    "kfusion.exports.export": ["export_saved_model"],
    "kfusion.frozen.frozen_features": ["cache_features"],
    "kfusion.frozen.freezing": ["freeze", "unfreeze"],
    "kfusion.data.fusion_data": ["FusionData"],
    "kfusion.models.gates": ["gate_values"],
    "kfusion.training.gradient_modulation": ["GradientModulation"],
    "kfusion.data.images": ["BadImageError", "read_images"],
    "kfusion.exports.inference_graph": ["inference_model"],
    "kfusion.data.loading": ["load_images", "load_table"],
    "kfusion.evidence.modality_shapley": ["shapley_values"],
    "kfusion.stacked.many_fits": ["ManyFits", "fit_many"],
    "kfusion.stacked.programs": ["Programs"],
    "kfusion.models.building": ["build_fusion_model", "build_unimodal_model", "prediction_model"],
    "kfusion.evidence.paired_comparison": ["compare_predictions"],
    "kfusion.exports.portable_formats": ["export_litert", "export_onnx"],
    "kfusion.models.prediction": ["evaluate", "predict"],
    "kfusion.models.principal_components": ["fit_principal_components"],
    "kfusion.reports.page": ["report"],
    "kfusion.models.residual": ["build_residual_model"],
    "kfusion.optimizers": ["StepDecay"],
    "kfusion.training.overfitting": ["OverfitGapStopping", "overfit_score"],
    "kfusion.training.precision": ["choose_precision"],
    "kfusion.search": [
        "FusionHyperModel",
        "OptunaTuner",
        "analyse",
        "refit",
        "search_fusion",
    ],
    "kfusion.exports.serving": ["load_exported"],
    "kfusion.data.streamed_images": ["StreamedImages"],
    "kfusion.data.tables": ["TableSchema"],
    "kfusion.tasks": ["Task", "task"],
    "kfusion.data.texts": ["Vocabulary"],
    "kfusion.evidence.thresholds": [
        "threshold_by_cost",
        "threshold_by_sensitivity",
        "threshold_by_specificity",
    ],
    "kfusion.models.trained_branches": ["branch_from"],
    "kfusion.models.tree_conversion": ["tree_ensemble"],
    "kfusion.training.compiling": ["compile_model"],
    "kfusion.training.fitting": ["fit"],
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
