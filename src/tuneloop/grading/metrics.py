"""Every metric: importing this module registers them all. What a metric is, and how to add one: `registry`."""

from __future__ import annotations

from tuneloop.grading import (
    classification,
    corpus,
    likelihood,
    numbers,
    programs,
    rewarded,
    structured,
    texts,
    tool_calls,
)
from tuneloop.grading.likelihood import perplexity
from tuneloop.grading.registry import (
    METRICS,
    Kind,
    Metric,
    Options,
    Scores,
    Statistic,
    View,
    chosen,
    mean_of,
    metric,
    names,
)

FILES = (classification, texts, corpus, numbers, structured, tool_calls, programs, likelihood, rewarded)
"""Where metrics are; a new file of metrics is named here."""

__all__ = ["FILES", "METRICS", "Kind", "Metric", "Options", "Scores", "Statistic", "View", "chosen", "mean_of",
           "metric", "names", "perplexity"]
