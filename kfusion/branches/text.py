"""The branch of a text column: token ids -> vectors -> their mean."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from kfusion.branches.dropout_rates import last_rates, listed_rates
from kfusion.data.texts import MISSING, Vocabulary
from kfusion.layers import MaskedPool, NormalizedDense


def text_branch(
    vocabulary: Vocabulary,
    *,
    units: int = 64,
    token_units: int = 64,
    dropout: float | Sequence[float] = 0.0,
    l2: float = 0.0,
    input_name: str = "text",
    name: str = "text_branch",
) -> keras.Model:
    """Builds a branch from the token ids of a text to features.

    The mean of the tokens' learned vectors, whose order does not count, and a hidden layer.
    A missing text has a mean of 0. For a long text, or one in which order matters, compute an
    embedding by a language model before and take `embedding_branch`.

    Args:
        vocabulary: `Vocabulary`, fitted on the training rows; it also makes the ids.
        units: Int, width of the features.
        token_units: Int, width of a token's vector.
        dropout: Float in [0, 1), rate on the features; of a sequence the last, the one before it
            that on the mean of the vectors.
        l2: Float, L2 penalty on the hidden layer's kernel.
        input_name: Name of the input.
        name: Name of the model.

    Returns:
        `keras.Model` from `(rows, vocabulary.length)` int32 ids to `(rows, units)`.

    Example:
        >>> texts = ["red fox", "red hen", None]
        >>> vocabulary = Vocabulary.fit(texts)
        >>> vocabulary.encode(["Red, cat!", None]).tolist()
        [[2, 1], [0, 0]]
        >>> text_branch(vocabulary, units=8).output.shape
        (None, 8)
    """
    inputs = keras.Input((vocabulary.length,), dtype="int32", name=input_name)
    vectors = keras.layers.Embedding(vocabulary.num_tokens, token_units, name="tokens")(inputs)
    mean = MaskedPool(name="pool")([vectors, ops.not_equal(inputs, MISSING)])
    on_mean, on_features = last_rates(listed_rates(dropout), 2)
    if on_mean:
        mean = keras.layers.Dropout(on_mean, name="dropout")(mean)
    features = NormalizedDense(units, dropout=on_features, l2=l2, name="features")(mean)
    return keras.Model(inputs, features, name=name)


def text_vectorization(
    vocabulary: Vocabulary, *, name: str = "text_vectorization"
) -> keras.layers.TextVectorization:
    """Makes the layer that gives a vocabulary's ids within a graph, for an export.

    It runs in TensorFlow whatever the backend: put it before a trained model, not in one that is to
    be trained, since strings do not go through `fit`.

    Args:
        vocabulary: `Vocabulary`.
        name: Name of the layer.

    Returns:
        Keras layer from `(rows,)` strings to the `(rows, length)` that `Vocabulary.encode` gives.
    """
    layer = keras.layers.TextVectorization(
        standardize="lower_and_strip_punctuation",
        split="whitespace",
        output_sequence_length=vocabulary.length,
        vocabulary=list(vocabulary.tokens),
        name=name,
    )
    layer.build((None,))
    return layer
