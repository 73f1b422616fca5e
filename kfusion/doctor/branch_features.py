"""Where the branches of a model meet, and what small models make of each alone.

The one place at which any model's inputs have all come together, found by exchanging their rows;
`join_checks` looks at all places where branches of a Functional model meet, found in its graph.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from kfusion.doctor.drawn_rows import batches, few_rows
from kfusion.doctor.layer_calls import calls, digests, rolled
from kfusion.tasks import Task

NUM_COMPONENTS = 128
# Numbers of an image that principal components are looked for in.
MOST_PIXELS = 6_000


class Join(NamedTuple):
    """The layer in which branches meet.

    Attributes:
        number: Int, of its call.
        name: Of the layer or operation.
        branches: Names of the parts that it is given, in their order: those of the inputs that a
            part depends on, numbered where several depend on the same.
    """

    number: int
    name: str
    branches: tuple[str, ...]


def find_join(model: keras.Model, x: Mapping[str, np.ndarray], seed: int = 0) -> Join | None:
    """Finds by running the model where parts that depend on different inputs are first joined.

    That is the first layer given several vectors which together depend on all inputs, though none
    does alone. Of a model with one input it is the last layer that is given several vectors.

    Args:
        model: Any `keras.Model`.
        x: Arrays `(rows, ...)` by the name of the input.
        seed: Int, of the draw of rows.

    Returns:
        `Join`, or None if no layer is given several vectors in this way.

    Raises:
        UndecidableError: If the model does not run on these rows.
    """
    positions = few_rows(x, 16, seed)
    batch = {name: array[positions] for name, array in x.items()}
    before = digests(model, batch)
    after = {name: digests(model, rolled(batch, name)) for name in batch}
    found = None
    for number, parts in before.items():
        if len(parts) < 2:
            continue
        depends = [
            frozenset(
                name for name in batch if after[name].get(number, parts)[place] != parts[place]
            )
            for place in range(len(parts))
        ]
        # Parts that depend on nothing are weights or shapes.
        if not all(depends):
            continue
        call = calls(model, batch, {number})[number]
        if not call.joins or any(tensor.ndim != 2 for tensor in call.tensors):
            continue
        join = Join(number, call.operation.name, _names(depends))
        if len(batch) == 1:
            found = join
        elif frozenset().union(*depends) == set(batch) not in depends:
            return join
    return found


def _names(depends: list[frozenset[str]]) -> tuple[str, ...]:
    names = [" + ".join(sorted(inputs)) for inputs in depends]
    return tuple(
        f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    )


def features_at(
    model: keras.Model, x: Mapping[str, np.ndarray], join: Join
) -> dict[str, np.ndarray]:
    """`(rows, width)` features of each branch where they meet, by the branch's name."""
    parts = [calls(model, batch, {join.number})[join.number].tensors for batch in batches(x)]
    joined = (np.concatenate(of_branch) for of_branch in zip(*parts, strict=True))
    return dict(zip(join.branches, joined, strict=True))


def flat_input(array: np.ndarray) -> np.ndarray:
    """An input as `(rows, numbers)`, missing ones 0 with a flag; large images thinned out."""
    if array.ndim == 4:
        step = 1
        while array[:1, ::step, ::step].size > MOST_PIXELS:
            step += 1
        array = array[:, ::step, ::step]
    flat = array.reshape(len(array), -1).astype(np.float64)
    wrong = ~np.isfinite(flat)
    if not wrong.any():
        return flat
    return np.concatenate([np.where(wrong, 0.0, flat), wrong], axis=1)


def judge_alone(
    train: np.ndarray, y: np.ndarray, judged: np.ndarray, task: Task, seed: int = 0
) -> np.ndarray | None:
    """What a small linear model learns from features and says of other rows.

    Logistic regression, or ridge regression with a penalty chosen by leaving rows out, on
    standardised features: their first 128 principal components if there are more.

    Args:
        train: `(rows, width)` features.
        y: `(rows,)` labels from 0, or values.
        judged: `(other rows, width)` features.
        task: `Task`.
        seed: Int, of the search for components.

    Returns:
        `(other rows, units)` probabilities or values, or None if these rows teach nothing: they
        hold one class only, or features that are not finite.
    """
    if not (np.isfinite(train).all() and np.isfinite(judged).all()) or len(np.unique(y)) < 2:
        return None
    steps: list[Any] = [StandardScaler()]
    if min(train.shape) > NUM_COMPONENTS:
        steps.append(PCA(NUM_COMPONENTS, svd_solver="randomized", random_state=seed))
    is_regression = task.kind == "regression"
    steps.append(
        RidgeCV(np.logspace(-2, 4, 13))
        if is_regression
        else LogisticRegression(C=0.1, max_iter=200)
    )
    model = make_pipeline(*steps)
    # On several threads, beside those of the backend, it takes up to twenty times as long.
    with warnings.catch_warnings(), threadpool_limits(1):
        # Nearly there is near enough.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train, y)
        told = model.predict(judged)[:, None] if is_regression else model.predict_proba(judged)
    if is_regression:
        return told
    if task.kind == "binary":
        return told[:, 1:]
    answer = np.zeros((len(judged), task.units))
    answer[:, model.classes_] = told
    return answer
