"""Principal components as a layer against scikit-learn's PCA."""

import keras
import numpy as np
import pytest
from sklearn.decomposition import PCA

from kfusion.layers import PrincipalComponents
from kfusion.models.principal_components import fit_principal_components


def draw_images(rows, side=6, channels=3, seed=0):
    """Smooth images, so that few components tell much."""
    noise = np.random.default_rng(seed).normal(size=(rows, side, side, channels))
    smooth = noise.cumsum(axis=1).cumsum(axis=2)
    return (20 * smooth + 128).clip(0, 255).astype("uint8")


def project(layer, inputs):
    return keras.ops.convert_to_numpy(layer(inputs))


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("rows", [40, 700])
def test_equals_scikit_learns_transform_of_images(rows, whiten):
    images, others = draw_images(rows), draw_images(50, seed=1)
    layer = fit_principal_components(images, 8, whiten=whiten)
    reference = PCA(8, whiten=whiten, random_state=0).fit(images.reshape(rows, -1) / 255)
    expected = reference.transform(others.reshape(50, -1) / 255)
    np.testing.assert_allclose(
        project(layer, others), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
    )


def test_equals_scikit_learns_transform_of_vectors_of_any_range():
    vectors = np.random.default_rng(0).normal(1e3, 10, size=(300, 20)).astype("float32")
    layer = fit_principal_components(vectors, 5)
    assert layer.divisor == 1
    expected = PCA(5, whiten=True).fit_transform(vectors.astype("float64"))
    np.testing.assert_allclose(project(layer, vectors), expected, rtol=1e-4, atol=1e-4)


def test_components_of_the_training_rows_have_variance_1():
    images = draw_images(500)
    spreads = project(fit_principal_components(images, 10), images).std(axis=0, ddof=1)
    np.testing.assert_allclose(spreads, 1, rtol=1e-4)
    plain = project(fit_principal_components(images, 10, whiten=False), images).std(axis=0)
    assert np.all(np.diff(plain) < 0)


def test_finds_the_one_direction_in_which_rows_differ():
    # Rows on the line (1, 2, 2) / 3 through (5, 5, 5), at -1, 0 and 1 from there.
    rows = 5 + np.array([[-1], [0], [1]]) * np.array([[1, 2, 2]]) / 3
    layer = fit_principal_components(rows, 3, whiten=False)
    got = project(layer, np.array([[5, 5, 5], [6, 7, 7]], "float32"))
    np.testing.assert_allclose(np.abs(got), [[0, 0, 0], [3, 0, 0]], atol=1e-5)


def test_grey_images_with_their_channels_repeated_have_no_more_components():
    grey = np.random.default_rng(0).integers(256, size=(400, 2, 2, 1), dtype="uint8")
    images = np.repeat(grey, 3, axis=-1)
    got = project(fit_principal_components(images, 12), images)
    np.testing.assert_allclose(got.std(axis=0, ddof=1)[:4], 1, rtol=1e-4)
    np.testing.assert_array_equal(got[:, 4:], 0)


def test_images_that_are_all_the_same_give_0():
    images = np.full((10, 3, 3, 1), 7, "uint8")
    np.testing.assert_array_equal(project(fit_principal_components(images, 4), images), 0)


def test_there_are_no_more_components_than_rows_or_numbers():
    assert fit_principal_components(draw_images(5), 32).num_components == 5
    assert fit_principal_components(draw_images(50, 2, 1), 32).num_components == 4


def test_a_sample_of_the_rows_is_drawn_the_same_way_each_time():
    images = draw_images(300, channels=1)
    first, again = (fit_principal_components(images, 3, max_rows=60) for _ in range(2))
    np.testing.assert_array_equal(project(first, images), project(again, images))
    other = fit_principal_components(images, 3, max_rows=60, seed=1)
    assert not np.array_equal(project(first, images), project(other, images))
    # What 60 rows vary by is what 300 do, up to the sign.
    whole = project(fit_principal_components(images, 3), images)
    correlation = np.corrcoef(project(first, images)[:, 0], whole[:, 0])[0, 1]
    assert abs(correlation) > 0.95


@pytest.mark.parametrize(
    ("images", "keywords", "message"),
    [
        (np.zeros((1, 4, 4, 1)), {}, "at least 2 rows.*\\(1, 4, 4, 1\\)"),
        (np.zeros(5), {}, "at least 2 rows.*\\(5,\\)"),
        (np.zeros((5, 0)), {}, "at least 2 rows.*\\(5, 0\\)"),
        (np.array([[1, 2], [3, np.inf]]), {}, "must be finite. Row 1 is not \\(1 in all\\)"),
        (np.zeros((5, 2)), {"num_components": 0}, "at least 1 .* Received: 0 and 5000"),
        (np.zeros((5, 2)), {"max_rows": 1}, "at least 2. Received: 32 and 1"),
    ],
)
def test_what_has_no_components_is_refused(images, keywords, message):
    with pytest.raises(ValueError, match=message):
        fit_principal_components(images, **keywords)


def test_the_layer_refuses_images_of_unknown_or_another_size():
    with pytest.raises(ValueError, match="rows of a known shape.*None"):
        PrincipalComponents(2)(keras.Input((None, 4, 1)))
    layer = fit_principal_components(draw_images(20), 2)
    with pytest.raises(ValueError, match="expected axis 1 of input shape to have value 6"):
        layer(draw_images(5, side=7))
