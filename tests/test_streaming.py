"""Images that stay files against the same images in memory: same pixels, same training."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import kfusion as kf
from kfusion.data import lazy_rows
from kfusion.data.balanced_batches import BalancedBatches
from kfusion.data.fingerprints import fingerprint
from kfusion.data.image_cache import ImageCache
from kfusion.data.images import BadImageError
from kfusion.data.loading import load_table
from kfusion.data.row_batches import ShuffledBatches
from kfusion.data.rows import take_rows
from kfusion.data.streamed_images import StreamedImages, stream_images
from kfusion.doctor import examine

pytestmark = pytest.mark.usefixtures("eagerly")
ROWS = 60


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    """Rows with a JPEG of noise each, larger than what is asked for, some of it by far."""
    folder, random = tmp_path_factory.mktemp("jpegs"), np.random.default_rng(0)
    for row in range(ROWS):
        side = 48 if row % 3 else 12
        pixels = random.integers(40, 255, (side, side + 4, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{row}.jpg")
    size = random.normal(size=ROWS)
    return pd.DataFrame(
        {
            "photo": [str(folder / f"{row}.jpg") for row in range(ROWS)],
            "size": size,
            "place": np.arange(ROWS) // 2,
            "ill": (size + random.normal(size=ROWS) > 0.8).astype(int),
        }
    )


def load(frame, **arguments):
    roles = {"image_column": "photo", "target": "ill", "image_shape": (8, 8, 3), "verbose": 0}
    return load_table(frame, **{**roles, **arguments})


@pytest.fixture(scope="module")
def both(frame):
    """The same rows in memory and streamed."""
    return [load(frame, streaming=streaming, use_cache=False) for streaming in (False, True)]


def small_model(rows):
    """A linear model of pixels and columns."""
    image = keras.Input(rows.image_shape, dtype="uint8", name="image")
    tabular = keras.Input(rows.x["tabular"].shape[1:], name="tabular")
    pixels = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    joined = keras.layers.Concatenate()([pixels, tabular])
    answer = keras.layers.Dense(1, activation="sigmoid")(joined)
    return keras.Model({"image": image, "tabular": tabular}, answer)


def train(data, **arguments):
    """A small model trained on a part of the data, its history, and the other part."""
    rows, held = data.split(0.25)
    keras.utils.set_random_seed(0)
    model = small_model(rows)
    history = kf.fit(
        model,
        rows.x,
        rows.y,
        task=rows.task,
        validation_data=(held.x, held.y),
        **{"epochs": 2, "batch_size": 16, "seed": 3, "verbose": 0, **arguments},
    )
    return model, history.history, held


def test_pixels_are_those_of_images_in_memory(both):
    whole, streamed = (data.images for data in both)
    assert isinstance(streamed, StreamedImages)
    assert (streamed.shape, streamed.dtype, len(streamed)) == (whole.shape, whole.dtype, ROWS)
    np.testing.assert_array_equal(np.asarray(streamed), whole)
    for rows in (slice(3, 9), [7, 2, 2], np.arange(ROWS) % 7 == 0, slice(0, 0)):
        np.testing.assert_array_equal(streamed[rows], whole[rows])
    np.testing.assert_array_equal(streamed[-1], whole[-1])


def test_rows_of_streamed_data_are_files_still(both):
    whole, streamed = both
    mask = np.arange(ROWS) % 2 == 1
    part = streamed[mask][[4, 0]]
    assert isinstance(part.images, StreamedImages)
    np.testing.assert_array_equal(np.asarray(part.images), whole.images[mask][[4, 0]])
    assert isinstance(take_rows({"image": part.images}, np.array([1]))["image"], StreamedImages)


def test_splits_and_groups_are_those_of_data_in_memory(frame):
    parts = [load(frame, streaming=s, group_column="place").split(0.25, test=0.2) for s in (0, 1)]
    for whole, streamed in zip(*parts, strict=True):
        np.testing.assert_array_equal(whole.rows, streamed.rows)
        np.testing.assert_array_equal(whole.x["image"], np.asarray(streamed.x["image"]))
    assert not set(parts[1][0].groups) & set(parts[1][1].groups)


@pytest.mark.parametrize("arguments", [{"shuffle": False}, {"balanced_batches": True}])
def test_rows_in_the_same_order_train_the_same_model(both, arguments):
    (model, history, held), (twin, other, _) = (train(data, **arguments) for data in both)
    assert other == history
    answers = [kf.predict(each, held.x) for each in (model, twin)]
    np.testing.assert_array_equal(*answers)


def test_a_seed_fixes_the_order_of_streamed_rows(both):
    _, streamed = both
    first, again, other = (train(streamed, seed=seed, epochs=1)[1] for seed in (3, 3, 4))
    assert first == again
    assert first["loss"] != other["loss"]


def test_every_row_is_seen_once_an_epoch_in_an_order_of_its_own(both):
    _, streamed = both
    batches = ShuffledBatches(streamed.images, streamed.y, batch_size=16, seed=0)
    epochs = []
    for _ in range(2):
        epochs.append(np.concatenate([batches.rows(i) for i in range(len(batches))]))
        np.testing.assert_array_equal(np.sort(epochs[-1]), np.arange(ROWS))
        batches.on_epoch_end()
    assert (epochs[0] != epochs[1]).any()
    pixels, labels = batches[0]
    np.testing.assert_array_equal(pixels, both[0].images[batches.rows(0)])
    np.testing.assert_array_equal(labels, streamed.y[batches.rows(0)])


def test_streamed_batches_can_be_balanced(both):
    _, streamed = both
    batches = BalancedBatches(streamed.images, streamed.y, streamed.y, batch_size=16, seed=0)
    for i in range(len(batches)):
        pixels, labels = batches[i]
        assert np.bincount(labels).tolist() == [8, 8]
        np.testing.assert_array_equal(pixels, both[0].images[batches.rows(i)])


def test_folds_of_streamed_data_are_judged_as_in_memory(both):
    def fit(rows, y):
        keras.utils.set_random_seed(0)
        model = small_model(rows)
        kf.fit(model, rows.x, y, task=rows.task, validation_data=None, epochs=1, shuffle=False,
               verbose=0)  # fmt: skip
        return model

    results = [kf.cross_validate(fit, data, folds=2, verbose=0) for data in both]
    np.testing.assert_array_equal(results[0].predictions, results[1].predictions)
    # Folds kept from data in memory go on with streamed ones.
    assert fingerprint(both[0].arrays) == fingerprint(both[1].arrays)


def test_the_doctor_sees_files_on_both_sides(frame):
    twins = pd.concat([frame, frame.iloc[:20]], ignore_index=True)
    data = load(twins, streaming=True)
    rows, held = data[:ROWS].with_schema(), data[ROWS:]
    held = held.with_schema(rows.schema)
    model = small_model(rows)
    with pytest.warns(UserWarning, match="(?s)rows_shared.* 20 of 20 validation rows"):
        kf.fit(
            model, rows.x, rows.y, task=rows.task, validation_data=(held.x, held.y), epochs=1,
            verbose=0,
        )  # fmt: skip
    assert "rows_shared" in examine(model, rows, validation_data=held).names


def test_rows_without_a_file_are_zeros(frame):
    lacking = frame.assign(photo=frame["photo"].where(np.arange(ROWS) != 5))
    data = load(lacking, streaming=True, on_missing_image="keep")
    assert not data.images[5].any()
    assert data.images.are_there().tolist() == [row != 5 for row in range(ROWS)]
    with pytest.raises(BadImageError, match="row 5: .*the table names no file"):
        load(lacking, streaming=True)


@pytest.fixture
def with_a_bad_file(frame, tmp_path):
    """Makes a row's file another; gives the table."""

    def change(row, content):
        path = tmp_path / "bad.jpg"
        path.write_bytes(content)
        return frame.assign(photo=[*frame["photo"][:row], str(path), *frame["photo"][row + 1 :]])

    return change


