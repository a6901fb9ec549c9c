"""Performance without labels: what a classifier's own calibrated probabilities say about it (CBPE).

Notations
=========

==========  =============================================================================================  ==========
symbol      meaning                                                                                        shape
==========  =============================================================================================  ==========
p_i         probability that row i is of the class                                                         (m,)
m_1         rows predicted to be of the class                                                              scalar
A, B        Σ p_i over rows predicted to be of the class, and over the others                              scalar
TP, FP      A and m_1 - A; FN and TN are B and m - m_1 - B: the expected confusion matrix                  scalar
g_i         derivative of a metric with respect to p_i                                                     (m,)
V           Σ g_i² p_i (1 - p_i), the variance of the metric over the labels to come                       scalar
==========  =============================================================================================  ==========

The labels, given the scores, are independent coins, so their sums have Poisson-binomial variance Σ p(1-p); ratios of
sums take theirs by the delta method. With labels 0 and 1 in place of p the same formulas give the realised metrics.

Sources: J. Białek et al., "Estimating model performance under covariate shift without labels" (2024); Y. H. Wang, "On
the number of successes in independent trials" (1993), for the variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ml_pipeline.drift.calibration import Calibration, fit_calibration
from ml_pipeline.errors import DriftInputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Estimate", "PerformanceEstimator"]

_LEAST_ROWS_A_CLASS = 10
_LEAST_PAIRS = 1e-9
_TWO_SIDED_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric with its 95 % interval; a realised one has no width.

    Attributes:
        value: The metric, in [0, 1].
        low: Lower end of the interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PerformanceEstimator:
    """A classifier's calibrated scores, ready to stand in for labels that are late.

    Attributes:
        calibrations: One map from score to probability for a binary classifier, one a class for others.
    """

    assumptions: ClassVar[str] = (
        "assumes that inputs shift only within the reference's support, that the relation of inputs to labels did not "
        "change, and that the scores were calibrated on rows the model was not trained on"
    )
    """What an estimate rests on: to be said next to the number."""

    calibrations: tuple[Calibration, ...]

    @classmethod
    def fit(cls, scores: ArrayLike, labels: ArrayLike) -> PerformanceEstimator:
        """Calibrate on labelled rows that the model was not trained on.

        Args:
            scores: Score of the positive class, shape (n,), or of each class, shape (n, K).
            labels: The true class of each row, shape (n,): 0 or 1, or 0 … K - 1.

        Returns:
            The estimator.

        Raises:
            DriftInputError: If shapes differ, a score is not finite, a label is no class, or a class has too few rows.
        """
        table = _scores(scores)
        truth = _classes("labels", labels, table)
        calibrations = []
        for column, place in enumerate(_places(table)):
            of_class = (truth == place).astype(np.float64)
            if min(of_class.sum(), (1 - of_class).sum()) < _LEAST_ROWS_A_CLASS:
                raise DriftInputError(
                    f"calibration needs {_LEAST_ROWS_A_CLASS} rows of each class and of the others",
                    f"class {place}: {int(of_class.sum())} of {len(truth)} rows",
                    "use more labelled rows",
                )
            calibrations.append(fit_calibration(table[:, column], of_class))
        return cls(tuple(calibrations))

    def estimate(self, scores: ArrayLike, predictions: ArrayLike) -> dict[str, Estimate]:
        """Estimate the performance on rows without labels.

        Args:
            scores: As in `fit`, shape (m,) or (m, K).
            predictions: The class that the model decided on, shape (m,).

        Returns:
            ``accuracy``, ``precision``, ``recall``, ``f1``, ``specificity`` and ``roc_auc``, of several classes the
            mean over the classes; without those that these rows leave undefined. They rest on `assumptions`.

        Raises:
            DriftInputError: If shapes differ from each other or from those fitted, or a value is no score or no class.
        """
        table, decided = self._rows(scores, predictions)
        probabilities = np.column_stack([each(table[:, i]) for i, each in enumerate(self.calibrations)])
        if len(self.calibrations) > 1:
            # Maps fitted one class at a time need not add up to one; where all say zero, no class is likelier than
            # another.
            totals = probabilities.sum(axis=1, keepdims=True)
            even = np.full_like(probabilities, 1 / probabilities.shape[1])
            probabilities = np.divide(probabilities, totals, out=even, where=totals > 0)
        return _performance(probabilities, table, decided)

    def realised(self, scores: ArrayLike, predictions: ArrayLike, labels: ArrayLike) -> dict[str, Estimate]:
        """Measure the performance once labels are there, to be shown beside the estimate.

        Args:
            scores: As in `fit`, shape (m,) or (m, K).
            predictions: The class that the model decided on, shape (m,).
            labels: The true class of each row, shape (m,).

        Returns:
            The same metrics, by the same formulas; their intervals have no width.

        Raises:
            DriftInputError: If shapes differ from each other or from those fitted, or a value is no score or no class.
        """
        table, decided = self._rows(scores, predictions)
        truth = _classes("labels", labels, table)
        return _performance((truth[:, None] == np.array(_places(table))).astype(np.float64), table, decided)

    def _rows(self, scores: ArrayLike, predictions: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        table = _scores(scores)
        if table.shape[1] != len(self.calibrations):
            raise DriftInputError(
                f"scores have the {len(self.calibrations)} columns that were fitted",
                table.shape,
                "fit and estimate alike",
            )
        return table, _classes("predictions", predictions, table)


def _scores(scores: ArrayLike) -> NDArray[np.float64]:
    table = _floats("scores", scores)
    table = table[:, None] if table.ndim == 1 else table
    if table.ndim != 2 or table.size == 0 or not np.isfinite(table).all():  # noqa: PLR2004 - rows and classes
        raise DriftInputError("scores are finite, of shape (rows,) or (rows, classes)", table.shape, "drop other rows")
    return table


def _floats(what: str, values: ArrayLike) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DriftInputError(f"{what} are numbers", str(error), "encode them first") from error


def _places(table: NDArray[np.float64]) -> tuple[int, ...]:
    # One column of scores is that of class 1 against class 0.
    return (1,) if table.shape[1] == 1 else tuple(range(table.shape[1]))


def _classes(what: str, values: ArrayLike, table: NDArray[np.float64]) -> NDArray[np.float64]:
    classes = _floats(what, values)
    count = max(2, table.shape[1])
    if classes.shape != table.shape[:1] or not np.isin(classes, np.arange(count)).all():
        raise DriftInputError(
            f"{what} are one class from 0 to {count - 1} a row",
            classes.shape,
            "number the classes as the scores' columns",
        )
    return classes


def _performance(
    probabilities: NDArray[np.float64], scores: NDArray[np.float64], decided: NDArray[np.float64]
) -> dict[str, Estimate]:
    places = _places(scores)
    by_class = [_one_class(probabilities[:, i], scores[:, i], decided == place) for i, place in enumerate(places)]
    metrics = {
        name: _mean([each[name] for each in by_class]) for name in by_class[0] if all(name in each for each in by_class)
    }
    if len(places) > 1:
        right = probabilities[np.arange(len(decided)), decided.astype(np.int64)]
        metrics["accuracy"] = _metric(float(right.mean()), np.full(len(right), 1 / len(right)), right)
    return {name: _interval(value, deviation) for name, (value, deviation) in metrics.items()}


def _one_class(
    p: NDArray[np.float64], scores: NDArray[np.float64], decided: NDArray[np.bool_]
) -> dict[str, tuple[float, float]]:
    rows, predicted = len(p), int(decided.sum())
    a, b = float(p[decided].sum()), float(p[~decided].sum())
    found = {"accuracy": _metric((a + rows - predicted - b) / rows, np.where(decided, 1, -1) / rows, p)}
    if predicted:
        found["precision"] = _metric(a / predicted, decided / predicted, p)
    if a + b > 0:
        found["recall"] = _metric(a / (a + b), np.where(decided, b, -a) / (a + b) ** 2, p)
        total = predicted + a + b
        found["f1"] = _metric(2 * a / total, np.where(decided, 2 * (predicted + b), -2 * a) / total**2, p)
    negatives = rows - a - b
    if negatives > 0:
        tn = rows - predicted - b
        found["specificity"] = _metric(tn / negatives, np.where(decided, tn, tn - negatives) / negatives**2, p)
    auc = _roc_auc(p, scores)
    return found if auc is None else found | {"roc_auc": auc}


def _roc_auc(p: NDArray[np.float64], scores: NDArray[np.float64]) -> tuple[float, float] | None:
    # Pairs of a row of the class above one of the others; rows with one score are half above each other, no row pairs
    # with itself.
    _, tie = np.unique(scores, return_inverse=True)
    positives, negatives = np.bincount(tie, weights=p), np.bincount(tie, weights=1 - p)
    below = np.cumsum(negatives) - negatives / 2
    above = positives.sum() - np.cumsum(positives) + positives / 2
    itself = float(p @ (1 - p))
    pairs = float(positives.sum() * negatives.sum()) - itself
    if pairs <= _LEAST_PAIRS:
        return None
    auc = (float(positives @ below) - itself / 2) / pairs
    slope = (below - above)[tie] - auc * float(negatives.sum() - positives.sum())
    return _metric(auc, slope / pairs, p)


def _metric(value: float, gradient: NDArray[np.float64], p: NDArray[np.float64]) -> tuple[float, float]:
    return value, math.sqrt(float(gradient**2 @ (p * (1 - p))))


def _mean(metrics: list[tuple[float, float]]) -> tuple[float, float]:
    # However the classes' errors correlate, the mean deviates no more than the mean of their deviations.
    value, deviation = np.mean(metrics, axis=0).tolist()
    return value, deviation


def _interval(value: float, deviation: float) -> Estimate:
    half = _TWO_SIDED_95 * deviation
    return Estimate(value, max(0.0, value - half), min(1.0, value + half))
