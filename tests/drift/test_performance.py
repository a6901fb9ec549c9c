"""Performance without labels, against scikit-learn and simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special
from sklearn import metrics
from sklearn.isotonic import IsotonicRegression

from ml_pipeline.drift import PerformanceEstimator
from ml_pipeline.drift.calibration import calibration_error, fit_calibration
from ml_pipeline.errors import DriftInputError

Vector = NDArray[np.float64]
METRICS = ["accuracy", "precision", "recall", "f1", "specificity", "roc_auc"]


def binary(rows: int, seed: int, shift: float = 0.0, sharpness: float = 1.0) -> tuple[Vector, Vector, Vector]:
    """Scores, decisions and labels of a model that is overconfident for *sharpness* above 1."""
    random = np.random.default_rng(seed)
    logit = random.normal(shift, 1.5, rows)
    labels = (random.random(rows) < special.expit(logit)).astype(float)
    scores = special.expit(sharpness * logit)
    return scores, (scores >= 0.5).astype(float), labels


def test_isotonic_map_is_scikit_learns() -> None:
    """The map through its knots is the isotonic regression, ties and all."""
    scores, _, labels = binary(500, 0)
    scores = np.round(scores, 2) * 3 - 1
    fitted = fit_calibration(scores, labels)
    expected = IsotonicRegression(out_of_bounds="clip").fit(scores, labels)
    places = np.linspace(-2, 3, 701)
    np.testing.assert_allclose(fitted(places), expected.predict(places), atol=1e-9)
    assert len(fitted.scores) < 100


def test_map_is_kept_only_if_it_helps() -> None:
    """Scores that are calibrated as they are stay so; overconfident ones are mapped, and the error falls."""
    honest = fit_calibration(np.tile(np.repeat([0.25, 0.75], 4), 100), np.tile([1.0, 0, 0, 0, 1, 1, 1, 0], 100))
    assert (honest.scores, honest.error) == ((), 0)
    assert honest(np.array([0.3, 1.2])).tolist() == [0.3, 1.0]
    scores, _, labels = binary(4_000, 1, sharpness=4)
    mapped = fit_calibration(scores, labels)
    assert mapped.scores
    assert mapped.error < calibration_error(scores, labels) / 2


def test_calibration_error_closed_form() -> None:
    """Probabilities that are off by a tenth everywhere have an error of a tenth."""
    labels = np.tile([1.0, 0.0], 500)
    assert calibration_error(np.full(1_000, 0.6), labels) == pytest.approx(0.1)
    assert calibration_error(labels, labels) == 0


def test_realised_is_scikit_learns() -> None:
    """With labels the metrics are scikit-learn's, tied scores included, and their intervals have no width."""
    scores, decided, labels = binary(700, 2)
    scores = np.round(scores, 1)
    found = PerformanceEstimator.fit(scores, labels).realised(scores, decided, labels)
    expected = {
        "accuracy": metrics.accuracy_score(labels, decided),
        "precision": metrics.precision_score(labels, decided),
        "recall": metrics.recall_score(labels, decided),
        "f1": metrics.f1_score(labels, decided),
        "specificity": metrics.recall_score(1 - labels, 1 - decided),
        "roc_auc": metrics.roc_auc_score(labels, scores),
    }
    assert {name: each.value for name, each in found.items()} == pytest.approx(expected, rel=1e-12)
    assert all(each.low == each.high == each.value for each in found.values())


@pytest.mark.parametrize("sharpness", [1.0, 3.0])
def test_interval_covers_the_realised_metrics(sharpness: float) -> None:
    """On chunks whose inputs shifted, 95 % of the intervals hold the metric that the labels give, calibrated or not."""
    scores, _, labels = binary(40_000, 3, sharpness=sharpness)
    estimator = PerformanceEstimator.fit(scores, labels)
    inside = dict.fromkeys(METRICS, 0)
    for seed in range(150):
        scores, decided, labels = binary(300, 1_000 + seed, shift=0.7, sharpness=sharpness)
        estimated = estimator.estimate(scores, decided)
        for name, realised in estimator.realised(scores, decided, labels).items():
            inside[name] += estimated[name].low <= realised.value <= estimated[name].high
    for name, hits in inside.items():
        assert hits / 150 >= 0.89, name


