"""TensorBoard of a training and a search: scores, rates, a profile, pictures and HParams.

usage: python examples/with_tensorboard.py [LOGS]
then:  tensorboard --logdir logs   (the tab of profiles needs: pip install xprof)
"""

import io
import sys
from functools import partial
from pathlib import Path

import keras
import tensorflow as tf
from matplotlib import pyplot

import kfusion as kf
from kfusion.plots import plot_confusion


class ConfusionPictures(keras.callbacks.Callback):
    """Draws after each epoch which classes are taken for which."""

    def __init__(self, folder: Path, held: kf.FusionData):
        super().__init__()
        self.writer, self.held = tf.summary.create_file_writer(str(folder)), held

    def on_epoch_end(self, epoch, logs=None):
        predicted = kf.predict(self.model, self.held.x).argmax(axis=1)
        figure = plot_confusion(self.held.y, predicted, self.held.class_names)
        figure.savefig(png := io.BytesIO(), format="png")
        pyplot.close(figure)
        with self.writer.as_default(step=epoch):
            tf.summary.image("confusion", tf.io.decode_png(png.getvalue())[None])


def run(data: kf.FusionData, logs: Path, *, epochs: int = 5, trials: int = 3) -> None:
    train, held = data.split(0.2, seed=0)
    rows = {"x": train.x, "y": train.y, "validation_data": (held.x, held.y), "epochs": epochs}
    builders = {
        "image": partial(kf.image_branch, data.image_shape),
        "tabular": partial(kf.tabular_branch, train.schema),
    }
    branches = {name: build() for name, build in builders.items()}
    model = kf.build_fusion_model(branches, task=train.task)
    tensorboard = keras.callbacks.TensorBoard(logs / "fit", profile_batch=(2, 5))
    pictures = ConfusionPictures(logs / "pictures", held)
    kf.fit(model, **rows, task=train.task, callbacks=[tensorboard, pictures])

    hypermodel = kf.FusionHyperModel(builders, task=train.task, units=[32, 64])
    folders = {"directory": logs.parent / "trials", "log_dir": logs / "search"}
    kf.search_fusion(hypermodel, **rows, **folders, max_trials=trials)


if __name__ == "__main__":
    run(kf.datasets.load_landcover(), Path(sys.argv[1] if sys.argv[1:] else "logs"))
