"""From a model's score to a probability that can be added up.

Notations
=========

==========  =============================================================================================  ==========
symbol      meaning                                                                                        shape
==========  =============================================================================================  ==========
s_i         the model's score of row i, any number that grows with the probability of the class            (n,)
y_i         whether row i is of the class, 0 or 1                                                          (n,)
f           the isotonic map: the non-decreasing function with the least Σ (y_i - f(s_i))²                 knots
ECE         mean |mean y - mean p| over bins of equal count in p: the calibration error                    scalar
==========  =============================================================================================  ==========

Sources: R. E. Barlow et al., "Statistical Inference under Order Restrictions" (1972), for the map; B. Zadrozny and C.
Elkan, "Transforming classifier scores into accurate multiclass probability estimates" (2002), for its use; M. P. Naeini
et al., "Obtaining well calibrated probabilities using Bayesian binning" (2015), for the error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Calibration", "calibration_error", "fit_calibration"]

_FOLDS = 5
_ERROR_BINS = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """A map from score to probability.

    Attributes:
        scores: Scores at its knots, ascending; empty if the score is a probability as it is.
        probabilities: The probability at each knot, non-decreasing; between knots the map is linear, beyond them
            constant.
        error: Out-of-fold calibration error of the probabilities it gives.
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]
    error: float

    def __call__(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map scores.

        Args:
            scores: The model's scores, shape (m,).

        Returns:
            Probabilities, shape (m,), in [0, 1].
        """
        if not self.scores:
            return np.clip(scores, 0.0, 1.0)
        return np.interp(scores, self.scores, self.probabilities)


def fit_calibration(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> Calibration:
    """Fit the isotonic map, and keep it only if it makes the probabilities better on rows it was not fitted on.

    Args:
        scores: Scores of rows that the model was not trained on, shape (n,).
        labels: 1.0 for rows of the class and 0.0 for others, shape (n,).

    Returns:
        The map; or none, where the scores are probabilities already and better ones at that.
    """
    out_of_fold = np.empty_like(scores)
    fold = np.arange(len(scores)) % _FOLDS
    for left_out in range(_FOLDS):
        knots = _isotonic(scores[fold != left_out], labels[fold != left_out])
        out_of_fold[fold == left_out] = np.interp(scores[fold == left_out], *knots)
    mapped = calibration_error(out_of_fold, labels)
    is_probability = bool(scores.min() >= 0 and scores.max() <= 1)
    raw = calibration_error(scores, labels) if is_probability else np.inf
    if raw <= mapped:
        return Calibration((), (), raw)
    places, probabilities = _isotonic(scores, labels)
    return Calibration(tuple(places.tolist()), tuple(probabilities.tolist()), mapped)


def calibration_error(probabilities: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """Measure how far probabilities are from frequencies.

    Args:
        probabilities: Predicted probabilities, shape (n,).
        labels: Outcomes, 0.0 or 1.0, shape (n,).

    Returns:
        The expected calibration error over ten bins of equal count, in [0, 1].

    Source: Naeini et al. (2015), equation 4, with bins of equal count.
    """
    order = np.argsort(probabilities, kind="stable")
    gaps = [float(part.sum()) for part in np.array_split((labels - probabilities)[order], _ERROR_BINS)]
    return sum(map(abs, gaps)) / len(labels)


def _isotonic(
    scores: NDArray[np.float64], labels: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from scipy.optimize import isotonic_regression

    places, index, rows = np.unique(scores, return_inverse=True, return_counts=True)
    means = np.bincount(index, weights=labels) / rows
    # Rounding may take a mean of ones an ulp past one.
    fitted = np.clip(isotonic_regression(means, weights=rows).x, 0.0, 1.0)
    # Of each level stretch the two ends say everything.
    ends = np.diff(fitted, prepend=-1.0, append=2.0) != 0
    keep = ends[:-1] | ends[1:]
    return places[keep], fitted[keep]
