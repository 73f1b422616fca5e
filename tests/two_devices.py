"""What two devices give beside what one gives, as lines of JSON; see test_devices.py.

A program of its own, since devices are counted when a process starts: on jax, XLA_FLAGS has to say
`--xla_force_host_platform_device_count=2` before.
"""

import json
import sys
import tempfile
import warnings
from functools import partial

import keras
import numpy as np

import kfusion as kf

ON_JAX = keras.backend.backend() == "jax"
warnings.simplefilter("ignore")


def two_devices():
    if ON_JAX:
        return keras.distribution.DataParallel()
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


DEVICES = two_devices()


def draw(rows, seed):
    random = np.random.default_rng(seed)
    x = {
        "image": random.integers(0, 256, (rows, 4, 4, 3)).astype("uint8"),
        "tabular": random.normal(size=(rows, 3)).astype("float32"),
    }
    return x, (x["tabular"][:, 0] + random.normal(size=rows) > 0).astype(int)


def draw_inputs(rows, seed):
    """Inputs of the branches: with missing values, sequences of all lengths, a column of years."""
    random = np.random.default_rng(seed)
    embedding = random.normal(3, 2, (rows, 16)).astype("float32")
    # More is missing among the rows of the one device than of the other.
    embedding[: rows // 3, :4] = np.nan
    steps = random.normal(size=(rows, 12, 3)).astype("float32")
    steps[np.arange(12) >= np.arange(rows)[:, None] % 13] = np.nan
    years = random.normal((0, 0, 2000), (1, 1, 5), (rows, 3)).astype("float32")
    images = random.integers(0, 256, (rows, 8, 8, 3)).astype("uint8")
    x = {"embedding": embedding, "sequence": steps, "image": images, "tabular": years}
    return x, (random.normal(size=rows) > 0).astype(int)


BRANCHES = {
    "embedding": partial(kf.embedding_branch, 16, units=4),
    "sequence": partial(kf.sequence_branch, (12, 3), units=4),
    "image": partial(kf.image_branch, (8, 8, 3), units=4),
    "tabular": partial(kf.tabular_branch, 3, units=4),
}


def build_fused(frozen=False):
    image = kf.image_branch((4, 4, 3), units=4)
    if frozen:
        image = kf.freeze(image)
    table = kf.tabular_branch(3, units=4)
    return kf.build_fusion_model(
        {"image": image, "tabular": table}, task="binary", head_units=4, auxiliary_heads=True
    )


def build_plain():
    """No layer that normalises batches."""
    inputs = keras.Input((3,), name="tabular")
    hidden = keras.layers.Dense(4, activation="tanh")(inputs)
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(hidden))


def build(builder):
    keras.utils.set_random_seed(0)
    return builder()


def train(model, rows, draw=draw, **keywords):
    settings = {"task": "binary", "validation_data": draw(51, 1), "epochs": 2, "batch_size": 32}
    settings |= {"shuffle": False, "seed": 0, "verbose": 0, "doctor": False, "patience": None}
    return kf.fit(model, *draw(rows, 0), **{**settings, "optimizer": "sgd", **keywords})


def compare(name, builder, rows, draw=draw, **keywords):
    """The largest difference between what one device and two devices learn, and of scores."""
    one, two = build(builder), None
    with DEVICES.scope():
        two = build(builder)
    histories = [
        train(one, rows, draw, **keywords).history,
        train(two, rows, draw, distribution=DEVICES, **keywords).history,
    ]
    tell(
        name,
        weights=difference_of_weights(one, two),
        moved=difference_of_weights(build(builder), one),
        predictions=difference(*(kf.predict(model, draw(51, 1)[0]) for model in (one, two))),
        scores={
            score: difference(*(history[score] for history in histories))
            for score in histories[0]
            if score.startswith("val_") or score == "loss"
        },
    )
    return one, two


def difference_of_weights(a, b):
    return max(map(difference, a.get_weights(), b.get_weights()))


