"""Five set-ups that lost, what is found in each, the cure, and the score before and after.

Each line is one set-up of a person who asked why: the broken one as it was told, what `examine`
(or, of a search, `analyse`) finds in it with its evidence, the cure, and the score of both on the
same rows, which neither was trained on. Then as many healthy runs, in which nothing is to be found.

- frozen: two trained networks joined, "frozen" by `trainable = False`, with their Dropout active.
- join: a sigmoid beside a relu in one concatenation.
- depth: a search whose pruner throws the deep networks away.
- pixels: raw pixels and an L2 penalty that is nearly all of the loss.
- gap: training goes on while the gap between training and validation opens.

usage: python benchmarks/seeds.py [--only frozen join depth pixels gap healthy] [--epochs 12]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import train_test_split

import kfusion as kf

layers = keras.layers


def digits():
    """8 x 8 pixels in 0-255: training and test rows."""
    images, labels = load_digits(return_X_y=True)
    pixels = (images * 255 / 16).reshape(-1, 8, 8, 1).astype("float32")
    x_train, x_test, y_train, y_test = train_test_split(
        pixels, labels, test_size=0.3, random_state=0, stratify=labels
    )
    return (x_train, y_train), (x_test, y_test)


def landcover():
    """Training rows, rows that choose the epoch, rows that judge."""
    return kf.datasets.load_landcover().split(0.2, test=0.25)


def auc(model, part):
    return round(float(kf.evaluate(model, part.x, part.y, task=part.task)["auc"]), 4)


def tell(name, diagnosis, wanted, **facts):
    """One line; the findings that were looked for come with their evidence."""
    found = {each.name: each for each in diagnosis}
    evidence = {each: found[each].evidence for each in wanted if each in found}
    cures = [found[each].cure for each in wanted if each in found]
    found_at = {each.name: each.severity for each in diagnosis}
    line = {"set_up": name, "found": found_at, "evidence": evidence, "cure": cures, **facts}
    print(json.dumps({"benchmark": "seeds", **line}), flush=True)


def frozen(epochs):
    train, validation, test = landcover()
    x, held = ({"image": part.images} for part in (train, validation))
    networks = {}
    for name, kernel in {"first": 3, "second": 5}.items():
        keras.utils.set_random_seed(kernel)
        model = keras.Sequential([keras.Input(train.image_shape), layers.Rescaling(1 / 255)])
        for filters in (16, 32):
            model.add(layers.Conv2D(filters, kernel, padding="same", activation="relu"))
            model.add(layers.MaxPooling2D())
        for layer in (layers.Flatten(), layers.Dense(64, activation="relu"), layers.Dropout(0.5)):
            model.add(layer)
        model.add(layers.Dense(train.task.units, activation="softmax"))
        inputs = keras.Input(train.image_shape, name="image", dtype="uint8")
        networks[name] = keras.Model(inputs, model(layers.Rescaling(1.0)(inputs)), name=name)
        settings = {"task": train.task, "validation_data": (held, validation.y), "verbose": 0}
        kf.fit(networks[name], x, train.y, epochs=epochs, seed=0, **settings)
    stack = kf.recipes.stack_frozen_models(networks, x, train.y, epochs=epochs, seed=0, **settings)
    inputs = keras.Input(train.image_shape, name="image", dtype="uint8")
    ends = []
    for name, network in networks.items():
        inner = network.layers[-1]
        cut = keras.Sequential(inner.layers[:-1], name=f"{name}_cut")
        cut.trainable = False
        ends.append(cut(layers.Rescaling(1.0)(inputs)))
    hidden = layers.Dense(64, activation="relu")(layers.Concatenate()(ends))
    broken = keras.Model(inputs, layers.Dense(train.task.units, activation="softmax")(hidden))
    broken.compile("adam", "sparse_categorical_crossentropy")
    diagnosis = kf.examine(broken, x, train.y, task=train.task)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", kf.DoctorWarning)
        kf.fit(broken, x, train.y, epochs=epochs, seed=0, **settings)
    before, after = auc(broken, test), auc(stack.model, test)
    best = max(auc(network, test) for network in networks.values())
    tell(
        "frozen", diagnosis, ["dropout_in_frozen_part"], best_alone=best, before=before, after=after
    )


def join(epochs):
    train, validation, test = landcover()

    def fitted(build):
        """The mean over 3 starts."""
        found = []
        for seed in range(3):
            keras.utils.set_random_seed(seed)
            model = build(kf.image_branch(train.image_shape), kf.tabular_branch(train.schema))
            settings = {"validation_data": (validation.x, validation.y), "epochs": epochs}
            settings |= {"seed": seed, "doctor": False, "verbose": 0}
            kf.fit(model, train.x, train.y, task=train.task, **settings)
            found.append(auc(model, test))
        return round(float(np.mean(found)), 4)

    def broken(image, table):
        ends = [
            layers.Dense(256, activation="sigmoid", name="img_output")(image.output),
            layers.Dense(128, activation="relu", name="numeric_output")(table.output),
        ]
        hidden = layers.Dense(64, activation="relu")(layers.Concatenate(name="concat")(ends))
        output = layers.Dense(train.task.units, activation="softmax", name="main_output")(hidden)
        return keras.Model({"image": image.input, "tabular": table.input}, output)

    def cured(image, table):
        return kf.build_fusion_model({"image": image, "tabular": table}, task=train.task)

    def alone(image, table):
        return kf.build_unimodal_model(image, task=train.task)

    model = broken(kf.image_branch(train.image_shape), kf.tabular_branch(train.schema))
    diagnosis = kf.examine(model, train, validation_data=validation)
    facts = {"best_alone": fitted(alone), "before": fitted(broken), "after": fitted(cured)}
    tell("join", diagnosis, ["mixed_activations_at_join"], **facts)


def depth(epochs):
    (x, y), (held, held_y) = digits()
    x, held = x.reshape(len(x), -1) / 255, held.reshape(len(held), -1) / 255

    def build(hp):
        model = keras.Sequential([keras.Input((64,))])
        for _ in range(hp.Int("z_layers", 1, 3)):
            model.add(layers.Dense(hp.Int("units", 8, 64, sampling="log"), activation="tanh"))
        model.add(layers.Dense(10, activation="softmax"))
        rate = hp.Float("rate", 1e-4, 1e-1, sampling="log")
        loss = "sparse_categorical_crossentropy"
        model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss, metrics=["accuracy"])
        return model

    found = {}
    for aggressive in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            found[aggressive] = kf.recipes.depth_study(
                build,
                x,
                y,
                validation_data=(held, held_y),
                directory=folder,
                max_trials=15,
                epochs=epochs,
                min_trials_per_choice=0 if aggressive else 4,
                aggressive_pruning=aggressive,
            )
    warned = [text for text in found[True].analysis.warnings if "z_layers" in text]
    line = {"found": warned, "cure": "depth_study(..., min_trials_per_choice=4), no pruner"}
    scores = {
        "before": found[True].best["val_accuracy"],
        "after": found[False].best["val_accuracy"],
    }
    print(json.dumps({"benchmark": "seeds", "set_up": "depth", **line, **scores}), flush=True)


def pixels(epochs):
    train, test = digits()
    settings = {"optimizers": ["Adam"], "epochs": epochs}
    broken, cured = (
        kf.recipes.optimizer_study(*train, *test, broken=each, **settings) for each in (True, False)
    )
    for number, run in enumerate(broken.diagnoses):
        before, after = (
            round(float(study.table["test_accuracy"].iloc[number]), 4) for study in (broken, cured)
        )
        left = cured.diagnoses[run].names
        wanted = ["inputs_not_scaled", "penalties_rule_the_loss", "loss_falls_at_chance"]
        facts = {"found_when_cured": left, "before": before, "after": after}
        tell(f"pixels, {run}", broken.diagnoses[run], wanted, **facts)


def gap(epochs):
    (x, y), test = digits()
    some = np.arange(len(y)) < 150

    def fitted(rate, callbacks):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input(x.shape[1:]), layers.Rescaling(1 / 255)])
        model.add(layers.Conv2D(32, 3, activation="relu"))
        model.add(layers.Flatten())
        model.add(layers.Dropout(rate))
        model.add(layers.Dense(256, activation="relu"))
        model.add(layers.Dense(10, activation="softmax"))
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        # A fifth of the labels are wrong: to learn them is to overfit.
        wrong = np.random.default_rng(0).random(some.sum()) < 0.2
        labels = np.where(wrong, (y[some] + 1) % 10, y[some])
        history = model.fit(
            x[some], labels, validation_data=test, epochs=5 * epochs, verbose=0, callbacks=callbacks
        )
        task = kf.task("multiclass", y=y)
        rows = {"task": task, "validation_data": test, "history": history}
        return history, kf.examine(model, x[some], labels, **rows)

    history, diagnosis = fitted(0.0, [])
    stopped, _ = fitted(0.5, [kf.OverfitGapStopping(patience=3)])
    before, after = history.history["val_accuracy"][-1], stopped.history["val_accuracy"][-1]
    wanted = [each for each in diagnosis.names if each.startswith("overfit")]
    scores = {"before": round(before, 4), "after": round(after, 4)}
    tell("gap", diagnosis, wanted, epochs=[len(history.epoch), len(stopped.epoch)], **scores)


def healthy(epochs):
    train, validation, _ = landcover()
    schema, task = train.schema, train.task
    builders = {
        "fusion": lambda: kf.build_fusion_model(
            {"image": kf.image_branch(train.image_shape), "tabular": kf.tabular_branch(schema)},
            task=task,
            fusion="multiply",
        ),
        "image": lambda: kf.build_unimodal_model(kf.image_branch(train.image_shape), task=task),
        "table": lambda: kf.build_unimodal_model(kf.tabular_branch(schema), task=task),
    }
    for name, build in builders.items():
        keras.utils.set_random_seed(0)
        model = build()
        history = kf.fit(
            model,
            train.x,
            train.y,
            task=task,
            validation_data=(validation.x, validation.y),
            epochs=epochs,
            verbose=0,
        )
        diagnosis = kf.examine(
            model, train, validation_data=validation, history=history, batch_size=64, epochs=epochs
        )
        tell(f"healthy {name}", diagnosis, diagnosis.names)
    (x, y), test = digits()
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, activation="relu"),
        ]
    )
    for layer in (layers.Flatten(), layers.Dropout(0.3), layers.Dense(10, activation="softmax")):
        model.add(layer)
    run_healthy("healthy digits", model, (x, y), test, "multiclass", epochs)
    data = load_breast_cancer()
    parts = train_test_split(data.data, data.target, test_size=0.4, random_state=0)
    keras.utils.set_random_seed(0)
    scale = layers.Normalization()
    scale.adapt(parts[0])
    model = keras.Sequential([keras.Input((30,)), scale, layers.Dense(16, activation="relu")])
    model.add(layers.Dense(1, activation="sigmoid"))
    run_healthy(
        "healthy table", model, (parts[0], parts[2]), (parts[1], parts[3]), "binary", epochs
    )


def run_healthy(name, model, train, test, kind, epochs):
    loss = "binary_crossentropy" if kind == "binary" else "sparse_categorical_crossentropy"
    model.compile("adam", loss, metrics=["accuracy"])
    history = model.fit(*train, validation_data=test, epochs=epochs, verbose=0)
    task = kf.task(kind, y=train[1])
    diagnosis = kf.examine(
        model, *train, task=task, validation_data=test, history=history, epochs=epochs
    )
    tell(name, diagnosis, diagnosis.names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {"frozen": frozen, "join": join, "depth": depth, "pixels": pixels, "gap": gap}
    parts["healthy"] = healthy
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    for name in arguments.only:
        parts[name](arguments.epochs)


if __name__ == "__main__":
    main()
