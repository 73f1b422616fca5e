"""Whole systems that users asked about, each one function of models and data."""

from kfusion.recipes.depth import DepthStudy, depth_study
from kfusion.recipes.intermediary_space import (
    IntermediarySpace,
    IntermediarySpaceStudy,
    build_intermediary_space,
    intermediary_space,
)
from kfusion.recipes.optimizers import OptimizerStudy, build_perceptron, optimizer_study
from kfusion.recipes.stack import Stack, stack_frozen_models
from kfusion.recipes.vgg16 import ImageWithTable, vgg16_with_table

__all__ = [
    "DepthStudy",
    "ImageWithTable",
    "IntermediarySpace",
    "IntermediarySpaceStudy",
    "OptimizerStudy",
    "Stack",
    "build_intermediary_space",
    "build_perceptron",
    "depth_study",
    "intermediary_space",
    "optimizer_study",
    "stack_frozen_models",
    "vgg16_with_table",
]