def test_bad_headers_are_told_before_training(with_a_bad_file):
    for content, reason in ((b"no image", "not an image"), (b"", "the file is empty")):
        table = with_a_bad_file(7, content)
        with pytest.raises(BadImageError, match=f"1 of {ROWS} .*\n  row 7: .*bad.jpg: .*{reason}"):
            load(table, streaming=True)
        with pytest.warns(UserWarning, match="Dropped 1 rows"):
            data = load(table, streaming=True, on_bad_image="drop")
        assert 7 not in data.rows


def test_a_file_damaged_behind_its_header_stops_training_and_is_named(frame, with_a_bad_file):
    table = with_a_bad_file(7, Path(frame["photo"][7]).read_bytes())
    data = load(table, streaming=True)
    damaged = Path(table["photo"][7])
    damaged.write_bytes(damaged.read_bytes()[:400])
    with pytest.raises(BadImageError, match=r"row 7: .*bad.jpg: the file is truncated") as raised:
        train(data)
    assert [bad.row for bad in raised.value.bad_images] == [7]
    with pytest.raises(BadImageError, match="bad.jpg"):
        np.asarray(data.images)


@pytest.mark.parametrize("rows", [64, 65, 127, 1000])
def test_the_first_and_the_last_files_are_decoded_before_training(frame, tmp_path, rows):
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(Path(frame["photo"][7]).read_bytes()[:-100])
    files = [damaged, *[frame["photo"][0]] * (rows - 2), damaged]
    _, bad = stream_images(files, (8, 8, 3), verbose=0)
    assert [each.row for each in bad] == [0, rows - 1]


