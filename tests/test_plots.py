"""What pictures say: lines where the numbers are, texts that can be read, nothing cut off."""

import io
import itertools
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

from kfusion.plots import (
    plot_confusion,
    plot_intervals,
    plot_precision_recall,
    plot_reliability,
    plot_roc,
)

RANDOM = np.random.default_rng(0)
Y = RANDOM.integers(2, size=80)
GOOD = np.clip(0.5 * Y + 0.5 * RANDOM.random(80), 0, 1)
POOR = RANDOM.random(80)
BY_NAME = {"image": POOR, "fused": GOOD}
CLASSES, GUESSES = RANDOM.integers(3, size=(2, 80))
NAMES = ["forest", "grass", "water"]
OF_SCORES = {"roc": plot_roc, "precision": plot_precision_recall, "reliability": plot_reliability}
of_scores = pytest.mark.parametrize("plot", OF_SCORES.values(), ids=OF_SCORES)
FIGURES = {
    **{name: lambda plot=plot, **k: plot(Y, BY_NAME, **k) for name, plot in OF_SCORES.items()},
    "confusion": lambda **k: plot_confusion(CLASSES, GUESSES, NAMES, **k),
    "intervals": lambda **k: plot_intervals(["a", "b"], [1, 2], [0, 1], [2, 4], **k),
}
every_plot = pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)


def line_of(figure, start):
    """The points of the line whose name in the legend starts so."""
    (line,) = (line for line in figure.axes[0].lines if line.get_label().startswith(start))
    return line.get_xdata(), line.get_ydata()


def legend_of(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def cells_of(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def assert_nothing_is_cut_off(figure):
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    assert min(box.x0, box.y0) >= 0
    assert box.x1 <= figure.get_figwidth()
    assert box.y1 <= figure.get_figheight()


def test_roc_lines_and_areas_are_those_of_scikit_learn():
    figure = plot_roc(Y, BY_NAME)
    expected = sklearn_metrics.roc_curve(Y, GOOD, drop_intermediate=False)[:2]
    np.testing.assert_allclose(line_of(figure, "fused"), expected)
    areas = [sklearn_metrics.roc_auc_score(Y, scores) for scores in (POOR, GOOD)]
    assert legend_of(figure) == [f"image (AUC {areas[0]:.3f})", f"fused (AUC {areas[1]:.3f})"]


def test_precision_lines_and_areas_are_those_of_scikit_learn_beside_the_share_of_positives():
    figure = plot_precision_recall(Y, BY_NAME)
    precision, recall, _ = sklearn_metrics.precision_recall_curve(Y, GOOD)
    np.testing.assert_allclose(line_of(figure, "fused"), (recall, precision))
    assert line_of(figure, "share")[1] == [Y.mean(), Y.mean()]
    areas = [sklearn_metrics.average_precision_score(Y, scores) for scores in (POOR, GOOD)]
    assert legend_of(figure) == [
        f"image (AP {areas[0]:.3f})",
        f"fused (AP {areas[1]:.3f})",
        f"share of positives ({Y.mean():.3f})",
    ]


def test_reliability_points_are_those_of_scikit_learn_above_a_histogram_of_all_rows():
    figure = plot_reliability(Y, BY_NAME, num_bins=5, strategy="quantile")
    observed, predicted = calibration_curve(Y, GOOD, n_bins=5, strategy="quantile")
    np.testing.assert_allclose(line_of(figure, "fused"), (predicted, observed))
    (histogram,) = figure.axes[0].child_axes
    for steps in histogram.patches:
        assert steps.get_data().values.sum() == pytest.approx(1)
    assert histogram.get_xlim() == figure.axes[0].get_xlim()


def test_confusion_cells_hold_counts_and_are_coloured_by_the_share_of_their_row():
    figure = plot_confusion(CLASSES, GUESSES, NAMES)
    counts = sklearn_metrics.confusion_matrix(CLASSES, GUESSES)
    assert cells_of(figure) == [str(count) for count in counts.ravel()]
    shares = sklearn_metrics.confusion_matrix(CLASSES, GUESSES, normalize="true")
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), shares)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == NAMES


def test_a_class_without_rows_has_no_colour():
    figure = plot_confusion([0, 0, 2], [0, 1, 2], NAMES)
    assert figure.axes[0].images[0].get_array().mask[:, 0].tolist() == [False, True, False]


def test_ninety_classes_have_no_numbers_and_names_that_do_not_touch():
    labels = np.arange(90)
    figure = plot_confusion(labels, labels, [f"species {label}" for label in labels])
    assert cells_of(figure) == []
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(boxes) >= 30
    assert all(lower.y1 < upper.y0 for upper, lower in itertools.pairwise(boxes))
    assert_nothing_is_cut_off(figure)


@pytest.mark.parametrize(("num_classes", "rows"), [(2, 10), (2, 10**6), (17, 10**5), (30, 10)])
def test_numbers_stay_in_their_cells(num_classes, rows):
    y = np.random.default_rng(0).integers(num_classes, size=rows)
    figure = plot_confusion(y, y, [f"class {label}" for label in range(num_classes)])
    ax = figure.axes[0]
    figure.draw_without_rendering()
    cell = ax.get_window_extent().width / num_classes
    assert all(text.get_window_extent().width < cell for text in ax.texts)
    assert all(text.get_fontsize() >= 5 for text in ax.texts)
    assert len(ax.texts) == num_classes**2 or num_classes > 17


