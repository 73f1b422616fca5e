"""Searches for the best fusion with KerasTuner."""

from kfusion.search.hypermodel import FusionHyperModel
from kfusion.search.running import search_fusion

__all__ = ["FusionHyperModel", "search_fusion"]
