"""What each modality adds to a score, counted fairly over all orders in which they could come."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np

MAX_MODALITIES = 10

Subset = frozenset[str]


def shapley_values(
    score_of: Callable[[Subset], float] | Mapping[Subset, float], names: Sequence[str]
) -> dict[str, float]:
    """Shares what all modalities gain together among them, exactly.

    A modality's value is what it adds to the score of those before it, on average over all orders
    in which they could be taken. Modalities that tell the same share its worth; what tells
    something only beside another shares that gain with it. The values sum to the score of all
    modalities less that of none.

    The scores decide what a value means: with models refitted on each subset, what the modality
    would bring; with one model whose other inputs are masked, what that model takes from it.

    Source: Shapley, 1953, A value for n-person games, Contributions to the Theory of Games II,
    307-317; for predictions, Lundberg & Lee, 2017, arXiv:1705.07874.

    Args:
        score_of: Callable from a frozenset of names to the score with these modalities alone, of
            which more is better; asked once for each of the `2 ** len(names)` subsets, smaller
            ones first. Or a mapping of the frozensets to scores. The empty one is the score
            without any: 0.5 for an AUC.
        names: The modalities, 10 at most.

    Returns:
        Value by name, in the order of `names` and the unit of the score; below 0 for what harms.

    Raises:
        TypeError: If `score_of` is neither, or a name is no text.
        ValueError: If there is no name, more than 10, or one twice; or a subset has no score, or
            one that is not finite. The message names the subset.

    Example:
        >>> auc = {(): 0.5, ("image",): 0.8, ("table",): 0.7, ("image", "table"): 0.9}
        >>> scores = {frozenset(subset): score for subset, score in auc.items()}
        >>> {name: round(value, 3) for name, value in shapley_values(scores, list(auc)[3]).items()}
        {'image': 0.25, 'table': 0.15}
    """
    names = _check_names(names)
    scores = score_subsets(score_of, names)
    return {name: _value_of(name, scores, len(names)) for name in names}


def score_subsets(
    score_of: Callable[[Subset], float] | Mapping[Subset, float], names: Sequence[str]
) -> dict[Subset, float]:
    """Scores every subset of modalities once, the smaller ones first.

    `shapley_values` takes the result, so that the scores can be shown beside the values.

    Args and errors are those of `shapley_values`.
    """
    names = _check_names(names)
    subsets = [
        frozenset(part) for size in range(len(names) + 1) for part in combinations(names, size)
    ]
    if isinstance(score_of, Mapping):
        missing = [subset for subset in subsets if subset not in score_of]
        if missing:
            raise ValueError(
                f"`score_of` must have a score for each of the {len(subsets)} subsets of {names}, "
                f"as frozensets. It lacks {len(missing)}, e.g. {_show(missing[0])}."
            )
        ask: Callable[[Subset], float] = score_of.__getitem__
    elif callable(score_of):
        ask = score_of
    else:
        raise TypeError(
            "`score_of` must be a callable from a frozenset of names to a score, or a mapping of "
            f"them. Received: {type(score_of).__name__}."
        )
    return {subset: _check_score(ask(subset), subset) for subset in subsets}


def _value_of(name: str, scores: Mapping[Subset, float], count: int) -> float:
    gains = (
        # Of all orders, one in `count` has as many names before this one, and the sets of that
        # size come before it alike often.
        (scores[before | {name}] - score) / (count * math.comb(count - 1, len(before)))
        for before, score in scores.items()
        if name not in before
    )
    return math.fsum(gains)


def _check_names(names: Sequence[str]) -> list[str]:
    names = [names] if isinstance(names, str) else list(names)
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise TypeError(f"`names` must be texts. Received: {wrong[0]!r}.")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"`names` must name each modality once. Received: {names}.")
    if len(names) > MAX_MODALITIES:
        raise ValueError(
            f"Exact values ask for 2 ** {len(names)} scores; `names` may hold {MAX_MODALITIES} at "
            f"most. Received: {len(names)}. Join modalities that belong together."
        )
    return names


def _check_score(score: float, subset: Subset) -> float:
    value = float(score)
    if not np.isfinite(value):
        raise ValueError(f"The score of {_show(subset)} must be finite. Received: {value}.")
    return value


def _show(subset: Subset) -> str:
    return f"frozenset({sorted(subset)})"
