"""The branch that is ahead learns more slowly; nothing else changes."""

import keras
import numpy as np
import pytest

from kfusion import GradientModulation, build_fusion_model, fit, predict, tabular_branch, task
from kfusion.layers import GradientScale
from kfusion.training.gradient_modulation import modulation_coefficients


def build(fusion="concat", kind="binary", **keywords):
    keras.utils.set_random_seed(0)
    branches = {
        "strong": tabular_branch(1, units=4, input_name="told", name="strong_branch"),
        "weak": tabular_branch(2, units=4, input_name="noise", name="weak_branch"),
    }
    keywords = {"auxiliary_heads": True, "gradient_scales": True, **keywords}
    return build_fusion_model(branches, task=kind, fusion=fusion, head_units=4, **keywords)


def data(rows=64, classes=2):
    generator = np.random.default_rng(0)
    y = np.arange(rows) % classes
    noise = generator.normal(size=(rows, 2)).astype(np.float32)
    return {"told": (y[:, None] - 0.5).astype(np.float32), "noise": noise}, y


def moved(model, x, y):
    """How far one step of plain gradient descent moves each trainable weight."""
    before = [np.array(weight) for weight in model.trainable_weights]
    model.compile(keras.optimizers.SGD(0.5), loss="binary_crossentropy")
    targets = dict.fromkeys(model.output, y) if isinstance(model.output, dict) else y
    model.fit(x, targets, batch_size=len(y), epochs=1, verbose=0)
    weights = zip(model.trainable_weights, before, strict=True)
    return [np.array(weight) - start for weight, start in weights]


@pytest.mark.parametrize("auxiliary_heads", [False, True])
def test_only_the_scaled_branch_is_slower_by_exactly_that_factor(auxiliary_heads):
    x, y = data()
    plain = moved(build(auxiliary_heads=auxiliary_heads), x, y)
    model = build(auxiliary_heads=auxiliary_heads)
    model.get_layer("strong_gradient").coefficient.assign(0.25)
    scaled = moved(model, x, y)
    strong = {id(weight) for weight in model.get_layer("strong_branch").trainable_weights}
    is_strong = [id(weight) in strong for weight in model.trainable_weights]
    assert sum(is_strong) == 5  # scale, kernel and normalisation
    for factor, step, slower in zip(np.where(is_strong, 0.25, 1), plain, scaled, strict=True):
        assert np.any(step)
        np.testing.assert_allclose(slower, factor * step, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("fusion", ["concat", "film"])
def test_nothing_changes_at_inference(fusion):
    x, _ = data()
    with_scales, without = build(fusion), build(fusion, gradient_scales=False)
    for layer in with_scales.layers:
        if isinstance(layer, GradientScale):
            layer.coefficient.assign(0.1)
    without.set_weights([w for w in with_scales.get_weights() if np.ndim(w) > 0])
    np.testing.assert_array_equal(predict(with_scales, x), predict(without, x))


def test_coefficients_worked_by_hand():
    # 0.8 / 0.4 = 2 is above 1, 0.4 / 0.8 below.
    got = modulation_coefficients(np.array([0.8, 0.4]), 0.5)
    np.testing.assert_allclose(got, [1 - np.tanh(1.0), 1])
    # Of three: 0.9 / mean(0.3, 0.5) = 2.25, 0.3 / 0.7, 0.5 / 0.6.
    got = modulation_coefficients(np.array([0.9, 0.3, 0.5]), 0.1)
    np.testing.assert_allclose(got, [1 - np.tanh(0.225), 1, 1])


@pytest.mark.parametrize("classes", [2, 3])
def test_the_scores_of_the_heads_set_the_next_epochs_coefficients(classes):
    x, y = data(60, classes)
    made = task("binary" if classes == 2 else "multiclass", y=y)
    model = build(kind=made)
    callback = GradientModulation(x, y, task=made, alpha=0.3)
    fit(
        model,
        x,
        y,
        task=made,
        validation_data=None,
        epochs=2,
        optimizer="sgd",
        callbacks=[callback],
        verbose=0,
    )
    answers = model(x)
    scores = []
    for branch in ("strong", "weak"):
        given = np.asarray(answers[f"{branch}_prediction"])
        given = np.hstack([1 - given, given]) if classes == 2 else given
        scores.append(np.mean([row[label] for row, label in zip(given, y, strict=True)]))
    ahead = int(np.argmax(scores))
    expected = [1.0, 1.0]
    expected[ahead] = 1 - np.tanh(0.3 * scores[ahead] / scores[1 - ahead])
    assert len(callback.coefficients) == 2
    assert list(callback.coefficients[-1].values()) == pytest.approx(expected, rel=1e-4)
    now = [float(model.get_layer(f"{name}_gradient").coefficient) for name in ("strong", "weak")]
    assert now == pytest.approx(expected, rel=1e-4)


def test_the_next_epoch_uses_them():
    """Held back wholly, the branch that is ahead stays where the first epoch left it."""
    x, y = data()
    model = build()
    weights = {name: [] for name in ("strong", "weak")}

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            for name, kept in weights.items():
                trained = model.get_layer(f"{name}_branch").trainable_weights
                kept.append(np.concatenate([np.ravel(weight) for weight in trained]))

    modulation = GradientModulation(x, y, task="binary", alpha=1e3)
    fit(
        model,
        x,
        y,
        task="binary",
        validation_data=None,
        epochs=2,
        optimizer=keras.optimizers.SGD(0.1),
        callbacks=[modulation, Keep()],
        verbose=0,
    )
    first = modulation.coefficients[0]
    assert sorted(first.values()) == [0, 1]
    for name, (before, after) in weights.items():
        assert np.array_equal(before, after) == (first[name] == 0)


def test_a_model_without_scales_and_a_regression_are_refused():
    x, y = data()
    callback = GradientModulation(x, y, task="binary")
    for missing in ("auxiliary_heads", "gradient_scales"):
        model = build(**{missing: False})
        with pytest.raises(ValueError, match="no branches to modulate: build it with"):
            fit(model, x, y, task="binary", validation_data=None, callbacks=[callback], verbose=0)
    with pytest.raises(ValueError, match="a regression has none"):
        GradientModulation(x, y, task="regression")
    with pytest.raises(ValueError, match="`alpha` must be 0 or more. Received: alpha=-1"):
        GradientModulation(x, y, task="binary", alpha=-1)
