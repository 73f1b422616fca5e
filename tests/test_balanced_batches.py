"""Counts of classes and rows in batches, and training on them with plain Keras."""

import keras
import numpy as np
import pytest

from kfusion.data.balanced_batches import BalancedBatches

# 5 % positives; each row's feature is its number.
LABELS = (np.arange(1000) % 20 == 0).astype(int)
FEATURES = np.arange(1000, dtype=np.float32)[:, None]


def batches_of(labels, batch_size, seed=0):
    features = np.arange(len(labels), dtype=np.float32)[:, None]
    return BalancedBatches(features, labels, labels, batch_size=batch_size, seed=seed)


def epochs_of(batches, count):
    """`(epochs, batches, batch_size)` row numbers as the model sees them."""
    seen = []
    for _ in range(count):
        seen.append([x[:, 0] for x, _ in batches])
        batches.on_epoch_end()
    return np.array(seen, np.int64)


@pytest.mark.parametrize("batch_size", [1, 2, 15, 16, 64, 3000])
def test_an_epoch_is_as_long_as_a_plain_one_and_each_batch_half_positive(batch_size):
    batches = batches_of(LABELS, batch_size)
    assert len(batches) == int(np.ceil(1000 / batch_size))
    counts = np.array([np.bincount(y, minlength=2) for _, y in batches])
    assert (counts.sum(axis=1) == batch_size).all()
    assert (np.abs(counts[:, 0] - counts[:, 1]) <= batch_size % 2).all()


def test_classes_of_many_take_turns_over_small_batches():
    labels = np.arange(450) % 90
    batches = batches_of(labels, 16)
    assert batches.training_rates == pytest.approx([1 / 90] * 90)
    drawn = labels[epochs_of(batches, 40)]
    # No class twice in a batch, and in an epoch of 29 x 16 slots each class 5 or 6 times.
    assert all(np.unique(batch).size == 16 for epoch in drawn for batch in epoch)
    counts = np.array([np.bincount(epoch.ravel(), minlength=90) for epoch in drawn])
    assert set(counts.ravel().tolist()) == {5, 6}
    # The 14 odd slots of an epoch go to other classes each time.
    assert counts.sum(axis=0).max() - counts.sum(axis=0).min() < 20


def test_counts_of_three_classes_differ_by_one_at_most():
    labels = np.repeat([0, 1, 2], [700, 250, 50])
    for _, y in batches_of(labels, 16):
        assert np.ptp(np.bincount(y)) <= 1


