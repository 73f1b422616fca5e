"""MLflow of a training: scores and rates by epoch, settings, and the exported model as artifact.

`mlflow.keras.autolog(log_models=False, log_datasets=False)` in place of the callback makes a run of
every training that follows, also of those in searches and estimators.

needs: pip install '.[trackers]'
usage: python examples/with_mlflow.py [--store sqlite:///mlflow.db] [--epochs 5]
then:  mlflow ui --backend-store-uri sqlite:///mlflow.db   (of the whole package mlflow)
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import mlflow
import mlflow.keras

import kfusion as kf


def run(data: kf.FusionData, store: str, *, epochs: int = 5) -> str:
    """Returns the id of the run."""
    train, validation = data.split(0.2, seed=0)
    held = (validation.x, validation.y)
    branches = {
        "image": kf.image_branch(data.image_shape),
        "tabular": kf.tabular_branch(train.schema),
    }
    model = kf.build_fusion_model(branches, task=train.task, fusion="multiply")
    mlflow.set_tracking_uri(store)
    mlflow.set_experiment("land cover")
    with mlflow.start_run() as started, tempfile.TemporaryDirectory() as folder:
        mlflow.log_params({"fusion": "multiply", "rows": len(train)})
        kf.fit(
            model,
            train.x,
            train.y,
            task=train.task,
            validation_data=held,
            epochs=epochs,
            callbacks=[mlflow.keras.MlflowCallback()],
        )
        exported = kf.export_saved_model(
            model, Path(folder) / "model", schema=train.schema, class_names=train.class_names
        )
        mlflow.log_artifacts(str(exported), "saved_model")
    return started.info.run_id


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", default="sqlite:///mlflow.db")
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    print(run(kf.datasets.load_landcover(), arguments.store, epochs=arguments.epochs))
