"""Token ids: by hand, and the same as those of Keras' layer in a graph."""

import keras
import numpy as np
import pandas as pd
import pytest

from kfusion import (
    Vocabulary,
    build_unimodal_model,
    evaluate,
    fit,
    predict,
    text_branch,
    text_vectorization,
)

TEXTS = [
    "The red fox; the RED hen!",
    "a fox's den (red)",
    None,
    "",
    "Ärger\u00a0fox\tden\n\nÄrger über größe",
    "end.Start end-start [UNK] _x_",
]


def test_ids_are_by_frequency_and_unknown_tokens_have_one():
    vocabulary = Vocabulary.fit(["b a a", "b c A!", float("nan"), pd.NA], length=4)
    assert vocabulary.tokens == ("a", "b")  # 3 times, 2 times; c once
    assert vocabulary.num_tokens == 4
    expected = [[3, 1, 2, 0], [0, 0, 0, 0], [2, 2, 2, 2]]
    assert vocabulary.encode(["b, c. a", None, "a a a a b"]).tolist() == expected
    assert vocabulary.encode(["b"]).dtype == np.int32


def test_the_longest_training_text_says_how_much_is_read():
    assert Vocabulary.fit(["a a a", "a"]).length == 3
    assert Vocabulary.fit(["a " * 1000]).length == 256
    assert Vocabulary.fit(["a b a b c c"], max_tokens=4).tokens == ("a", "b")


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="strings are TensorFlow's")
def test_a_layer_in_the_graph_gives_the_same_ids():
    vocabulary = Vocabulary.fit(TEXTS, min_count=1, length=5)
    assert "ärger" not in vocabulary.tokens
    layer = text_vectorization(vocabulary)
    given = [text or "" for text in [*TEXTS, "never seen", "x" * 50, "\u3000fox\u2003den"]]
    np.testing.assert_array_equal(layer(np.array(given)), vocabulary.encode(given))
    assert layer.vocabulary_size() == vocabulary.num_tokens


def test_a_text_that_is_no_string_is_named():
    with pytest.raises(TypeError, match="must be strings. Received in row 1: 3"):
        Vocabulary.fit(["a", 3])


@pytest.mark.parametrize(
    ("texts", "keywords"), [(["a b c"], {}), ([None, ""], {}), (["a a"], {"max_tokens": 2})]
)
def test_no_token_to_keep_is_an_error(texts, keywords):
    with pytest.raises(ValueError, match="No token can be kept"):
        Vocabulary.fit(texts, **keywords)


@pytest.mark.parametrize("length", [0, -1])
def test_no_token_to_read_is_an_error(length):
    with pytest.raises(
        ValueError, match=f"a length of 1 or more. Received: 1 tokens, length={length}"
    ):
        Vocabulary.fit(["a a"], length=length)


def test_survives_json():
    vocabulary = Vocabulary.fit(TEXTS)
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary
    for wrong in ("[]", "{}", '{"format": 9, "tokens": ["a"], "length": 1}', "no"):
        with pytest.raises(ValueError, match="not a vocabulary written by kfusion"):
            Vocabulary.from_json(wrong)


def test_learns_which_token_counts():
    generator = np.random.default_rng(0)
    words = generator.integers(30, size=(400, 6))
    y = (words == 3).any(axis=1).astype(int)
    texts = [" ".join(f"word{word}" for word in row) for row in words]
    vocabulary = Vocabulary.fit(texts[:300])
    x = {"text": vocabulary.encode(texts)}
    train, test = ({"text": x["text"][part]} for part in (slice(300), slice(300, None)))
    keras.utils.set_random_seed(0)
    model = build_unimodal_model(text_branch(vocabulary, units=16, token_units=8), task="binary")
    fit(
        model,
        train,
        y[:300],
        task="binary",
        validation_data=None,
        epochs=25,
        learning_rate=1e-2,
        seed=0,
        verbose=0,
    )
    assert evaluate(model, test, y[300:], task="binary")["auc"] > 0.95


def test_texts_that_were_not_encoded_are_told_how():
    model = build_unimodal_model(text_branch(Vocabulary.fit(TEXTS), units=2), task="binary")
    for texts in (np.array(["red", "fox"]), np.array(["red", None], object)):
        with pytest.raises(ValueError, match=r"`x\['text'\]` must hold numbers.*Vocabulary.encode"):
            fit(model, {"text": texts}, [0, 1], task="binary", validation_data=None)
        with pytest.raises(ValueError, match="Vocabulary.encode"):
            predict(model, {"text": texts})
