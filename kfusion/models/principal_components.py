"""Principal components of training images, as a layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from kfusion.layers import PrincipalComponents

# Numbers that the components are learned from, at most: 400 MB in float64.
_MAX_NUMBERS = 50_000_000
# Spreads below this share of the first one, or of the numbers themselves, are rounding.
_ROUNDING = 1e-6


def fit_principal_components(
    images: Any,
    num_components: int = 32,
    *,
    whiten: bool = True,
    max_rows: int = 5000,
    seed: int = 0,
    name: str | None = None,
) -> PrincipalComponents:
    """Learns the few numbers that tell most about an image, for models such as boosted trees.

    Source: scikit-learn's `PCA`, whose `transform` the layer equals.

    Args:
        images: `(rows, ...)` training rows: uint8 images, which the layer divides by 255, or
            floats of any shape, such as features of another network, taken as they are, in which
            a missing number (NaN) counts as its mean over the rows.
        num_components: Int, the most components; there are no more than rows or numbers per row.
        whiten: Whether to bring each component to variance 1 over the training rows, so that
            small differences count as much as large ones to a model that minds the scale.
            Otherwise the first component varies most.
        max_rows: Int, learn from this many rows, drawn at random: fewer if they are large.
        seed: Int, of the draw of rows and of the randomised search that wide rows need.
        name: Name of the layer.

    Returns:
        `PrincipalComponents`, built, from `(rows, ...)` to `(rows, components)` float32.
        Directions in which the training rows do not differ give 0.

    Raises:
        ValueError: If there are fewer than 2 rows, a number is infinite, `num_components` is
            below 1, or `max_rows` below 2.

    Example:
        >>> images = np.random.default_rng(0).integers(256, size=(50, 8, 8, 3), dtype="uint8")
        >>> tuple(fit_principal_components(images, 4)(images).shape)
        (50, 4)
    """
    images = np.asarray(images)
    if images.ndim < 2 or len(images) < 2 or not images.size:
        raise ValueError(
            "`images` must be an array of at least 2 rows, (rows, ...). Received: "
            f"shape={images.shape}."
        )
    if num_components < 1 or max_rows < 2:
        raise ValueError(
            "`num_components` must be at least 1 and `max_rows` at least 2. Received: "
            f"{num_components} and {max_rows}."
        )
    shape = images.shape[1:]
    width = int(np.prod(shape))
    rows = min(max_rows, max(_MAX_NUMBERS // width, num_components))
    if len(images) > rows:
        images = images[np.random.default_rng(seed).choice(len(images), rows, replace=False)]
    divisor = 255.0 if images.dtype == np.uint8 else 1.0
    flat = images.reshape(len(images), width).astype(np.float64) / divisor
    wrong = np.flatnonzero(np.isinf(flat).any(axis=1))
    if wrong.size:
        raise ValueError(f"`images` must be finite. Row {wrong[0]} is not ({wrong.size} in all).")
    is_missing = np.isnan(flat)
    if is_missing.any():
        counts = np.maximum(np.sum(~is_missing, axis=0), 1)
        flat = np.where(is_missing, np.nansum(flat, axis=0) / counts, flat)
    # Where all rows are the same, scikit-learn divides by their variance.
    with np.errstate(invalid="ignore"):
        pca = PCA(min(num_components, *flat.shape), random_state=seed).fit(flat)
    layer = PrincipalComponents(pca.n_components_, divisor, name=name)
    layer.build((None, *shape))
    layer.set_weights([pca.mean_, pca.components_.T * _scales(pca, whiten)])
    return layer


def _scales(pca: PCA, whiten: bool) -> np.ndarray:
    """What each component is multiplied by."""
    spreads = np.sqrt(pca.explained_variance_)
    varies = spreads > _ROUNDING * max(spreads[0], np.abs(pca.mean_).max())
    return np.where(varies, 1 / np.where(varies, spreads, 1) if whiten else 1.0, 0.0)