def test_no_row_comes_back_before_its_class_was_seen():
    rows = epochs_of(batches_of(LABELS, 16), 6).ravel()
    for label in (0, 1):
        members = np.flatnonzero(label == LABELS)
        drawn = rows[LABELS[rows] == label]
        cycles = drawn[: drawn.size // members.size * members.size].reshape(-1, members.size)
        assert len(cycles) >= 3
        for cycle in cycles:
            np.testing.assert_array_equal(np.sort(cycle), members)
        assert (cycles[0] != cycles[1]).any()


def test_every_row_is_seen_in_enough_epochs():
    # 950 negatives, 504 of them in an epoch.
    assert np.unique(epochs_of(batches_of(LABELS, 16), 2)).size == 1000


def test_a_class_with_a_single_row_is_in_every_batch():
    labels = np.array([0] * 99 + [1])
    rows = epochs_of(batches_of(labels, 8), 3)
    assert ((rows == 99).sum(axis=2) == 4).all()


def test_rare_rows_in_a_large_set_are_drawn_quickly():
    labels = np.zeros(300_000, np.int64)
    labels[7] = 1
    batches = batches_of(labels, 256)
    assert (labels[batches.rows(0)] == 1).sum() == 128


def test_a_seed_fixes_the_order_and_epochs_differ():
    first, again, other = (epochs_of(batches_of(LABELS, 16, seed), 3) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first[0] != first[1]).any()


def test_a_batch_is_the_same_however_often_it_is_asked_for():
    batches = batches_of(LABELS, 16)
    np.testing.assert_array_equal(batches[3][0], batches[3][0])


def test_rates_say_what_is_drawn_and_what_there_is():
    batches = batches_of(np.array([0, 0, 0, 1, 3, 3]), 3)
    assert batches.true_rates == pytest.approx((1 / 2, 1 / 6, 0, 1 / 3))
    assert batches.training_rates == pytest.approx((1 / 3, 1 / 3, 0, 1 / 3))


def test_all_parts_of_a_batch_are_of_the_same_rows(tmp_path):
    np.save(tmp_path / "images.npy", np.arange(4000, dtype=np.float32).reshape(1000, 2, 2))
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    batches = BalancedBatches(
        {"image": images, "tabular": FEATURES},
        {"prediction": LABELS, "age": np.arange(1000) * 0.5},
        LABELS,
        batch_size=16,
        seed=0,
        sample_weight={"prediction": np.arange(1000) * 2.0, "age": np.arange(1000) * 3.0},
    )
    x, y, weights = batches[0]
    rows = batches.rows(0)
    np.testing.assert_array_equal(x["image"], images[rows])
    np.testing.assert_array_equal(x["tabular"][:, 0], rows)
    np.testing.assert_array_equal(y["prediction"], LABELS[rows])
    np.testing.assert_array_equal(y["age"], rows * 0.5)
    np.testing.assert_array_equal(weights["age"], rows * 3.0)
    assert np.shares_memory(batches._data[0]["image"], images)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("form", ["array", "list", "dict"])
def test_keras_trains_on_it(form, workers):
    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    y = np.append(np.zeros(180, int), np.ones(20, int))
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    joined = a if form == "array" else keras.layers.Concatenate()([a, b])
    heads = {
        name: keras.layers.Dense(1, "sigmoid", name=name)(joined) for name in ("main", "auxiliary")
    }
    inputs, features, outputs, targets = {
        "array": (a, x, heads["main"], y),
        "list": ([a, b], [x, x], heads["main"], y),
        "dict": ({"a": a, "b": b}, {"a": x, "b": x}, heads, dict.fromkeys(heads, y)),
    }[form]
    model = keras.Model(inputs, outputs)
    model.compile("sgd", loss="binary_crossentropy")
    batches = BalancedBatches(
        features,
        targets,
        y,
        batch_size=16,
        seed=0,
        sample_weight=dict.fromkeys(heads, np.ones(200)) if form == "dict" else np.ones(200),
        workers=workers,
    )
    first = batches.rows(0).copy()
    history = model.fit(batches, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert (batches.rows(0) != first).any()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"labels": np.zeros(1000, int)}, ValueError, "holds one class only \\(0\\)"),
        ({"labels": LABELS - 1}, ValueError, "0 or more. Received: -1 in row 1"),
        ({"labels": LABELS * 1.0}, ValueError, "must be ints .* dtype=float64"),
        ({"labels": LABELS[:, None]}, ValueError, "shape \\(rows,\\). Received: shape=\\(1000, 1"),
        ({"inputs": {"a": FEATURES[1:]}}, ValueError, "labels has 1000, inputs a has 999"),
        ({"sample_weight": np.ones(3)}, ValueError, "sample_weight has 3"),
        (
            {"labels": LABELS[:0], "inputs": FEATURES[:0], "outputs": LABELS[:0]},
            ValueError,
            "There are no rows",
        ),
        ({"batch_size": 0}, ValueError, "`batch_size` must be 1 or more. Received: 0"),
        ({"batch_size": 2.5}, TypeError, "float"),
    ],
)
def test_data_that_cannot_be_balanced_is_an_error(changes, error, message):
    given = {"inputs": FEATURES, "outputs": LABELS, "labels": LABELS, "batch_size": 16} | changes
    with pytest.raises(error, match=message):
        BalancedBatches(**given, seed=0)


def test_a_batch_beyond_the_epoch_is_an_error():
    with pytest.raises(IndexError, match="The epoch has 63 batches. Received: index=63"):
        batches_of(LABELS, 16)[63]
