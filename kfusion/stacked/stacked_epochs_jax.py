"""Epochs of stacked members on jax: `vmap` within `lax.scan`, an epoch one program."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from kfusion.stacked.stacked_epochs import Members, StackedEpochs, take_batch


class JaxEpochs(StackedEpochs):
    """`StackedEpochs` whose whole state goes in and out of compiled functions."""

    def start(self, members: Members) -> None:
        import jax

        flat = members.trainables
        if not self.optimizer.built:
            self.optimizer.build([keras.Variable(values) for values in flat])
            self._slots = [np.asarray(v.value) for v in self.optimizer.variables]
            self._train = jax.jit(self._run_epoch, donate_argnums=0)
            self._predict = jax.jit(self._run_judging)
        self._state: Any = jax.tree.map(
            jax.numpy.array, (flat, self._slots, members.states, self.seeds_of(members))
        )
        self._settings = {
            name: ops.convert_to_tensor(each) for name, each in self.settings_of(members).items()
        }
        self._judged = members.judged

    def train(self, orders: np.ndarray, batch_size: int) -> np.ndarray:
        members, num_rows = orders.shape
        num_whole = num_rows // batch_size
        whole = orders[:, : num_whole * batch_size].reshape(members, num_whole, batch_size)
        left = orders[:, num_whole * batch_size :]
        self._state, told = self._train(
            self._state, self._settings, (self.rows.x, self.rows.y), whole.swapaxes(0, 1), left
        )
        return np.asarray(told) / num_rows

    def _predict_batches(self, positions: np.ndarray) -> np.ndarray:
        flat, _, states, seeds = self._state
        return np.asarray(self._predict((flat, states, seeds), self.rows.judging, positions))

    def weights(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        flat, _, states, _ = self._state
        return [np.asarray(v) for v in flat], [np.asarray(v) for v in states]

    def _run_epoch(self, state, settings, data, whole, left):
        import jax

        def step(state, orders):
            flat, slots, states, seeds = state
            batch = take_batch(*data, orders, settings.get("row_weights"))

            def total(flat):
                losses, metrics, *moved = self.member_losses(flat, states, seeds, settings, batch)
                return losses.sum(), (losses, metrics, moved)

            (_, (losses, metrics, moved)), gradients = jax.value_and_grad(total, has_aux=True)(flat)
            self.use_rates(settings["highest"], settings["decays"])
            flat, slots = self.optimizer.stateless_apply(slots, gradients, flat)
            told = ops.stack([losses, metrics]) * orders.shape[1]
            return (flat, slots, *moved), told

        state, told = jax.lax.scan(step, state, whole)
        told = told.sum(axis=0)
        if left.shape[1]:
            state, of_left = step(state, left)
            told = told + of_left
        return state, told

    def _run_judging(self, variables, judging, positions):
        import jax

        def judge(positions):
            inputs = {name: ops.take(array, positions, axis=0) for name, array in judging.items()}
            return self.member_predictions(*variables, inputs, is_own=positions.ndim == 2)

        return jax.lax.map(judge, positions)

    def _vectorized_map(self, function, elements):
        return ops.vectorized_map(function, elements)
