"""The safety suites by name."""

from __future__ import annotations

from tuneloop.evaluation.safety.bias import Counterfactual, Stereotypes
from tuneloop.evaluation.safety.injection import Injection
from tuneloop.evaluation.safety.jailbreak import Jailbreak
from tuneloop.evaluation.safety.personal import PersonalData
from tuneloop.evaluation.safety.requests import Benign, Harmful
from tuneloop.evaluation.safety.toxicity import Toxicity
from tuneloop.evaluation.suites.base import Suite

_ALL: tuple[Suite, ...] = (Harmful(), Benign(), Jailbreak(), Injection(), Toxicity(), Counterfactual(), Stereotypes(),
                           PersonalData())
SAFETY: dict[str, Suite] = {suite.name: suite for suite in _ALL}
"""Every safety suite with its built-in probes. With other probes, a judge or a classifier, make one of its class."""
