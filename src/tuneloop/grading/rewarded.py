"""The metric of what reinforcement learning optimises: the rewards of a recipe, by the same graders."""

from __future__ import annotations

import numpy as np

from tuneloop.errors import UserError
from tuneloop.grading.registry import Scores, View, metric


@metric("written", view=True, default=False, in_unit=False, needs="options.rewards")
def reward(view: View) -> Scores:
    """What the graders of a recipe make of each answer: their weighted mean (docs/graders.md).

    That of answers that bring it along, else by `options.rewards`.
    """
    if view.answers.rewards is not None:
        return np.array(view.answers.rewards, np.float64)
    if view.options.rewards is None:
        raise UserError("The metric reward needs graders, and the recipe has no rewards.",
                        wanted="a list of graders under `rewards`", fix="add rewards, or leave the metric out")
    if len(view.samples) != len(view.references):
        raise UserError("The metric reward needs the rows themselves, and only their texts are known here.",
                        fix="leave the metric out")
    return view.options.rewards.measure(view.samples, view.answers.texts)
