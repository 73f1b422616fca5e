"""What all tests share: a cache folder of their own, and small image files."""

import contextlib
import gc
import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # As many processes as cores: with a thread a core in each, they would wait for one another.
    for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(variable, "1")

import joblib
import keras
import numpy as np
import pytest
from PIL import Image

from kfusion.frozen import frozen_features
from kfusion.frozen.part_rows import PartRows


@pytest.fixture(autouse=True)
def image_cache_folder(tmp_path_factory, monkeypatch):
    """Keeps the tests away from the user's cache of decoded images."""
    folder = tmp_path_factory.mktemp("image_cache")
    monkeypatch.setenv("KFUSION_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True, scope="module")
def left_alone_by_the_collector():
    """Takes what other modules left behind out of what is looked through at each collection.

    A process that has traced hundreds of graphs holds millions of objects, and KerasTuner collects
    before each model.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def computed(monkeypatch):
    """How many rows or views were run through a frozen part, one number per batch; none is kept."""
    frozen_features.IN_MEMORY.clear()
    counts = []
    compute = PartRows.compute

    def counting(rows, batches):
        for batch, found in zip(batches, compute(rows, batches), strict=True):
            counts.append(len(batch))
            yield found

    monkeypatch.setattr(PartRows, "compute", counting)
    return counts


@contextlib.contextmanager
def without_graphs():
    """To trace a graph for each of many small models takes longer than to run them."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.fixture
def in_graphs():
    """For a long training among tests that run `eagerly`."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(False)
    yield
    tf.config.run_functions_eagerly(before)


@pytest.fixture(scope="module")
def eagerly():
    """For tests whose subject is what is done with models; how they train is tested in graphs."""
    with without_graphs():
        yield


@pytest.fixture
def ray_cluster(monkeypatch):
    """A Ray cluster of two workers on this machine, which joblib uses within the test."""
    ray = pytest.importorskip("ray")
    from ray.util.joblib import register_ray

    # Where workers find the test's module.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        register_ray()
        with joblib.parallel_config(backend="ray"):
            yield
    finally:
        ray.shutdown()


@pytest.fixture
def some_places():
    """A fifth of the land-cover data's places, with all classes: the same road in less time."""
    from kfusion.datasets import load_landcover

    whole = load_landcover()
    part = whole[np.flatnonzero(np.isin(whole.groups, np.unique(whole.groups)[::5]))]
    assert len(set(part.y)) == len(part.class_names)
    return part


@pytest.fixture
def write_images(tmp_path):
    """Writes `count` grey 4 x 3 PNG files, each of another brightness; returns their names."""

    def write(count):
        for row in range(count):
            pixels = np.full((3, 4), 20 + row % 200, np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{row}.png")
        return [f"{row}.png" for row in range(count)]

    return write
