"""The stop by a growing gap, and the score that charges for it."""

import pytest

from kfusion import OverfitGapStopping, overfit_score


class Model:
    stop_training = False


def epochs_until_stop(gaps, patience=3):
    callback, model = OverfitGapStopping(patience), Model()
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, gap in enumerate(gaps):
        callback.on_epoch_end(epoch, {"accuracy": 0.5 + gap, "val_accuracy": 0.5})
        if model.stop_training:
            return epoch + 1
    return None


@pytest.mark.parametrize(
    ("gaps", "stops"),
    [
        ([0.0, 0.1, 0.2, 0.3], 4),
        ([0.0, 0.1, 0.2, 0.2, 0.3, 0.4], None),
        ([0.3, 0.2, 0.1, 0.2, 0.3, 0.4], 6),
        ([0.1], None),
    ],
)
def test_stops_when_the_gap_grew_three_times_running(gaps, stops):
    assert epochs_until_stop(gaps) == stops


def test_a_metric_that_is_not_logged_is_named_with_those_that_are():
    callback = OverfitGapStopping(metric="auc")
    callback.set_model(Model())
    callback.on_train_begin()
    with pytest.raises(ValueError, match=r"'auc' is not logged; what is: \['loss'\]"):
        callback.on_epoch_end(0, {"loss": 1.0})
    with pytest.raises(ValueError, match="`patience` must be 1 or more"):
        OverfitGapStopping(0)


def test_the_score_by_hand():
    # ((0.75 - 0.5) / 0.8) + (0.75 - 0.5)
    assert overfit_score(0.8, 0.75) == pytest.approx(0.5625)
    assert overfit_score(0.9, 0.4, chance=0.2) == pytest.approx(0.2 / 0.9 + 0.2)
    with pytest.raises(ValueError, match="`train` must be above 0"):
        overfit_score(0.0, 0.5)
