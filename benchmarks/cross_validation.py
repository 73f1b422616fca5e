"""What `cross_validate` costs beside a plain loop of Keras trainings: 5 folds, 3 seeds.

The networks, rows and batches of `fit_overhead.py`, with folds and random states that both take.
For each seed both train and judge all folds, in another order each time; one fold of each before
that is not counted. A line has the ratios of the seeds, also of the processor's time, the mean AUCs
and the largest difference between two predictions of a row (0 if both train the same models).

usage: python benchmarks/cross_validation.py [--folds 5] [--seeds 3] [--epochs 4] [--network both]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from fit_overhead import BATCH, NETWORKS, Rows, build, load_rows

Folds = Sequence[tuple[np.ndarray, np.ndarray]]
Judged = tuple[np.ndarray, np.ndarray]


def by_kfusion(rows: Rows, folds: Folds, seed: int, epochs: int) -> Judged:
    """AUC of each fold and the prediction of each row."""
    import kfusion as kf

    task = kf.task("multiclass", num_classes=rows.classes)

    def fit(x, y):
        model = build(rows, seed=None)
        kf.fit(
            model, x, y, task=task, validation_data=None, epochs=epochs, batch_size=BATCH,
            learning_rate_schedule="constant", verbose=0,
        )  # fmt: skip
        return model

    found = kf.cross_validate(fit, rows.x, rows.y, folds=folds, task=task, seed=seed, verbose=0)
    return found.scores("auc"), found.predictions


def by_hand(rows: Rows, folds: Folds, seed: int, epochs: int) -> Judged:
    import keras
    from sklearn.metrics import roc_auc_score

    scores, predictions = [], np.full((len(rows.y), rows.classes), np.nan)
    for number, (train, test) in enumerate(folds):
        # The random state that `cross_validate` gives a fold.
        state = np.random.SeedSequence([seed, number]).generate_state(1)[0]
        keras.utils.set_random_seed(int(state))
        model = build(rows, seed=None)
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        x = {name: array[train] for name, array in rows.x.items()}
        model.fit(x, rows.y[train], epochs=epochs, batch_size=BATCH, verbose=0)
        held = {name: array[test] for name, array in rows.x.items()}
        found = model.predict(held, batch_size=256, verbose=0).astype("float64")
        predictions[test] = found
        found /= found.sum(axis=1, keepdims=True)
        scores.append(roc_auc_score(rows.y[test], found, multi_class="ovr"))
    return np.array(scores), predictions


SIDES: dict[str, Callable[..., Judged]] = {"plain_loop": by_hand, "kfusion": by_kfusion}


def make_folds(rows: Rows, number: int, seed: int) -> Folds:
    from sklearn.model_selection import StratifiedKFold

    splitter = StratifiedKFold(number, shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(len(rows.y)), rows.y))


def compare(options: argparse.Namespace) -> None:
    import keras

    rows = load_rows(options.network)
    took: dict[str, dict[str, list[float]]] = {s: {"seconds": [], "cpu": []} for s in SIDES}
    scores: dict[str, list[float]] = {side: [] for side in SIDES}
    furthest = 0.0
    for train in SIDES.values():
        train(rows, make_folds(rows, options.folds, 0)[:1], 0, options.epochs)
    for seed in range(options.seeds):
        folds, predictions = make_folds(rows, options.folds, seed), []
        for side in sorted(SIDES, reverse=bool(seed % 2)):
            keras.backend.clear_session()
            started, cpu = time.perf_counter(), time.process_time()
            found, predicted = SIDES[side](rows, folds, seed, options.epochs)
            took[side]["seconds"].append(time.perf_counter() - started)
            took[side]["cpu"].append(time.process_time() - cpu)
            scores[side].append(float(found.mean()))
            predictions.append(predicted)
        furthest = max(furthest, float(np.abs(np.subtract(*predictions)).max()))
    for side in SIDES:
        line = {"benchmark": "cross_validation", "network": options.network, "side": side}
        line |= {"folds": options.folds, "seeds": options.seeds, "epochs": options.epochs}
        for name, found in took[side].items():
            plain = took["plain_loop"][name]
            ratios = [ours / other for ours, other in zip(found, plain, strict=True)]
            line[f"{name}_ratio"] = round(statistics.median(ratios), 3)
            line[f"{name}_ratios"] = [round(ratio, 3) for ratio in sorted(ratios)]
        line["median_seconds"] = round(statistics.median(took[side]["seconds"]), 1)
        line["mean_auc"] = [round(score, 4) for score in scores[side]]
        line["largest_difference"] = furthest
        line |= {"rows": len(rows.y), "backend": keras.backend.backend(), "keras": keras.version()}
        print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--network", choices=NETWORKS, default="both")
    parser.add_argument("--only-side", choices=SIDES, help="one seed of this side, tell nothing")
    options = parser.parse_args()
    # The doctor speaks of these data, not of time.
    warnings.simplefilter("ignore")
    if options.only_side:
        rows = load_rows(options.network)
        folds = make_folds(rows, options.folds, 0)
        SIDES[options.only_side](rows, folds, 0, options.epochs)
        return
    compare(options)


if __name__ == "__main__":
    main()
