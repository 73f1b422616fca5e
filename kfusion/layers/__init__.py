"""Keras layers that know nothing of tasks or input names; `keras.ops` only."""

from kfusion.layers.application_preprocessing import ApplicationPreprocessing
from kfusion.layers.category_embedding import CategoryEmbedding
from kfusion.layers.concat_fusion import ConcatFusion
from kfusion.layers.edge_magnitude import EdgeMagnitude
from kfusion.layers.frozen import Frozen
from kfusion.layers.gated_fusion import GatedFusion
from kfusion.layers.low_rank_fusion import LowRankFusion
from kfusion.layers.multiply_fusion import MultiplyFusion
from kfusion.layers.normalized_conv import NormalizedConv
from kfusion.layers.normalized_dense import NormalizedDense
from kfusion.layers.number_scaling import NumberScaling
from kfusion.layers.residual_fusion import ResidualFusion
from kfusion.layers.weighted_fusion import WeightedFusion

__all__ = [
    "ApplicationPreprocessing",
    "CategoryEmbedding",
    "ConcatFusion",
    "EdgeMagnitude",
    "Frozen",
    "GatedFusion",
    "LowRankFusion",
    "MultiplyFusion",
    "NormalizedConv",
    "NormalizedDense",
    "NumberScaling",
    "ResidualFusion",
    "WeightedFusion",
]
