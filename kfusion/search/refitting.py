"""The training after the search: longer, from picked values, on all rows if asked."""

from __future__ import annotations

from typing import Any

import keras
import keras_tuner

from kfusion.data.rows import join_rows
from kfusion.devices import sharing
from kfusion.search.tuner import OptunaTuner
from kfusion.seeds import derive_seed


def refit(
    tuner: OptunaTuner,
    x: Any,
    y: Any,
    *,
    epochs: int | None = None,
    validation_data: tuple[Any, Any] | None = None,
    on_all_rows: bool = False,
    hyperparameters: keras_tuner.HyperParameters | None = None,
    seed: int | None = None,
    **keywords: Any,
) -> keras.Model:
    """Trains the best setting of a search anew.

    Args:
        tuner: `OptunaTuner` that has searched.
        x: As for `tuner.search`.
        y: `(rows,)` targets.
        epochs: Int; None for as many as the best trial's runs took to their best epoch, in the
            mean.
        validation_data: `(x, y)` of other rows.
        on_all_rows: Whether the validation rows are trained on too. Nothing then tells when to
            stop but `epochs`, and a `HyperModel.fit` of your own has to do without validation data.
        hyperparameters: Values to train with; None for the best trial's. A changed copy of
            `tuner.get_best_hyperparameters()[0]` is what picked values are.
        seed: Int; None for the search's.
        **keywords: For `HyperModel.fit`, such as `callbacks` or `batch_size`.

    Returns:
        The trained `keras.Model`.

    Raises:
        ValueError: If `on_all_rows` lacks the validation rows, or no trial completed.
    """
    trials = tuner.oracle.get_best_trials(1)
    if not trials:
        raise ValueError("No trial of this search has completed.")
    if on_all_rows and validation_data is None:
        raise ValueError("`on_all_rows` needs `validation_data`, the rows to train on as well.")
    values = hyperparameters or trials[0].hyperparameters
    if on_all_rows:
        assert validation_data is not None
        x, y, validation_data = (
            join_rows(x, validation_data[0]),
            join_rows(y, validation_data[1]),
            None,
        )
    keras.utils.set_random_seed(derive_seed(tuner.oracle.seed if seed is None else seed))
    model = tuner._build_hypermodel(values)
    if validation_data is not None:
        keywords["validation_data"] = validation_data
    if epochs is None:
        epochs = trials[0].num_epochs or trials[0].best_step + 1
    with sharing(tuner.distribution_strategy):
        tuner.hypermodel.fit(values, model, x, y, epochs=epochs, **keywords)
    return model
