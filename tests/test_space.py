"""KerasTuner's spaces for Optuna: every kind of hyperparameter, conditions, points counted out."""

import keras_tuner
import optuna
import pytest

from kfusion.search.space import Space, choices


def make(declare):
    hp = keras_tuner.HyperParameters()
    declare(hp)
    return Space(hp)


def conditional(hp):
    hp.Choice("kind", ["a", "b"])
    hp.Fixed("rows", 3)
    with hp.conditional_scope("kind", ["a"]):
        hp.Int("n", 1, 3)
    with hp.conditional_scope("kind", ["b"]):
        hp.Int("n", 2, 32, step=2, sampling="log")
        hp.Float("x", 0.0, 1.0, step=0.25)


@pytest.mark.parametrize(
    ("declare", "values"),
    [
        (lambda hp: hp.Boolean("p"), [False, True]),
        (lambda hp: hp.Choice("p", [3, 1, 2]), [3, 1, 2]),
        (lambda hp: hp.Int("p", 1, 8, step=3), [1, 4, 7]),
        (lambda hp: hp.Int("p", 2, 40, step=2, sampling="log"), [2, 4, 8, 16, 32]),
        (lambda hp: hp.Float("p", 0.0, 1.1, step=0.5), [0.0, 0.5, 1.0]),
        (lambda hp: hp.Float("p", 0.1, 10.0, step=10, sampling="log"), [0.1, 1.0, 10.0]),
    ],
)
def test_the_points_are_the_values_that_keras_tuner_would_draw(declare, values):
    space = make(declare)
    assert [point["p"] for point in space.points()] == pytest.approx(values)
    # KerasTuner's own sampling, over its whole range of probabilities.
    (hp,) = space.hyperparameters.space
    drawn = {hp.prob_to_value(i / 1000) for i in range(1000)}
    assert sorted(drawn) == pytest.approx(sorted(values))


def test_reverse_log_is_dense_at_the_upper_end():
    space = make(lambda hp: hp.Float("p", 1.0, 100.0, sampling="reverse_log"))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [space.suggest(study.ask())["p"] for _ in range(200)]
    assert 1 <= min(drawn) < max(drawn) <= 100
    # 1 + 100 - u for log-uniform u: half of them above 101 - sqrt(100).
    assert sum(value > 91 for value in drawn) == pytest.approx(100, abs=20)


class TestConditions:
    def test_only_active_parameters_are_asked_for(self):
        space = make(conditional)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        for _ in range(20):
            trial = study.ask()
            values = space.suggest(trial)
            assert ("x" in values) == (values["kind"] == "b")
            assert values["rows"] == 3
            params, distributions = space.suggested(values)
            assert params == trial.params
            assert distributions == trial.distributions

    def test_all_points_once(self):
        points = list(make(conditional).points())
        assert len(points) == len({str(point) for point in points}) == 3 + 5 * 5
        assert points[0] == {"kind": "a", "rows": 3, "n": 1}

    def test_one_name_under_two_conditions_is_two_parameters(self):
        names = [parameter.name for parameter in make(conditional).parameters.values()]
        assert 'n (kind in ["a"])' in names
        assert 'n (kind in ["b"])' in names

    def test_defaults(self):
        assert make(conditional).default_values() == {"kind": "a", "rows": 3, "n": 1}


def test_a_range_without_a_step_has_no_end():
    space = make(lambda hp: hp.Float("p", 0.0, 1.0))
    assert space.points() is None
    assert space.endless() == ["p"]
    (parameter,) = space.parameters.values()
    assert choices(parameter.distribution) is None
