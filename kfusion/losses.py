"""Losses of what a head gives: softer targets, rare classes, ensembles of separate members."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

# As in Keras' own cross-entropies.
SMALLEST_PROBABILITY = 1e-7


@keras.saving.register_keras_serializable(package="kfusion")
class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy with targets that are a little less than certain.

    The target of the true class is `1 - label_smoothing + label_smoothing / classes`, that of each
    other one `label_smoothing / classes`, so that no prediction gains by growing surer than that.
    It takes what `FocalCrossentropy` takes; on one-hot labels Keras' `BinaryCrossentropy` and
    `CategoricalCrossentropy` with the same `label_smoothing` are the same.

    Source: Szegedy et al., 2016, arXiv:1512.00567, section 7.

    Args:
        label_smoothing: Float in [0, 1); 0 gives plain cross-entropy.
        name: Name of the loss.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`.

    Raises:
        ValueError: If `label_smoothing` is outside of [0, 1); when called, if predictions are not
            `(rows, columns)` or labels not `(rows,)` or `(rows, 1)`.

    Example:
        >>> loss = SmoothedCrossentropy(label_smoothing=0.1)
        >>> round(float(loss(np.array([1]), np.array([[0.8]]))), 4)  # -.95 log(.8) - .05 log(.2)
        0.2925
    """

    def __init__(self, label_smoothing=0.1, name="smoothed_crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.label_smoothing = checked_smoothing(label_smoothing)

    def call(self, y_true, y_pred):
        _check_columns(y_pred)
        labels = _labels(y_true)
        # On tensorflow Keras' own go back to the logits: what is far too sure keeps its slope.
        if y_pred.shape[-1] == 1:
            is_positive = ops.cast(labels[:, None], y_pred.dtype)
            targets = _smoothed(is_positive, 2, self.label_smoothing)
            return keras.losses.binary_crossentropy(targets, y_pred)
        targets = _targets(labels, y_pred, self.label_smoothing)
        return keras.losses.categorical_crossentropy(targets, y_pred)

    def get_config(self):
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


@keras.saving.register_keras_serializable(package="kfusion")
class FocalCrossentropy(keras.losses.Loss):
    """Cross-entropy in which rows that are predicted well count less.

    `-(1 - p)**gamma * log(p)` of the probability p of the true class. It takes what a head of this
    package gives: one column of sigmoid probabilities or one softmax column per class, against
    labels that are ints. On one-hot labels Keras' `BinaryFocalCrossentropy` and
    `CategoricalFocalCrossentropy` without balancing are the same. With smoothed labels it is the
    sum of that over the classes, each times its target (`SmoothedCrossentropy`).

    The outputs of a model trained so rank rows, but are drawn towards the middle: calibrate them
    (`fit_temperature`) before reading them as probabilities.

    Source: Lin et al., 2017, arXiv:1708.02002.

    Args:
        gamma: Float of 0 or more; 0 gives plain cross-entropy.
        label_smoothing: Float in [0, 1), share of each target that is spread over all classes.
        name: Name of the loss.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`.

    Raises:
        ValueError: If `gamma` is below 0 or not finite, or `label_smoothing` outside of [0, 1);
            when called, if predictions are not `(rows, columns)` or labels not `(rows,)` or
            `(rows, 1)`.

    Example:
        >>> loss = FocalCrossentropy(gamma=2.0)
        >>> round(float(loss(np.array([1]), np.array([[0.8]]))), 4)  # 0.2**2 * -log(0.8)
        0.0089
    """

    def __init__(self, gamma=2.0, label_smoothing=0.0, name="focal_crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.gamma = _checked_gamma(gamma)
        self.label_smoothing = checked_smoothing(label_smoothing)

    def call(self, y_true, y_pred):
        log_probabilities = ops.log_softmax(_log_columns(y_pred))
        return _focal(y_true, log_probabilities, self.gamma, self.label_smoothing)

    def get_config(self):
        config = {"gamma": self.gamma, "label_smoothing": self.label_smoothing}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="kfusion")
class PriorShiftedCrossentropy(keras.losses.Loss):
    """Cross-entropy for batches in which classes are more or less frequent than in truth.

    Balanced batches teach a model that each class is equally likely. Here the model's outputs p
    stay probabilities at the true rates, and it is their image at the rates of the batches,
    `p_k * training_rate_k / true_rate_k` scaled to sum to 1, that is compared with the labels.
    The predictions need no correction afterwards, and a head whose bias starts at the true rates
    (`Task.output_bias`) starts right.

    Source: the change of rates, Saerens, Latinne & Decaestecker, 2002, Neural Computation
    14:21-41; inside a loss (logit adjustment), Menon et al., 2021, arXiv:2007.07314.

    Args:
        training_rates: `(classes,)` floats, share of each class in the batches; 0.5 and 0.5 for
            balanced batches of two classes.
        true_rates: `(classes,)` floats, share of each class where the model is to be used. A
            class whose rates are both 0 is left as it is.
        gamma: Float of 0 or more, weakens rows that are predicted well as `FocalCrossentropy`
            does (the outputs are then no longer probabilities); 0 does not.
        label_smoothing: Float in [0, 1), share of each target, at the rates of the batches, that is
            spread over all classes (the outputs are then no longer at the true rates).
        name: Name of the loss.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`.

    Raises:
        ValueError: If the rates differ in length, are fewer than 2, do not sum to 1, or are 0 in
            one of both only, `gamma` is below 0, or `label_smoothing` outside of [0, 1); when
            called, if the model has another number of classes.

    Example:
        >>> loss = PriorShiftedCrossentropy(training_rates=[0.5, 0.5], true_rates=[0.95, 0.05])
        >>> at_the_prior = np.array([[0.05]])  # 0.5 in the batches
        >>> round(float(loss(np.array([1]), at_the_prior)), 4)  # -log(0.5)
        0.6931
    """

    def __init__(
        self,
        training_rates: Sequence[float],
        true_rates: Sequence[float],
        gamma=0.0,
        label_smoothing=0.0,
        name="prior_shifted_crossentropy",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.training_rates = _checked_rates(training_rates, "training_rates")
        self.true_rates = _checked_rates(true_rates, "true_rates")
        self.gamma = _checked_gamma(gamma)
        self.label_smoothing = checked_smoothing(label_smoothing)
        self._log_ratios = _log_ratios(self.training_rates, self.true_rates)

    def call(self, y_true, y_pred):
        columns = _log_columns(y_pred)
        if columns.shape[-1] != len(self._log_ratios):
            raise ValueError(
                f"The loss has rates of {len(self._log_ratios)} classes, but the model predicts "
                f"{columns.shape[-1]}."
            )
        shifted = columns + ops.convert_to_tensor(self._log_ratios, dtype=columns.dtype)
        return _focal(y_true, ops.log_softmax(shifted), self.gamma, self.label_smoothing)

    def get_config(self):
        return {
            **super().get_config(),
            "training_rates": self.training_rates,
            "true_rates": self.true_rates,
            "gamma": self.gamma,
            "label_smoothing": self.label_smoothing,
        }


@keras.saving.register_keras_serializable(package="kfusion")
class MeanOverMembers(keras.losses.Loss):
    """The mean of the losses of an ensemble's members, each judged by itself.

    The loss of the members' mean prediction would let them lean on each other's mistakes; judged
    one by one, they stay different networks whose mean is better than any of them.

    Source: the training of TabM, Gorishniy, Kotelnikov & Babenko, 2024, arXiv:2410.24210.

    Args:
        loss: Name of a Keras loss, or a loss, of one prediction.
        name: Name of the loss.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`.

    Takes `(rows, members, units)` predictions and `(rows,)` or `(rows, 1)` targets.

    Raises:
        ValueError: When called, if predictions have another rank.

    Example:
        >>> loss = MeanOverMembers("binary_crossentropy")
        >>> members = np.array([[[0.8], [0.4]]])
        >>> round(float(loss(np.array([1]), members)), 4)  # -(log(0.8) + log(0.4)) / 2
        0.5697
    """

    def __init__(self, loss, name="mean_over_members", **kwargs):
        super().__init__(name=name, **kwargs)
        self.loss = keras.losses.get(loss)

    def call(self, y_true, y_pred):
        if len(y_pred.shape) != 3:
            raise ValueError(
                "Predictions must be (rows, members, units). Received: "
                f"shape={tuple(y_pred.shape)}."
            )
        _, members, units = y_pred.shape
        # A row for each member: losses of this module take (rows, units).
        targets = ops.repeat(ops.reshape(y_true, (-1, 1)), members, axis=0)
        function = getattr(self.loss, "call", self.loss)
        losses = function(targets, ops.reshape(y_pred, (-1, units)))
        return ops.mean(ops.reshape(losses, (-1, members)), axis=1)

    def get_config(self):
        return {**super().get_config(), "loss": keras.losses.serialize(self.loss)}


def checked_smoothing(label_smoothing) -> float:
    """A share that labels can be smoothed by, as a float.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is outside of [0, 1).
    """
    is_number = isinstance(label_smoothing, (int, float, np.floating))
    if isinstance(label_smoothing, bool) or not is_number:
        raise TypeError(
            "`label_smoothing` must be a number, 0 for none. Received: "
            f"{label_smoothing!r} ({type(label_smoothing).__name__})."
        )
    if not 0 <= label_smoothing < 1:
        raise ValueError(
            f"`label_smoothing` must be 0 or more and below 1. Received: {label_smoothing!r}."
        )
    return float(label_smoothing)


def _check_columns(y_pred) -> None:
    if len(y_pred.shape) != 2:
        raise ValueError(
            "Predictions must be (rows, 1) of a sigmoid or (rows, classes) of a softmax. "
            f"Received: shape={tuple(y_pred.shape)}."
        )


def _log_columns(y_pred):
    """Logarithms of `(rows, classes)` probabilities, from those or from one sigmoid column."""
    _check_columns(y_pred)
    if y_pred.shape[-1] == 1:
        y_pred = ops.concatenate([1 - y_pred, y_pred], axis=-1)
    return ops.log(ops.clip(y_pred, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY))


def _labels(y_true):
    """Labels as `(rows,)` ints."""
    if len(y_true.shape) > 2 or (len(y_true.shape) == 2 and y_true.shape[-1] != 1):
        raise ValueError(
            "Labels must be ints of shape (rows,); turn one-hot labels into `y.argmax(axis=1)`. "
            f"Received: shape={tuple(y_true.shape)}."
        )
    return ops.cast(ops.reshape(y_true, (-1,)), "int32")


def _smoothed(is_true, num_classes: int, label_smoothing):
    """Targets between 0 and 1 of ones and zeros; the share may be a tensor."""
    return (1 - label_smoothing) * is_true + label_smoothing / num_classes


def _targets(labels, columns, label_smoothing):
    """Targets of a shape and type as `(rows, classes)` columns have."""
    num_classes = columns.shape[-1]
    is_true = ops.one_hot(labels, num_classes, dtype=columns.dtype)
    return _smoothed(is_true, num_classes, label_smoothing)


def _focal(y_true, log_probabilities, gamma: float, label_smoothing):
    """Loss of each row, `(rows,)`, from labels and `(rows, classes)` log-probabilities."""
    losses = -log_probabilities
    if gamma:
        # Kept off 0, where the slope of a power below 1 is infinite.
        missed = ops.maximum(-ops.expm1(log_probabilities), SMALLEST_PROBABILITY)
        losses = ops.power(missed, gamma) * losses
    targets = _targets(_labels(y_true), log_probabilities, label_smoothing)
    return ops.sum(targets * losses, axis=-1)


def _checked_gamma(gamma) -> float:
    if not (np.isfinite(gamma) and gamma >= 0):
        raise ValueError(f"`gamma` must be a finite number of 0 or more. Received: {gamma!r}.")
    return float(gamma)


def _checked_rates(rates, name: str) -> list[float]:
    values = np.asarray(rates, np.float64)
    if values.ndim != 1 or values.size < 2:
        raise ValueError(
            f"`{name}` must hold one share per class, of 2 classes at least. Received: {rates!r}."
        )
    # Written so that NaN fails too.
    if not ((values >= 0).all() and abs(values.sum() - 1) < 1e-3):
        raise ValueError(
            f"`{name}` must be shares of 0 or more that sum to 1. Received: {rates!r}."
        )
    return (values / values.sum()).tolist()


def _log_ratios(training_rates: list[float], true_rates: list[float]) -> list[float]:
    """`log(training_rate / true_rate)` of each class; 0 where a class is in neither."""
    if len(training_rates) != len(true_rates):
        raise ValueError(
            f"`training_rates` has {len(training_rates)} classes, `true_rates` {len(true_rates)}."
        )
    training, true = np.array(training_rates), np.array(true_rates)
    one_sided = np.flatnonzero((training > 0) != (true > 0))
    if one_sided.size:
        label = one_sided[0]
        raise ValueError(
            f"Class {label} must have both rates above 0, or both 0. Received: training rate "
            f"{training[label]:g}, true rate {true[label]:g}."
        )
    absent = training == 0
    return np.log(np.where(absent, 1, training) / np.where(absent, 1, true)).tolist()
