"""What a member of a stack is held against: the same training by plain Keras steps of one model."""

import keras
import numpy as np

from kfusion.models.prediction import predict
from kfusion.training.compiling import compile_model
from kfusion.training.fitting import seed_layers


def orders_of(seed, rows, epochs):
    """NumPy's draws from the seed, as Keras takes them on jax: the first one for building."""
    random = np.random.RandomState(seed)
    return [random.permutation(rows) for _ in range(epochs + 1)][1:]


def train_alone(
    build, x, y, *, task, seed, batch_size, epochs, positions=None, weights=None, judge=None, **fit
):
    """Trains one compiled model over a member's batches.

    Returns the mean loss of each epoch, and what the model says of `judge` after it.
    """
    keras.utils.set_random_seed(seed)
    model = build()
    seed_layers(model, seed)
    positions = np.arange(len(y)) if positions is None else positions
    steps = -(-len(positions) // batch_size)
    compile_model(
        model, task=task, learning_rate_schedule="cosine", num_steps=epochs * steps,
        steps_per_epoch=steps, **fit,
    )  # fmt: skip
    losses, predictions = [], []
    for order in orders_of(seed, len(positions), epochs):
        total = 0.0
        for start in range(0, len(order), batch_size):
            batch = positions[order[start : start + batch_size]]
            model.reset_metrics()
            given = [y[batch]] if weights is None else [y[batch], weights[batch]]
            if isinstance(model.output, dict):
                given = [dict.fromkeys(model.output, values) for values in given]
            inputs = {name: values[batch] for name, values in x.items()}
            told = model.train_on_batch(inputs, *given, return_dict=True)
            total += len(batch) * float(told["loss"])
        losses.append(total / len(order))
        predictions.append(None if judge is None else predict(model, judge))
    return losses, predictions
