"""Gates row by row: what is known of a model whose gate was set by hand."""

import keras
import numpy as np
import pytest

from kfusion import build_fusion_model, gate_values, tabular_branch
from kfusion.layers import GatedFusion

X = {"a": np.random.default_rng(0).normal(size=(12, 3)), "b": np.zeros((12, 2))}


def build(fusion):
    branches = {
        name: tabular_branch(X[name].shape[1], units=4, input_name=name, name=name + "_branch")
        for name in X
    }
    return build_fusion_model(branches, task="binary", fusion=fusion)


def test_gates_are_shares_of_the_branches_by_name():
    values = gate_values(build("gated"), X)
    assert list(values) == ["a_branch", "b_branch"]
    np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-6)
    assert values["a_branch"].std() > 0


def test_a_gate_set_by_hand():
    """Biases of log 3 for the first branch's units: it counts three to one, whatever the row."""
    model = build("gated")
    fusion = next(layer for layer in model.layers if isinstance(layer, GatedFusion))
    kernel, bias = fusion._gate.get_weights()
    half = len(bias) // 2
    fusion._gate.set_weights([0 * kernel, np.repeat([np.log(3), 0], half)])
    np.testing.assert_allclose(gate_values(model, X)["a_branch"], 0.75, atol=1e-6)


@pytest.mark.parametrize("fusion", ["concat", "multiply"])
def test_other_fusions_have_none(fusion):
    with pytest.raises(ValueError, match="must have one GatedFusion.*has 0"):
        gate_values(build(fusion), X)


def test_the_model_is_as_it_was():
    model = build("gated")
    before = [weight.copy() for weight in model.get_weights()]
    gate_values(model, X)
    for weight, same in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, same)
    assert isinstance(model, keras.Model)
