"""Branches: one named raw input -> its own preprocessing -> a vector of features."""

from kfusion.branches.by_kind import branch_builders
from kfusion.branches.embeddings import embedding_branch
from kfusion.branches.image_sets import image_set_branch
from kfusion.branches.images import edge_branch, image_branch
from kfusion.branches.sequences import sequence_branch
from kfusion.branches.tables import tabular_branch
from kfusion.branches.text import text_branch, text_vectorization

__all__ = [
    "branch_builders",
    "edge_branch",
    "embedding_branch",
    "image_branch",
    "image_set_branch",
    "sequence_branch",
    "tabular_branch",
    "text_branch",
    "text_vectorization",
]
