"""What a study's analysis says in words, on studies made to show it."""

import keras_tuner
import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from scipy import stats

from kfusion import OptunaTuner, analyse

SPACE = {
    "depth": IntDistribution(1, 3),
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "kind": CategoricalDistribution(["a", "b"]),
}


def make_study(rows, direction="maximize"):
    """A study of `(depth, rate, kind, value or state[, spread])` rows."""
    study = optuna.create_study(direction=direction)
    for depth, rate, kind, value, *spread in rows:
        state = value if isinstance(value, TrialState) else TrialState.COMPLETE
        study.add_trial(
            optuna.create_trial(
                state=state,
                value=value if state == TrialState.COMPLETE else None,
                params={"depth": depth, "rate": rate, "kind": kind},
                distributions=SPACE,
                user_attrs={"result": {"spread": (spread or [None])[0], "num_runs": 5}},
            )
        )
    return study


def uneven(count, value=None):
    """Rows whose value is mostly that of their depth."""
    random = np.random.default_rng(0)
    return [
        (
            int(random.integers(1, 4)) if value is None else value,
            float(10 ** random.uniform(-4, 0)),
            str(random.choice(["a", "b"])),
            0.0,
        )
        for _ in range(count)
    ]


def test_scores_by_value_against_students_t():
    scores = [0.6, 0.7, 0.8]
    rows = [(1, 0.01, "a", score) for score in scores] + [(2, 0.01, "b", 0.9)]
    values = analyse(make_study(rows)).values
    row = values.query("parameter == 'depth' and value == 1").iloc[0]
    low, high = stats.t.interval(0.95, 2, np.mean(scores), np.std(scores, ddof=1) / 3**0.5)
    assert (row["mean"], row["best"]) == pytest.approx((0.7, 0.8))
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    one = values.query("parameter == 'depth' and value == 2").iloc[0]
    assert one["mean"] == 0.9
    assert np.isnan(one["low"])


@pytest.mark.parametrize(
    ("objective", "scores", "ends"),
    [
        ("val_auc", [0.99, 1.0, 0.9], (None, 1.0)),
        ("val_rmse", [0.1, 2.0, 0.1], (0.0, None)),
        ("val_own", [0.99, 1.0, 0.9], (None, None)),
    ],
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_an_interval_ends_where_its_objective_does(objective, scores, ends):
    study = make_study([(1, 0.01, "a", score) for score in scores])
    study.set_metric_names([objective])
    row = analyse(study).values.query("parameter == 'depth' and value == 1").iloc[0]
    limits = stats.t.interval(0.95, 2, np.mean(scores), np.std(scores, ddof=1) / 3**0.5)
    expected = [limit if end is None else end for limit, end in zip(limits, ends, strict=True)]
    assert [row["low"], row["high"]] == pytest.approx(expected)


def test_a_range_is_told_in_parts_on_its_own_scale():
    rows = [(1, rate, "a", 0.5 + rate) for rate in (1e-4, 1e-3, 1e-2, 1e-1, 1.0)]
    values = analyse(make_study(rows)).values.query("parameter == 'rate'")
    assert values["proposed"].tolist() == [1, 1, 1, 1, 1]
    assert values["value"].iloc[0] == "0.0001 to 0.00063"


def test_the_parameter_that_matters_comes_first():
    rows = [(depth, rate, kind, depth / 3 + rate / 100) for depth, rate, kind, _ in uneven(60)]
    analysis = analyse(make_study(rows))
    assert analysis.parameters[0] == "depth"
    assert analysis.importances["fanova"].sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("rows", "warning"),
    [
        (
            [(1, 0.01, "a", 0.5), *[(3, 0.01, "b", TrialState.PRUNED)] * 4],
            "depth = 3 was proposed 4 times and pruned 4 times: the study says nothing about it.",
        ),
        ([(1, 0.01, "a", 0.5)], "depth = 2 was never proposed."),
        (
            [(1, 0.01, "a", 0.5), *[(3, 0.01, "b", TrialState.FAIL)] * 2],
            "2 of 3 trials failed. The first one: no reason was kept",
        ),
        (
            [(2, 0.99, "a", 0.9), (1, 0.01, "b", 0.5)],
            "rate's best value, 0.99, lies on the edge of its range [0.0001, 1]: better ones may "
            "lie outside.",
        ),
        (
            [(2, 0.01, "a", 0.9), *[(1, 0.01, "b", 0.5)] * 20],
            "The last 20 completed trials did not improve.",
        ),
        (
            [(2, 0.01, "a", 0.82, 0.05), (1, 0.02, "b", 0.81, 0.05)],
            "No difference is shown between the best two settings (trials 0 and 1): 0.8200 and "
            "0.8100 over 5 runs each, p = 0.76.",
        ),
        (
            [(1, 0.01, "a", 0.5), *[(2, 0.01, "b", TrialState.PRUNED)] * 2],
            "2 of 3 trials were pruned: what is said of values rests on the 1 that completed, and "
            "what learns slowly may be missing.",
        ),
    ],
)
def test_what_it_says_in_words(rows, warning):
    assert warning in analyse(make_study(rows)).warnings


def test_a_value_that_is_nearly_always_the_same():
    rows = [(1, r, k, 0.1) for _, r, k, _ in uneven(40)] + [(3, 0.01, "a", 0.9)] * 3
    (warning,) = [w for w in analyse(make_study(rows)).warnings if "mattered most" in w]
    assert warning.startswith("depth mattered most, and 40 of 43 completed trials have depth = 1")


def test_a_healthy_study_is_not_warned_of():
    rows = [
        (depth, rate, kind, 0.5 + 0.1 * depth - abs(np.log10(rate) + 2) / 10 + 0.001 * i, 0.001)
        for i, (depth, rate, kind, _) in enumerate(uneven(60))
    ]
    rows.append((2, 0.01, "a", 0.99, 0.001))
    assert analyse(make_study(rows)).warnings == []


def test_pictures(tmp_path):
    rows = [(depth, rate, kind, depth + rate) for depth, rate, kind, _ in uneven(20)]
    paths = analyse(make_study(rows)).save_plots(tmp_path / "pictures")
    names = {path.stem for path in paths}
    assert names == {"values", "history", "slices", "parallel", "importances"}
    assert all(path.stat().st_size > 5_000 for path in paths)


def test_a_study_without_trials():
    with pytest.raises(ValueError, match="has no trials yet"):
        analyse(make_study([]))


def test_numbers_of_reverse_log_are_the_users_own(tmp_path):
    hp = keras_tuner.HyperParameters()
    hp.Float("momentum", 0.5, 0.99, sampling="reverse_log")

    class Momentum(OptunaTuner):
        def run_trial(self, trial, **keywords):
            return {"score": trial.hyperparameters.get("momentum")}

    tuner = Momentum(
        objective=keras_tuner.Objective("score", "max"),
        max_trials=10,
        hyperparameters=hp,
        directory=tmp_path,
    )
    tuner.search(verbose=0)
    trials = analyse(tuner).trials
    assert trials["momentum"].tolist() == pytest.approx(trials["value"].tolist())
    assert tuner.get_best_hyperparameters()[0].get("momentum") == trials["momentum"].max()