def test_what_needs_all_pixels_gets_few_and_is_told_of_many(both, monkeypatch):
    whole, streamed = both
    classifier = kf.FusionClassifier(members=["trees"], num_folds=2)
    monkeypatch.setattr(lazy_rows, "MOST_BYTES", whole.images.nbytes - 1)
    with pytest.raises(ValueError, match="60 rows of StreamedImages.* in memory"):
        classifier.fit(streamed, streamed.y)
    with pytest.raises(ValueError, match="without `streaming=True`"):
        streamed.images[:]
    assert streamed.images[:30].shape == (30, 8, 8, 3)
    train(streamed, epochs=1)


def test_a_cache_serves_later_epochs_without_the_decoder(frame, monkeypatch):
    data = load(frame, streaming=True, use_cache=True)
    first = np.asarray(data.images)
    monkeypatch.setattr("kfusion.data.images._decode", lambda *_: pytest.fail("decoded again"))
    np.testing.assert_array_equal(np.asarray(data.images), first)
    part = pickle.loads(pickle.dumps(data.images.take([3, 1])))
    np.testing.assert_array_equal(part[:], first[[3, 1]])


READER = """
import sys, time
import numpy as np
from kfusion.data.streamed_images import StreamedImages
images = StreamedImages(sys.argv[1:], (8, 8, 3), use_cache=True)
for row in range(len(images)):
    images[row]
    print(row, flush=True)
    time.sleep(0.02)
"""


def test_a_kill_while_images_are_cached_loses_none_of_them(frame, image_cache_folder):
    files = list(frame["photo"])
    process = subprocess.Popen([sys.executable, "-c", READER, *files], stdout=subprocess.PIPE)
    done = [int(process.stdout.readline()) for _ in range(10)]
    time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    done += [int(line) for line in process.communicate()[0].split()]
    assert process.returncode == -signal.SIGKILL
    with ImageCache(image_cache_folder) as cache:
        (kept,) = cache._connection.execute("SELECT count(*) FROM images").fetchone()
        assert len(done) <= kept < ROWS
    streamed = StreamedImages(files, (8, 8, 3), use_cache=True)
    plain = StreamedImages(files, (8, 8, 3))
    np.testing.assert_array_equal(np.asarray(streamed), np.asarray(plain))


def test_threads_are_ahead_but_answers_are_in_order():
    def make(item):
        time.sleep(0.01 * (item % 3))
        return item * item

    assert list(lazy_rows.in_advance(make, range(20), threads=4)) == [i * i for i in range(20)]
    # Of half a gigabyte each, two wait beside the one that is asked for.
    numbers = iter(range(20))
    half = lazy_rows.MOST_BYTES // 2
    assert next(lazy_rows.in_advance(make, numbers, threads=4, item_bytes=half)) == 0
    assert next(numbers) == 3
    with pytest.raises(ZeroDivisionError):
        list(lazy_rows.in_advance(lambda i: 1 // i, [1, 0, 1], threads=2))
