"""The rival of a label task: TF-IDF and logistic regression, which train in seconds. If it does as well as the tuned
model, a language model may not be needed."""

from __future__ import annotations

from collections.abc import Sequence

from tuneloop.errors import missing_extra
from tuneloop.types import Answers, Conversation

NAME = "rival"


def rival(train: Sequence[Conversation], test: Sequence[Conversation]) -> Answers:
    """Learn labels from the words and letter runs of the last user turn, and answer the test rows.

    Raises a UserError naming the extra if scikit-learn is missing.
    """
    labels = [row.answer for row in train]
    if len(set(labels)) == 1:
        return Answers(NAME, [labels[0]] * len(test))
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline, make_union
    except ImportError as error:
        raise missing_extra("scikit-learn", "eval", "The TF-IDF rival") from error

    rare = 2 if len(train) >= 1000 else 1       # what occurs once teaches nothing, unless there is little to learn from
    model = make_pipeline(
        make_union(
            TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", min_df=rare, sublinear_tf=True),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=rare, sublinear_tf=True),
        ),
        LogisticRegression(C=10, max_iter=1000),
    )
    model.fit([last_user_turn(row) for row in train], labels)
    return Answers(NAME, [str(label) for label in model.predict([last_user_turn(row) for row in test])])


def last_user_turn(row: Conversation) -> str:
    """What the answer answers."""
    said = [m.content for m in row.prompt if m.role == "user"] or [m.content for m in row.prompt]
    return said[-1] if said else ""
