"""How likely each label is for each text, told by a small model that has not seen the text."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tuneloop.errors import missing_extra
from tuneloop.types import Ints

FOLDS = 5
STEPS = 20              # of the optimiser; more cost time and make the model surer of wrong labels
STRENGTH = 3.0          # inverse of the penalty on weights; the rival, which need not doubt its labels, uses more
MANY = (1_000, 15_000)  # texts from which on words that occur once, and twice, are left out


def out_of_sample(texts: Sequence[str], labels: Ints, folds: Ints) -> NDArray[np.float64]:
    """(n, K) probabilities of labels 0 … K - 1 for n texts: of each fold by a model of the others.

    Words, pairs of words and letter runs weighted by TF-IDF, and logistic regression. Texts that are equal should be in
    one fold. Raises UserError where scikit-learn is missing.
    """
    with _unblocked("torch"):
        return _predicted(texts, labels, folds)


def _predicted(texts: Sequence[str], labels: Ints, folds: Ints) -> NDArray[np.float64]:
    logistic = _logistic_regression()
    features = _features(texts)
    found = np.zeros((len(texts), int(labels.max()) + 1))
    for fold in np.unique(folds):
        held_out = folds == fold
        if len(set(labels[~held_out].tolist())) < 2:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")         # the optimiser is stopped early on purpose
            model = logistic(C=STRENGTH, max_iter=STEPS).fit(features[~held_out], labels[~held_out])
        found[np.ix_(held_out, model.classes_)] = model.predict_proba(features[held_out])
    return found


@contextmanager
def _unblocked(module: str) -> Iterator[None]:
    """scipy takes a module that must not be imported, None in `sys.modules`, for one that has been imported."""
    blocked = sys.modules.get(module, module) is None
    if blocked:
        del sys.modules[module]
    try:
        yield
    finally:
        if blocked:
            sys.modules[module] = cast(Any, None)


def _logistic_regression() -> Any:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise missing_extra("scikit-learn", "eval", "Finding labels that are likely wrong") from error
    return LogisticRegression


def _features(texts: Sequence[str]) -> Any:
    """(n, f) sparse. Each text gets a full stop, so that something is left where they have nothing in common."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    usual = {"min_df": 1 + sum(len(texts) >= many for many in MANY), "sublinear_tf": True, "dtype": np.float32}
    return make_union(
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", **usual),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), **usual),
    ).fit_transform([f"{text} ." for text in texts]).tocsr()