def difference(a, b):
    return float(np.abs(np.asarray(a) - np.asarray(b)).max())


def message(call, *arguments, **keywords):
    try:
        call(*arguments, **keywords)
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def tell(name, **found):
    print(json.dumps({"name": name, **found}), flush=True)


def fit_of_fold(x, y):
    model = build(build_plain)
    settings = {"validation_data": None, "epochs": 2, "batch_size": 8, "shuffle": False}
    settings |= {"optimizer": "sgd", "seed": 0, "verbose": 0, "doctor": False}
    kf.fit(model, x, y, task="binary", **settings)
    return model


def devices_of(model):
    if ON_JAX:
        return len(model.variables[0].value.sharding.device_set)
    return model.distribute_strategy.num_replicas_in_sync


def accumulating():
    with DEVICES.scope():
        return keras.optimizers.SGD(gradient_accumulation_steps=2)


def check_plain():
    # It has all that looks at a batch: statistics of observed values, of steps and of features.
    check_branch("sequence")
    one, two = compare("a last batch that two cannot share", build_plain, 65)
    train_two = partial(train, two, 64)
    told = {
        "not built in the scope": message(train, one, 64, distribution=DEVICES),
        "optimizer": message(train_two, optimizer=keras.optimizers.Adam(), distribution=DEVICES),
        "accumulated": message(train_two, optimizer=accumulating(), distribution=DEVICES),
        "compiled": message(train_two, jit_compile=True, distribution=DEVICES),
        "odd batches": message(train_two, batch_size=33, distribution=DEVICES),
        "not one": message(train_two, distribution="all"),
    }
    tell("errors", **told)


def check_branch(name):
    def build_branch():
        return kf.build_unimodal_model(BRANCHES[name](), task="binary")

    compare(name, build_branch, 45, draw_inputs)


def check_branches():
    for name in BRANCHES:
        check_branch(name)


def check_rest():
    compare("normalised batches, the last one smaller", build_fused, 70)
    compare("frozen features", partial(build_fused, frozen=True), 64)
    check_folds()
    check_search()


def check_folds():
    x, y = draw(40, 0)
    settings = {"folds": 2, "verbose": 0, "task": "binary", "keep_models": True}
    results = [
        kf.cross_validate(fit_of_fold, x, y, distribution=devices, **settings)
        for devices in (None, DEVICES)
    ]
    tell(
        "folds",
        predictions=difference(*(result.predictions for result in results)),
        devices=[devices_of(model) for result in results for model in result.models],
        at_once=message(
            kf.cross_validate, fit_of_fold, x, y, distribution=DEVICES, n_jobs=2, **settings
        ),
    )


def check_search():
    (x, y), judges = draw(40, 0), draw(40, 1)
    hypermodel = kf.FusionHyperModel(
        {"image": partial(kf.image_branch, (4, 4, 3)), "tabular": partial(kf.tabular_branch, 3)},
        task="binary", fusions="concat", units=4, head_units=4, head_depths=1, optimizers="adam",
        dropouts=(0.0, 0.3), l2s=0.0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        search = partial(
            kf.search_fusion, hypermodel, x, y, validation_data=judges, epochs=1, directory=folder,
            distribution=DEVICES, verbose=0,
        )  # fmt: skip
        tuner = search(max_trials=2)
        best = tuner.get_best_models()[0]
        score = tuner.oracle.get_best_trials(1)[0].score
        tell(
            "search",
            statuses=[trial.status for trial in tuner.oracle.trials.values()],
            devices=[devices_of(best), devices_of(kf.refit(tuner, x, y, epochs=1, verbose=0))],
            score=difference(score, kf.evaluate(best, *judges, task="binary")["auc"]),
            at_once=message(search, n_jobs=2),
        )


if __name__ == "__main__":
    parts = {"plain": check_plain, "branches": check_branches, "rest": check_rest}
    parts[sys.argv[1]]()