def test_estimate_by_hand() -> None:
    """The expected confusion matrix of three rows, written out."""
    scores, labels = np.tile([0.2, 0.5, 0.8], 400), np.tile([0, 0, 0, 0, 1, 1, 1, 0, 1, 0, 1, 1], 100)
    estimator = PerformanceEstimator.fit(scores, labels)
    p = estimator.calibrations[0](np.array([0.2, 0.5, 0.8]))
    found = estimator.estimate([0.2, 0.5, 0.8], [0, 1, 1])
    tp, fp, fn, tn = p[1] + p[2], 2 - p[1] - p[2], p[0], 1 - p[0]
    assert found["accuracy"].value == pytest.approx((tp + tn) / 3)
    assert found["precision"].value == pytest.approx(tp / (tp + fp))
    assert found["recall"].value == pytest.approx(tp / (tp + fn))
    assert found["f1"].value == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert found["specificity"].value == pytest.approx(tn / (tn + fp))
    pairs = p[1] * (1 - p[0]) + p[2] * (1 - p[0]) + p[2] * (1 - p[1])
    every = pairs + p[0] * (1 - p[1]) + p[0] * (1 - p[2]) + p[1] * (1 - p[2])
    assert found["roc_auc"].value == pytest.approx(pairs / every)
    half = 1.959964 * np.sqrt((p * (1 - p)).sum()) / 3
    assert found["accuracy"].high - found["accuracy"].value == pytest.approx(min(half, 1 - found["accuracy"].value))


def three_classes(rows: int, seed: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    random = np.random.default_rng(seed)
    scores = special.softmax(random.normal(0, 1.5, (rows, 3)), axis=1)
    labels = (random.random(rows)[:, None] > np.cumsum(scores, axis=1)).sum(axis=1)
    return scores, scores.argmax(axis=1), np.minimum(labels, 2)


def test_several_classes() -> None:
    """Of several classes, accuracy is that of the decision and the rest the mean over classes, as in scikit-learn."""
    scores, decided, labels = three_classes(3_000, 4)
    estimator = PerformanceEstimator.fit(scores, labels)
    scores, decided, labels = three_classes(1_000, 5)
    realised = estimator.realised(scores, decided, labels)
    assert realised["accuracy"].value == pytest.approx(metrics.accuracy_score(labels, decided))
    assert realised["f1"].value == pytest.approx(metrics.f1_score(labels, decided, average="macro"))
    assert realised["roc_auc"].value == pytest.approx(metrics.roc_auc_score(labels, scores, multi_class="ovr"))
    estimated = estimator.estimate(scores, decided)
    for name in METRICS:
        assert estimated[name].low <= realised[name].value <= estimated[name].high


def test_no_class_is_likely() -> None:
    """Where every map says zero, the classes are equally likely."""
    scores = np.repeat([[2.0, -1, -1], [-1, 2, -1], [-1, -1, 2]], 100, axis=0)
    estimator = PerformanceEstimator.fit(scores, np.repeat([0, 1, 2], 100))
    assert estimator.estimate([[-1.0, -1.0, -1.0]], [0])["accuracy"].value == pytest.approx(1 / 3)


def test_undefined_metrics_are_left_out() -> None:
    """Precision without a positive decision, and everything that needs both classes, is left out."""
    scores, _, labels = binary(500, 6)
    estimator = PerformanceEstimator.fit(scores, labels)
    assert "precision" not in estimator.estimate([0.4, 0.6], [0, 0])
    assert set(estimator.realised([0.4], [1], [0])) == {"accuracy", "precision", "specificity"}
    assert set(estimator.realised([0.4], [1], [1])) == {"accuracy", "precision", "recall", "f1"}
    assert "roc_auc" not in estimator.estimate([0.4], [1])


def test_assumptions_are_said() -> None:
    """The sentence that belongs next to every estimate is there."""
    assert PerformanceEstimator.assumptions.startswith("assumes that inputs shift only within the reference's support")


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.1, np.nan], [0, 1], "scores are finite, of shape (rows,) or (rows, classes) (got (2, 1)); drop other rows"),
        ([], [], "scores are finite"),
        (["high"], [1], "scores are numbers (got \"could not convert string to float: 'high'\"); encode them first"),
        ([0.1, 0.2], [0, 2], "labels are one class from 0 to 1 a row (got (2,)); number the classes as the scores'"),
        ([0.1, 0.2], [0], "labels are one class from 0 to 1 a row (got (1,))"),
        ([0.1, 0.2], ["yes", "no"], "labels are numbers"),
        ([0.1] * 30, [0] * 21 + [1] * 9, "calibration needs 10 rows of each class and of the others (got 'class 1: 9 "),
    ],
)
def test_unfit_labels(scores: Any, labels: Any, message: str) -> None:
    """Scores and labels that no calibration can come from are refused."""
    with pytest.raises(DriftInputError) as caught:
        PerformanceEstimator.fit(scores, labels)
    assert message in str(caught.value)


def test_other_number_of_classes() -> None:
    """Scores of another number of classes than fitted are refused."""
    scores, _, labels = binary(500, 7)
    with pytest.raises(DriftInputError, match=r"scores have the 1 columns that were fitted \(got \(1, 2\)\)"):
        PerformanceEstimator.fit(scores, labels).estimate([[0.1, 0.9]], [1])