def test_intervals_lie_where_they_are_from_top_to_bottom():
    figure = plot_intervals(
        ["first", "second"], [1, 2], [0.5, 1], [2, 4], reference=1.5, reference_name="table"
    )
    ax = figure.axes[0]
    bars, (points, reference) = ax.collections[0].get_segments(), ax.lines
    assert [bar.tolist() for bar in bars] == [[[0.5, 0], [2, 0]], [[1, 1], [4, 1]]]
    np.testing.assert_array_equal(points.get_xydata(), [[1, 0], [2, 1]])
    assert ax.yaxis_inverted()
    assert reference.get_xdata() == [1.5, 1.5]
    assert legend_of(figure) == ["table"]


@every_plot
def test_axes_are_labelled_and_a_png_comes_out(draw):
    figure = draw(label="AUC") if draw is FIGURES["intervals"] else draw()
    for ax in [figure.axes[0], *figure.axes[0].child_axes]:
        assert ax.get_xlabel() or ax.get_ylabel()
    buffer = io.BytesIO()
    figure.savefig(buffer)
    assert buffer.getvalue().startswith(b"\x89PNG")


@every_plot
def test_a_figure_is_a_column_wide_and_shows_all_of_itself(draw):
    figure = draw()
    assert figure.get_figwidth() == 3.4
    assert_nothing_is_cut_off(figure)


@pytest.mark.parametrize(("length", "number"), [(1, 1), (60, 1), (60, 12)])
def test_names_long_and_many_fit_in(number, length):
    long = ("evergreen needleleaf forest " * 3)[:length]
    names = [f"{place} {long}" for place in range(number)]
    for plot in OF_SCORES.values():
        assert_nothing_is_cut_off(plot(Y, dict.fromkeys(names, GOOD)))
    ones = np.ones(number)
    assert_nothing_is_cut_off(
        plot_intervals(names, ones, ones, ones, reference=1, reference_name=long)
    )
    if number > 1:
        assert_nothing_is_cut_off(plot_confusion(np.arange(number), np.arange(number), names))


@every_plot
def test_given_axes_are_drawn_into_and_their_figure_returned(draw):
    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    assert draw(ax=right) is figure
    assert right.has_data()
    assert not left.has_data()
    assert figure.get_size_inches().tolist() == [7, 3]
    (part,) = figure.subfigures(1, 1, squeeze=False)[0]
    assert draw(ax=part.add_subplot()) is figure


@every_plot
def test_nothing_outside_the_figure_changes(draw):
    before = dict(matplotlib.rcParams)
    draw()
    assert dict(matplotlib.rcParams) == before


def test_pyplot_is_not_loaded():
    program = (
        "import sys; from kfusion.plots import plot_confusion; "
        "plot_confusion([0, 1], [0, 1], 'ab').savefig(sys.stderr.buffer); "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"False"


def test_twenty_candidates_have_lines_that_differ():
    figure = plot_roc(Y, {str(place): GOOD for place in range(20)})
    lines = figure.axes[0].lines[1:]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 20


def test_names_are_shown_as_they_are():
    figure = plot_roc(Y, {"_hidden": GOOD, "$x^$ cost": GOOD, 3: GOOD})
    assert [text.split(" (AUC")[0] for text in legend_of(figure)] == [
        " _hidden",
        r"\$x^\$ cost",
        "3",
    ]
    figure.savefig(io.BytesIO())


@of_scores
def test_what_cannot_be_drawn_is_named(plot):
    with pytest.raises(ValueError, match="'fused' cannot be drawn. .* nan in row 1"):
        plot([0, 1, 1], {"image": [0.1, 0.2, 0.3], "fused": [0.1, np.nan, 0.3]})
    with pytest.raises(ValueError, match="'image' cannot be drawn. .*2 in row 0"):
        plot([2, 1, 1], {"image": [0.1, 0.2, 0.3]})
    with pytest.raises(ValueError, match="y has 2, .* has 3"):
        plot([0, 1], {"image": [0.1, 0.2, 0.3]})
    with pytest.raises(ValueError, match="is empty"):
        plot(Y, {})
    with pytest.raises(TypeError, match="dict from names.*ndarray"):
        plot(Y, GOOD)


def test_confusion_names_a_label_without_a_class():
    with pytest.raises(ValueError, match="`predicted` must hold the labels 0 to 2.* 3 in row 1"):
        plot_confusion([0, 1], [0, 3], NAMES)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (([1, 2], [0, 1], [2]), "highs has 1"),
        (([1, np.nan], [0, 1], [2, 3]), "nan and 1.0 to 3.0 for 'second'"),
        (([1, 2], [0, 4], [2, 3]), "2.0 and 4.0 to 3.0 for 'second'"),
        (([1, 2], [-np.inf, 1], [2, 3]), "-inf to 2.0 for 'first'"),
    ],
)
def test_intervals_that_are_none_are_named(numbers, message):
    with pytest.raises(ValueError, match=message):
        plot_intervals(["first", "second"], *numbers)
