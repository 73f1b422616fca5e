"""Keras layers that know nothing of tasks or input names; `keras.ops` only."""

from kfusion.layers.application_preprocessing import ApplicationPreprocessing
from kfusion.layers.batch_ensemble_dense import BatchEnsembleDense
from kfusion.layers.category_embedding import CategoryEmbedding
from kfusion.layers.concat_fusion import ConcatFusion
from kfusion.layers.cross_attention_fusion import CrossAttentionFusion
from kfusion.layers.daft import DAFT
from kfusion.layers.edge_magnitude import EdgeMagnitude
from kfusion.layers.film import FiLM
from kfusion.layers.frozen import Frozen
from kfusion.layers.gated_fusion import GatedFusion
from kfusion.layers.gradient_scale import GradientScale
from kfusion.layers.log_linear_pool import LogLinearPool
from kfusion.layers.low_rank_fusion import LowRankFusion
from kfusion.layers.masked_conv import MaskedConv
from kfusion.layers.masked_pool import MaskedPool
from kfusion.layers.member_mean import MemberMean
from kfusion.layers.modality_dropout import ModalityDropout
from kfusion.layers.multiply_fusion import MultiplyFusion
from kfusion.layers.normalized_conv import NormalizedConv
from kfusion.layers.normalized_dense import NormalizedDense
from kfusion.layers.number_scaling import NumberScaling
from kfusion.layers.observed_normalization import ObservedNormalization
from kfusion.layers.periodic_embedding import PeriodicEmbedding
from kfusion.layers.presence import Presence
from kfusion.layers.presence_switch import PresenceSwitch
from kfusion.layers.principal_components import PrincipalComponents
from kfusion.layers.quantile_scaling import QuantileScaling
from kfusion.layers.repeat_present import RepeatPresent
from kfusion.layers.residual_fusion import ResidualFusion
from kfusion.layers.stand_in import StandIn
from kfusion.layers.tree_ensemble import TreeEnsemble
from kfusion.layers.weighted_fusion import WeightedFusion

__all__ = [
    "DAFT",
    "ApplicationPreprocessing",
    "BatchEnsembleDense",
    "CategoryEmbedding",
    "ConcatFusion",
    "CrossAttentionFusion",
    "EdgeMagnitude",
    "FiLM",
    "Frozen",
    "GatedFusion",
    "GradientScale",
    "LogLinearPool",
    "LowRankFusion",
    "MaskedConv",
    "MaskedPool",
    "MemberMean",
    "ModalityDropout",
    "MultiplyFusion",
    "NormalizedConv",
    "NormalizedDense",
    "NumberScaling",
    "ObservedNormalization",
    "PeriodicEmbedding",
    "Presence",
    "PresenceSwitch",
    "PrincipalComponents",
    "QuantileScaling",
    "RepeatPresent",
    "ResidualFusion",
    "StandIn",
    "TreeEnsemble",
    "WeightedFusion",
]
