"""Texts -> what they differ by most, in a few numbers."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops
from scipy.sparse import coo_matrix
from sklearn.decomposition import TruncatedSVD

from kfusion.data.texts import MISSING
from kfusion.layers import MaskedPool


def latent_semantics(
    ids: np.ndarray,
    num_tokens: int,
    num_components: int = 32,
    *,
    seed: int = 0,
    input_name: str = "text",
    name: str = "latent_semantics",
) -> keras.Model:
    """Learns the few numbers that tell most about a text, for models such as boosted trees.

    The share of each token in a text, times the logarithm of how rare its token is, projected on
    the first singular vectors over all texts and brought to variance 1 (latent semantic analysis:
    Deerwester et al., 1990, "Indexing by latent semantic analysis"; scikit-learn's `TruncatedSVD`).

    Args:
        ids: `(rows, length)` ids of training texts, as from `Vocabulary.encode`.
        num_tokens: Int, how many ids there are.
        num_components: Int, the most numbers; fewer where there are fewer tokens.
        seed: Int.
        input_name: Name of the input.
        name: Name of the model.

    Returns:
        `keras.Model` from `(rows, length)` int32 to `(rows, components)` float32; 0 for no text.
    """
    rows, places = np.nonzero(ids != MISSING)
    tokens = ids[rows, places]
    lengths = np.maximum(np.bincount(rows, minlength=len(ids)), 1)
    shares = coo_matrix((1 / lengths[rows], (rows, tokens)), (len(ids), num_tokens)).tocsr()
    occurs_in = np.bincount(shares.indices, minlength=num_tokens)
    rarity = np.log((1 + len(ids)) / (1 + occurs_in)) + 1
    svd = TruncatedSVD(min(num_components, num_tokens - 1), random_state=seed)
    spread = svd.fit_transform(shares.multiply(rarity).tocsr()).std(axis=0)
    scale = np.where(spread > 0, 1 / np.where(spread > 0, spread, 1), 0)
    inputs = keras.Input((ids.shape[1],), dtype="int32", name=input_name)
    vectors = keras.layers.Embedding(num_tokens, len(scale), trainable=False, name="tokens")
    mean = MaskedPool(name="pool")([vectors(inputs), ops.not_equal(inputs, MISSING)])
    vectors.set_weights([rarity[:, None] * svd.components_.T * scale])
    return keras.Model(inputs, mean, name=name)
