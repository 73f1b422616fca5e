"""Shapley values against games worked by hand, published ones, and their four axioms."""

import math
from itertools import permutations

import numpy as np
import pytest

from kfusion.evidence.modality_shapley import score_subsets, shapley_values

NAMES = ["image", "table", "text"]
RANDOM = np.random.default_rng(0)


def random_game(names):
    return score_subsets(lambda subset: RANDOM.normal(), names)


def test_two_players_worked_by_hand():
    # (0.8 - 0.5 + 0.9 - 0.7) / 2 and (0.7 - 0.5 + 0.9 - 0.8) / 2.
    scores = {(): 0.5, ("a",): 0.8, ("b",): 0.7, ("a", "b"): 0.9}
    found = shapley_values({frozenset(key): score for key, score in scores.items()}, ["a", "b"])
    assert found == pytest.approx({"a": 0.25, "b": 0.15})


def test_three_players_worked_by_hand():
    # One left glove, two right ones, a pair is worth 1: 2/3 to the left glove, 1/6 to each right.
    found = shapley_values(
        lambda s: float("left" in s and len(s) > 1), ["left", "right1", "right2"]
    )
    assert found == pytest.approx({"left": 2 / 3, "right1": 1 / 6, "right2": 1 / 6})


def test_a_published_game_of_four():
    # Ibn Ezra's inheritance; Aumann, 2010, International Journal of Game Theory 39(1), 3-10.
    claims = {"Reuben": 120, "Simeon": 60, "Levi": 40, "Judah": 30}
    found = shapley_values(lambda s: max((claims[n] for n in s), default=0), list(claims))
    expected = {"Reuben": 80 + 5 / 6, "Simeon": 20 + 5 / 6, "Levi": 10 + 5 / 6, "Judah": 7.5}
    assert found == pytest.approx(expected)


def test_the_values_are_the_mean_gain_over_all_orders():
    game = random_game(["a", "b", "c", "d"])
    gains = dict.fromkeys("abcd", 0.0)
    for order in permutations("abcd"):
        for place, name in enumerate(order):
            gains[name] += game[frozenset(order[: place + 1])] - game[frozenset(order[:place])]
    expected = {name: total / math.factorial(4) for name, total in gains.items()}
    assert shapley_values(game, list("abcd")) == pytest.approx(expected)


def test_the_values_sum_to_the_score_of_all_less_that_of_none():
    names = [f"modality {number}" for number in range(10)]
    game = random_game(names)
    found = shapley_values(game, names)
    assert list(found) == names
    expected = game[frozenset(names)] - game[frozenset()]
    assert math.fsum(found.values()) == pytest.approx(expected, abs=1e-12)


def test_modalities_that_tell_the_same_are_worth_the_same():
    found = shapley_values(lambda s: float(bool(s & {"image", "table"})), NAMES)
    assert found == pytest.approx({"image": 0.5, "table": 0.5, "text": 0})


def test_a_modality_that_never_changes_the_score_is_worth_0_exactly():
    game = random_game(["image", "table"])
    found = shapley_values(lambda s: game[s - {"noise"}], ["image", "noise", "table"])
    assert found["noise"] == 0
    assert found["image"] == pytest.approx(shapley_values(game, ["image", "table"])["image"])


def test_values_of_a_sum_of_games_are_the_sums_of_their_values():
    one, two = random_game(NAMES), random_game(NAMES)
    both = shapley_values({subset: one[subset] + two[subset] for subset in one}, NAMES)
    parts = shapley_values(one, NAMES), shapley_values(two, NAMES)
    assert both == pytest.approx({name: parts[0][name] + parts[1][name] for name in NAMES})


def test_each_subset_is_asked_for_once_and_small_ones_first():
    asked = []

    def score_of(subset):
        asked.append(subset)
        return len(subset)

    found = shapley_values(score_of, NAMES)
    assert found == pytest.approx(dict.fromkeys(NAMES, 1))
    assert len(asked) == len(set(asked)) == 8
    assert [len(subset) for subset in asked] == [0, 1, 1, 1, 2, 2, 2, 3]


def test_a_single_modality_gets_all():
    assert shapley_values({frozenset(): 0.5, frozenset(["image"]): 0.9}, ["image"]) == {
        "image": pytest.approx(0.4)
    }


def test_wrong_names_are_errors():
    with pytest.raises(ValueError, match="may hold 10 at most. Received: 11. Join modalities"):
        shapley_values(lambda s: 0.0, [str(number) for number in range(11)])
    with pytest.raises(ValueError, match="must name each modality once. Received: .'a', 'a'."):
        shapley_values(lambda s: 0.0, ["a", "a"])
    with pytest.raises(ValueError, match="must name each modality once"):
        shapley_values(lambda s: 0.0, [])
    with pytest.raises(TypeError, match="`names` must be texts. Received: 3"):
        shapley_values(lambda s: 0.0, ["a", 3])


def test_wrong_scores_are_errors_that_name_the_subset():
    with pytest.raises(ValueError, match=r"each of the 4 .* lacks 1, e.g. frozenset\(\['a', 'b'\]"):
        shapley_values({frozenset(s): 0 for s in ["", "a", "b"]}, ["a", "b"])
    with pytest.raises(ValueError, match=r"of frozenset\(\['b'\]\) must be finite. Received: nan"):
        shapley_values(lambda s: float("nan") if s == {"b"} else 0.0, ["a", "b"])
    with pytest.raises(TypeError, match="must be a callable .* or a mapping .* Received: float"):
        shapley_values(0.5, ["a", "b"])
