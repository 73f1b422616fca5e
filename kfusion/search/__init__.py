"""Searches for the best fusion with KerasTuner."""

from kfusion.search.hypermodel import FusionHyperModel
from kfusion.search.running import search_fusion
from kfusion.search.tuner import OptunaTuner

__all__ = ["FusionHyperModel", "OptunaTuner", "search_fusion"]
