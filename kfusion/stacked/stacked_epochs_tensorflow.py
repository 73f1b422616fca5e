"""Epochs of stacked members on tensorflow: `vectorized_map` within a loop, an epoch one graph."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from kfusion.stacked.stacked_epochs import Members, StackedEpochs, take_batch


class TensorflowEpochs(StackedEpochs):
    """`StackedEpochs` whose state is in variables, as Keras' optimizers want it there."""

    _flat: list[keras.Variable]
    _slots: list[np.ndarray]

    def start(self, members: Members) -> None:
        import tensorflow as tf

        rest = {
            "states": members.states,
            "seeds": self.seeds_of(members),
            **self.settings_of(members),
        }
        self._judged = members.judged
        if self.optimizer.built:
            for variable, values in zip(self._flat, members.trainables, strict=True):
                variable.assign(values)
            for variable, values in zip(self.optimizer.variables, self._slots, strict=True):
                variable.assign(values)
            tf.nest.map_structure(
                lambda variable, values: variable.assign(values), self._rest, rest
            )
            return
        self._flat = [keras.Variable(values) for values in members.trainables]
        self._rest: Any = tf.nest.map_structure(tf.Variable, rest)
        self.optimizer.build(self._flat)
        self._slots = [v.numpy() for v in self.optimizer.variables]
        self._train = tf.function(self._run_epoch, autograph=False)
        self._predict = tf.function(self._run_judging, autograph=False)

    def train(self, orders: np.ndarray, batch_size: int) -> np.ndarray:
        told = self._train(ops.convert_to_tensor(orders), batch_size)
        return told.numpy() / orders.shape[1]

    def _predict_batches(self, positions: np.ndarray) -> np.ndarray:
        return self._predict(ops.convert_to_tensor(positions)).numpy()

    def weights(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        return [v.numpy() for v in self._flat], [v.numpy() for v in self._rest["states"]]

    def _step(self, orders):
        import tensorflow as tf

        flat, rest = [v.value for v in self._flat], self._rest
        weights = rest["row_weights"].value() if "row_weights" in rest else None
        batch = take_batch(self.rows.x, self.rows.y, orders, weights)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(flat)
            losses, metrics, states, seeds = self.member_losses(
                flat, rest["states"], rest["seeds"], rest, batch
            )
            total = tf.reduce_sum(losses)
        gradients = tape.gradient(total, flat, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        self.use_rates(rest["highest"], rest["decays"])
        self.optimizer.apply(gradients, self._flat)
        for variable, values in zip(rest["states"], states, strict=True):
            variable.assign(values)
        rest["seeds"].assign(seeds)
        return tf.stack([losses, metrics]) * tf.cast(tf.shape(orders)[1], losses.dtype)

    def _run_epoch(self, orders, batch_size: int):
        import tensorflow as tf

        members, num_rows = orders.shape

        def step(start, told):
            batch = orders[:, start : start + batch_size]
            if num_rows % batch_size == 0:
                batch = tf.ensure_shape(batch, (members, batch_size))
            # Else of two sizes by one trace, which takes longer than its steps gain by a known one.
            return start + batch_size, told + self._step(batch)

        start = (0, tf.zeros((2, members)))
        return tf.while_loop(lambda start, told: start < num_rows, step, start)[1]

    def _run_judging(self, positions):
        import tensorflow as tf

        flat = [v.value for v in self._flat]
        variables = flat, self._rest["states"], self._rest["seeds"]

        def judge(positions):
            inputs = {
                name: tf.gather(array, positions) for name, array in self.rows.judging.items()
            }
            return self.member_predictions(*variables, inputs, is_own=len(positions.shape) == 2)

        return tf.map_fn(judge, positions, fn_output_signature=tf.float32)

    def _vectorized_map(self, function, elements):
        import tensorflow as tf

        elements = tf.nest.map_structure(tf.convert_to_tensor, elements)
        return tf.vectorized_map(function, elements, warn=False)
