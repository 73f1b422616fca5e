"""Epochs of stacked members on tensorflow: `vectorized_map` within a loop, an epoch one graph."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from kfusion.stacked.stacked_epochs import Members, StackedEpochs, batch_starts, joined, take_batch


class TensorflowEpochs(StackedEpochs):
    """`StackedEpochs` whose state is in variables, as Keras' optimizers want it there."""

    _flat: list[keras.Variable]
    _slots: list[np.ndarray]

    def start(self, members: Members) -> None:
        import tensorflow as tf

        flat = [values.reshape(len(values), -1) for values in members.trainables]
        rest = {
            "states": members.states,
            "seeds": self.seeds_of(members),
            **self.settings_of(members),
        }
        self._judged = members.judged
        if self.optimizer.built:
            for variable, values in zip(self._flat, flat, strict=True):
                variable.assign(values)
            for variable, values in zip(self.optimizer.variables, self._slots, strict=True):
                variable.assign(values)
            tf.nest.map_structure(
                lambda variable, values: variable.assign(values), self._rest, rest
            )
            return
        self._flat = [keras.Variable(values) for values in flat]
        self._rest: Any = tf.nest.map_structure(tf.Variable, rest)
        self.optimizer.build(self._flat)
        self._slots = [v.numpy() for v in self.optimizer.variables]
        self._train = tf.function(self._run_epoch, autograph=False)
        self._predict = tf.function(self._run_judging, autograph=False)

    def train(self, orders: np.ndarray, batch_size: int) -> np.ndarray:
        members, num_rows = orders.shape
        num_whole = num_rows // batch_size
        whole = orders[:, : num_whole * batch_size].reshape(members, num_whole, batch_size)
        left = orders[:, num_whole * batch_size :]
        told = self._train(ops.convert_to_tensor(whole.swapaxes(0, 1)), ops.convert_to_tensor(left))
        return told.numpy() / num_rows

    def predict(self) -> np.ndarray:
        num_rows = self._judged.shape[-1]
        starts, size = batch_starts(num_rows)
        positions = np.stack([self._judged[..., start : start + size] for start in starts])
        parts = self._predict(ops.convert_to_tensor(positions))
        return joined(parts.numpy(), starts, num_rows)

    def weights(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        flat = [v.numpy() for v in self._flat]
        return [each.reshape(-1, *shape) for each, shape in zip(flat, self.shapes, strict=True)], [
            v.numpy() for v in self._rest["states"]
        ]

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
        gradients = tape.gradient(total, flat)
        self.use_rates(rest["highest"], rest["decays"])
        self.optimizer.apply(gradients, self._flat)
        for variable, values in zip(rest["states"], states, strict=True):
            variable.assign(values)
        rest["seeds"].assign(seeds)
        return tf.stack([losses, metrics]) * orders.shape[1]

    def _run_epoch(self, whole, left):
        import tensorflow as tf

        number, members = whole.shape[0], whole.shape[1]
        _, told = tf.while_loop(
            lambda step, told: step < number,
            lambda step, told: (
                step + 1,
                told + self._step(tf.ensure_shape(whole[step], whole.shape[1:])),
            ),
            (0, tf.zeros((2, members))),
        )
        return told + self._step(left) if left.shape[1] else told

    def _run_judging(self, positions):
        import tensorflow as tf

        variables = [v.value for v in self._flat], self._rest["states"], self._rest["seeds"]

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
