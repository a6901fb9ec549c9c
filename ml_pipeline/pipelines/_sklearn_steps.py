"""The work of each step and nothing else: no log, no metric, no lineage.

Kept apart so that what observing costs can be measured against the very same steps without it.
"""

from __future__ import annotations

import hashlib
import hmac
import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ml_pipeline._platform import replace_durably
from ml_pipeline.drift import ReferenceProfile
from ml_pipeline.errors import InputDataError
from ml_pipeline.pipelines.table import FEWEST_ROWS, is_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ml_pipeline.pipelines.table import Array, Table, Task

__all__ = [
    "Features",
    "Model",
    "check_table",
    "evaluate",
    "extract_features",
    "load_model",
    "predict",
    "save_model",
    "train",
]

_SHARES: Final = (0.6, 0.2)
_MOST_CATEGORIES: Final = 20


@dataclass(frozen=True)
class Features:
    """Matrices ready to learn from.

    Attributes:
        names: Of the columns.
        train: Rows to fit on, shape (n, d), and ``train_target`` (n,).
        validation: Rows to score on, shape (m, d), and ``validation_target`` (m,).
        held_out: Columns of the rows kept for prediction, each of shape (k,), as they were ingested.
        encoder: Turns columns into such a matrix.
        profile: Of the rows to fit on, to tell later whether a batch drifted.
    """

    names: tuple[str, ...]
    train: Array
    train_target: Array
    validation: Array
    validation_target: Array
    held_out: Mapping[str, Array]
    encoder: Encoder
    profile: ReferenceProfile


@dataclass(frozen=True)
class Model:
    """What is saved, deployed and asked.

    Attributes:
        name: What people call it.
        task: What it predicts.
        encoder: Turns columns into its matrix.
        estimator: A fitted scikit-learn estimator.
        profile: Of the rows it was fitted on.
    """

    name: str
    task: Task
    encoder: Encoder
    estimator: Any
    profile: ReferenceProfile


class Encoder:
    """Columns to a matrix: numbers with the median for what is missing, then standardised; categories one-hot."""

    def __init__(self) -> None:
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder, StandardScaler

        self.numeric: tuple[str, ...] = ()
        self.categorical: tuple[str, ...] = ()
        self._numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
        self._categories = OneHotEncoder(
            handle_unknown="infrequent_if_exist", max_categories=_MOST_CATEGORIES, sparse_output=False
        )

    def fit(self, columns: Mapping[str, Array]) -> Encoder:
        """Learn medians, scales and categories from *columns*, each of shape (n,)."""
        self.numeric = tuple(name for name, values in columns.items() if values.dtype != object)
        self.categorical = tuple(name for name in columns if name not in self.numeric)
        if self.numeric:
            self._numbers.fit(_stacked(columns, self.numeric))
        if self.categorical:
            self._categories.fit(_stacked(columns, self.categorical))
        return self

    def transform(self, columns: Mapping[str, Array]) -> Array:
        """Return the matrix of *columns*, shape (n, d)."""
        parts = []
        if self.numeric:
            parts.append(self._numbers.transform(_stacked(columns, self.numeric)))
        if self.categorical:
            parts.append(self._categories.transform(_stacked(columns, self.categorical)))
        return np.hstack(parts)

    def names(self) -> tuple[str, ...]:
        """Return the names of the matrix's columns."""
        encoded = self._categories.get_feature_names_out(self.categorical) if self.categorical else ()
        return (*self.numeric, *map(str, encoded))


def check_table(table: Table) -> dict[str, bool]:
    """Judge whether a table can be learned from.

    Args:
        table: What was ingested.

    Returns:
        Whether each check passed, by name.

    Raises:
        InputDataError: If it cannot be learned from at all.
    """
    if table.rows < FEWEST_ROWS:
        raise InputDataError(f"a table must have at least {FEWEST_ROWS} rows", table.rows, "give more data")
    classes = len(set(table.target.tolist())) if table.task == "classification" else 2
    if classes < 2:  # noqa: PLR2004 - fewer than two classes leave nothing to tell apart
        raise InputDataError(f"the target {table.target_name!r} must have two classes or more", classes, "give both")
    numbers = [values for values in table.columns.values() if values.dtype != object]
    rows = set(zip(*(values.tolist() for values in table.columns.values()), strict=True))
    return {
        "columns_present": bool(table.columns),
        "values_present": all(not is_missing(values).any() for values in table.columns.values()),
        "values_finite": all(not np.isinf(values).any() for values in numbers),
        "columns_vary": all(len(set(values[~is_missing(values)].tolist())) > 1 for values in table.columns.values()),
        "rows_distinct": len(rows) == table.rows,
        "target_present": not is_missing(table.target).any(),
    }


def extract_features(table: Table, *, seed: int = 0) -> Features:
    """Split the rows 60/20/20, learn the encoding from the first part, and apply it to all three.

    Args:
        table: What was validated.
        seed: Of the split.

    Returns:
        The three parts; classes are spread evenly over them.
    """
    from sklearn.model_selection import train_test_split

    stratify = table.target if table.task == "classification" else None
    rows = np.arange(table.rows)
    train, rest = train_test_split(rows, train_size=_SHARES[0], random_state=seed, stratify=stratify)
    stratify = table.target[rest] if stratify is not None else None
    half = _SHARES[1] / (1 - _SHARES[0])
    validation, held_out = train_test_split(rest, train_size=half, random_state=seed, stratify=stratify)
    learned = {name: values[train] for name, values in table.columns.items()}
    encoder = Encoder().fit(learned)
    return Features(
        names=encoder.names(),
        train=encoder.transform(learned),
        train_target=table.target[train],
        validation=encoder.transform({name: values[validation] for name, values in table.columns.items()}),
        validation_target=table.target[validation],
        held_out={name: values[held_out] for name, values in table.columns.items()},
        encoder=encoder,
        profile=ReferenceProfile.fit(learned),
    )


