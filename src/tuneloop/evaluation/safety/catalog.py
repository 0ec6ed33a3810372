"""The safety suites by name, and one call that runs them."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from tuneloop.errors import UserError
from tuneloop.evaluation.safety.bias import Counterfactual, Stereotypes
from tuneloop.evaluation.safety.injection import Injection
from tuneloop.evaluation.safety.jailbreak import Jailbreak
from tuneloop.evaluation.safety.personal import PersonalData
from tuneloop.evaluation.safety.requests import Benign, Harmful
from tuneloop.evaluation.safety.toxicity import Toxicity
from tuneloop.evaluation.suites.base import Graded, Suite
from tuneloop.inference.backend import Backend, Progress

_ALL: tuple[Suite, ...] = (Harmful(), Benign(), Jailbreak(), Injection(), Toxicity(), Counterfactual(), Stereotypes(),
                           PersonalData())
SAFETY: dict[str, Suite] = {suite.name: suite for suite in _ALL}
"""Every safety suite with its built-in probes. With other probes, a judge or a classifier, make one of its class."""


def run_safety(backend: Backend, names: Sequence[str] | None = None, limit: int | None = None,
               progress: Progress | None = None) -> dict[str, Sequence[Graded]]:
    """What each suite found, by name; all suites unless named, `limit` items of each. For `drop.safety`.

    Raises a UserError for a name that is none.
    """
    chosen = list(SAFETY) if names is None else list(dict.fromkeys(names))
    for name in chosen:
        if name not in SAFETY:
            near = get_close_matches(name, SAFETY, 1)
            raise UserError(f"No safety suite is called {name}.", wanted=", ".join(SAFETY),
                            fix=f"did you mean {near[0]}?" if near else "")
    return {name: SAFETY[name].run(backend, limit=limit, progress=progress) for name in chosen}
