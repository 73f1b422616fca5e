"""An image and its edges: search, a look at TensorBoard's files, a longer training, a saved model.

A student joined a network on pixels with one on edges and searched layer size, one dropout rate for
all places, learning rate decay and L2. Training stopped when training accuracy minus validation
accuracy had grown three times running, and a trial was scored at that moment by
((v - chance) / t) + (v - chance). The best values were then picked by hand and trained for longer.

usage: python examples/image_and_edges.py [--out image_and_edges] [--trials 8] [--epochs 50]
    [--final-epochs 40]
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import keras_tuner
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import kfusion as kf


class ScoredWhereOverfittingBegins(kf.FusionHyperModel):
    """Trials count by their last epoch, where the gap has grown."""

    def fit(self, hp, model, x, y=None, **keywords):
        history = super().fit(hp, model, x, y, **keywords).history
        last = {name: values[-1] for name, values in history.items()}
        chance = 1 / len(self.task.class_names)
        score = kf.overfit_score(last["accuracy"], last["val_accuracy"], chance=chance)
        return {**last, "score": score}


def read_hparams(folder: Path) -> dict[str, dict]:
    """What TensorBoard's HParams tab shows, by run."""
    events = EventMultiplexer().AddRunsFromDirectory(str(folder))
    events.Reload()
    found = {}
    for run in sorted(events.Runs()):
        content = events.GetAccumulator(run).PluginTagToContent("hparams")
        start = HParamsPluginData.FromString(content["_hparams_/session_start_info"])
        values = start.session_start_info.hparams
        found[run] = {
            name: getattr(value, value.WhichOneof("kind")) for name, value in values.items()
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("image_and_edges"))
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--final-epochs", type=int, default=40)
    arguments = parser.parse_args()

    train, validation, test = kf.datasets.load_landcover().split(0.2, test=0.2)
    validation_data = (validation.x, validation.y)
    builders = {
        "image": partial(kf.image_branch, train.image_shape),
        "edges": partial(kf.edge_branch, train.image_shape),
    }
    hypermodel = ScoredWhereOverfittingBegins(
        builders,
        task=train.task,
        fusions="concat",
        optimizers="adam",
        learning_rate_factors=1.0,
        learning_rate_schedules="step",
        decay_factors=(0.3, 0.8),
        decay_epochs=10,
        units=lambda hp, name: hp.Int(name, 8, 28, default=18),
        head_units=28,
        head_depths=2,
        dropouts=lambda hp, name: hp.Float(name, 0.3, 0.7, default=0.5),
        rising_dropout=True,
        l2s=lambda hp, name: hp.Float(name, 1e-4, 1e-1, sampling="log", default=1e-3),
        fit_keywords={"patience": None},
    )
    logs = arguments.out / "logs"
    tuner = kf.OptunaTuner(
        hypermodel,
        keras_tuner.Objective("score", "max"),
        arguments.trials,
        directory=arguments.out,
        project_name="search",
        log_dir=logs,
    )
    tuner.search(
        train.x,
        train.y,
        validation_data=validation_data,
        epochs=arguments.epochs,
        callbacks=[kf.OverfitGapStopping(patience=3)],
    )
    study = kf.analyse(tuner)
    print(study.summary())
    study.save_plots(arguments.out / "pictures", class_names=train.class_names)
    print(f"\ntensorboard --logdir {logs}")
    for run, values in read_hparams(logs).items():
        print(run, {name: value for name, value in values.items() if name != "fusion"})

    # Between the two best, as the student picked them, with steps for a longer training.
    first, second = tuner.get_best_hyperparameters(2)
    picked = first.copy()
    for name in ("image_units", "edges_units"):
        picked.values[name] = max(first.get(name), second.get(name))
    for name in ("dropout", "l2", "decay_factor"):
        picked.values[name] = (first.get(name) + second.get(name)) / 2
    model = kf.refit(
        tuner,
        train.x,
        train.y,
        validation_data=validation_data,
        epochs=arguments.final_epochs,
        hyperparameters=picked,
    )
    (best,) = tuner.get_best_models(1)
    for name, each in {"best trial": best, "trained for longer": model}.items():
        print(f"{name}, on test rows:", kf.evaluate(each, test.x, test.y, task=train.task))
    exported = arguments.out / "saved_model"
    kf.export_saved_model(model, exported, class_names=train.class_names, overwrite=True)
    print("saved to", exported)


if __name__ == "__main__":
    main()
