"""A reward model of an earlier run as the reward of reinforcement learning. It shares the policy's frozen base in
memory, and differs by its adapter and its head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tuneloop import needs
from tuneloop.adapters import require_same_base
from tuneloop.errors import UserError
from tuneloop.training.online import Rewarded

if TYPE_CHECKING:
    from pathlib import Path

    from tuneloop.compute.check import Packing
    from tuneloop.record import RunFolder
    from tuneloop.types import Conversation, Rendered

ADAPTER = "tuneloop_reward"         # its name on the policy's model


class LearntReward:
    """What a reward model says at the end of every answer, as it is: it need not lie in [0, 1]."""

    def __init__(self, run: RunFolder, policy: Any, base: Path, packing: Packing, token_budget: int) -> None:
        """`policy` is the model of PEFT that trains, on the base in the folder `base`. Raises a UserError where the run
        holds no reward model of this base.
        """
        from tuneloop.models.shape import weights_sha256
        from tuneloop.recipe import load

        self.packing, self.token_budget, self.name = packing, token_budget, run.path.name
        recipe = load(run.file("recipe.yaml"), run_own_code=False)
        folder = run.file(recipe.method.artefact)
        if not (folder / needs.REWARD_FILE).is_file():
            raise UserError(f"{run.path} holds no reward model.", wanted="a finished run with objective: reward")
        if recipe.method.artefact != "adapter" or not hasattr(policy, "peft_config"):
            raise UserError(f"The reward model {run.path} cannot share the policy's base: one of the two changes all of "
                            "its weights.", wanted="method: lora for both")
        require_same_base(folder, base)
        known = run.read("record.json")["base"]["sha256"]
        if known != weights_sha256(base):
            raise UserError(f"The reward model {run.path} was trained on another base.",
                            wanted="the policy's own", fix="train both on the same base")
        self.policy = policy
        trains = {name for name, p in policy.named_parameters() if p.requires_grad}
        before = policy.active_adapter
        policy.load_adapter(folder, ADAPTER)
        policy.set_adapter(before)
        for name, parameter in policy.named_parameters():
            parameter.requires_grad_(name in trains)
        head = needs.scalar_head(policy.get_base_model(), recipe.objective, 0)
        self.head = needs.load_scalar(head, folder, recipe.objective)

    def __call__(self, samples: Sequence[Conversation], answers: Sequence[str],
                 rendered: Sequence[Rendered]) -> Rewarded:
        from tuneloop.compute.model import ForestModel
        from tuneloop.inference.engine import switched
        from tuneloop.inference.score import rewards

        with switched(self.policy, ADAPTER):
            model = ForestModel(self.policy, self.packing.mode, self.head)
            return Rewarded(rewards(model, rendered, token_budget=self.token_budget, share=self.packing.share))

    def close(self) -> None:
        """Take its adapter off, so that only the policy's is saved."""
        self.policy.delete_adapter(ADAPTER)
