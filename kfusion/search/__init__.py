"""Searches for the best model with KerasTuner's programs and Optuna's studies."""

from kfusion.search.analysis import analyse
from kfusion.search.hypermodel import FusionHyperModel
from kfusion.search.refitting import refit
from kfusion.search.running import search_fusion
from kfusion.search.tuner import OptunaTuner

__all__ = ["FusionHyperModel", "OptunaTuner", "analyse", "refit", "search_fusion"]