def train(
    features: Features,
    task: Task,
    name: str,
    *,
    trees: int,
    rounds: int,
    seed: int = 0,
    on_round: Callable[[int, float], None] = lambda _round, _score: None,
) -> Model:
    """Grow a random forest, some trees a round.

    Args:
        features: What to learn from.
        task: What is predicted.
        name: Of the model.
        trees: How many, in all.
        rounds: In how many steps, so that progress can be told.
        seed: Of the forest.
        on_round: Called after each round with its number, from 1, and the validation score.

    Returns:
        The fitted model.
    """
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    forest = RandomForestClassifier if task == "classification" else RandomForestRegressor
    rounds = min(rounds, trees)
    estimator = forest(n_estimators=1, warm_start=True, random_state=seed, min_samples_leaf=2)
    for number in range(1, rounds + 1):
        estimator.set_params(n_estimators=max(1, round(trees * number / rounds)))
        estimator.fit(features.train, features.train_target)
        on_round(number, float(estimator.score(features.validation, features.validation_target)))
    return Model(name, task, features.encoder, estimator, features.profile)


def evaluate(model: Model, features: Features) -> dict[str, float]:
    """Score a model on the validation rows.

    Args:
        model: The fitted model.
        features: Whose ``validation`` part is used.

    Returns:
        Classification: accuracy, f1, precision, recall (averaged over classes), roc_auc. Regression: r2,
        mean_absolute_error, root_mean_squared_error, the last two in the target's unit.
    """
    from sklearn import metrics

    truth, matrix = features.validation_target, features.validation
    predicted = model.estimator.predict(matrix)
    if model.task == "regression":
        return {
            "r2": float(metrics.r2_score(truth, predicted)),
            "mean_absolute_error": float(metrics.mean_absolute_error(truth, predicted)),
            "root_mean_squared_error": float(metrics.root_mean_squared_error(truth, predicted)),
        }
    scores = model.estimator.predict_proba(matrix)
    binary = scores.shape[1] == 2  # noqa: PLR2004 - two classes: the score of the second tells both
    average = {"average": "macro", "zero_division": 0}
    return {
        "accuracy": float(metrics.accuracy_score(truth, predicted)),
        "f1": float(metrics.f1_score(truth, predicted, **average)),
        "precision": float(metrics.precision_score(truth, predicted, **average)),
        "recall": float(metrics.recall_score(truth, predicted, **average)),
        "roc_auc": float(
            metrics.roc_auc_score(
                truth, scores[:, 1] if binary else scores, multi_class="ovr", labels=model.estimator.classes_
            )
        ),
    }


def predict(model: Model, columns: Mapping[str, Array]) -> tuple[list[Any], list[float | None]]:
    """Decide for each row.

    Args:
        model: The model in use.
        columns: Rows as they are ingested, each column of shape (n,).

    Returns:
        n decisions, and n confidences between 0 and 1 (None for a regression).
    """
    matrix = model.encoder.transform(columns)
    if model.task == "regression":
        return [float(value) for value in model.estimator.predict(matrix)], [None] * len(matrix)
    scores = model.estimator.predict_proba(matrix)
    decisions = model.estimator.classes_[scores.argmax(axis=1)]
    return decisions.tolist(), scores.max(axis=1).tolist()


def save_model(model: Model, path: Path) -> str:
    """Write a model, and beside it ``<name>.pkl.sha256`` in the format of ``sha256sum``.

    Args:
        model: What to save.
        path: Where; replaced whole.

    Returns:
        The SHA-256 of the file, hexadecimal.
    """
    content = pickle.dumps(model, protocol=5)
    digest = hashlib.sha256(content).hexdigest()
    replace_durably(path, content)
    replace_durably(path.with_name(path.name + ".sha256"), f"{digest}  {path.name}\n".encode())
    return digest


def load_model(path: Path, sha256: str) -> Model:
    """Read a model that `save_model` wrote, after making sure that it is that very file.

    Args:
        path: Where it is.
        sha256: What its content must hash to; unpickling a file runs the code in it.

    Returns:
        The model.

    Raises:
        InputDataError: If the file is missing or not the one that was saved.
    """
    if not path.is_file():
        raise InputDataError("a deployed model's file must exist", str(path), "train and deploy again")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if not hmac.compare_digest(digest, sha256):
        raise InputDataError(
            "a model file must have the SHA-256 it was deployed with", digest, f"restore the one with {sha256}"
        )
    model = pickle.loads(content)  # noqa: S301 - the hash above says that it is the file we wrote
    if not isinstance(model, Model):
        raise InputDataError("a model file must hold a model", type(model).__name__, "train and deploy again")
    return model


def _stacked(columns: Mapping[str, Array], names: tuple[str, ...]) -> Array:
    return np.column_stack([columns[name] for name in names])
