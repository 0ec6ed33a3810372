"""The reward model of an earlier run, asked on the base that a session has in memory: it differs by an adapter and a
head, so actor, reference and reward share one frozen base.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuneloop import needs
from tuneloop.adapters import require_same_base
from tuneloop.compute.check import Packing
from tuneloop.compute.model import ForestModel
from tuneloop.errors import UserError
from tuneloop.grading.graders.base import Case
from tuneloop.inference.engine import switched
from tuneloop.inference.score import rewards
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.record import RunFolder
from tuneloop.types import Message

ADAPTER = "tuneloop_reward"         # its name on the model while it is asked


class LearntReward:
    """What a reward model says at the end of every answer, as it is: it need not lie in [0, 1]."""

    def __init__(self, run: RunFolder, base: Path, tokenizer: ChatTokenizer) -> None:
        """Raises a UserError where the run holds no reward model of the base in this folder."""
        from tuneloop.recipe import load

        self.tokenizer, self.recipe = tokenizer, load(run.file("recipe.yaml"), run_own_code=False)
        self.folder = run.file(self.recipe.method.artefact)
        if not (self.folder / needs.REWARD_FILE).is_file():
            raise UserError(f"{run.path} holds no reward model.", wanted="a finished run with objective: reward")
        if self.recipe.method.artefact != "adapter":
            raise UserError(f"The reward model {run.path} is a whole model of its own.",
                            wanted="one that shares the base: a run with method: lora")
        require_same_base(self.folder, base)
        self._head: Any = None

    def score(self, model: Any, cases: Sequence[Case], packing: Packing, token_budget: int) -> list[float]:
        """The reward of each answer. `model` is the base, or a model of PEFT on it, and is left as it was."""
        from tuneloop.data.render import RenderProblem, render
        from tuneloop.types import Conversation

        rows = [Conversation((*case.row.prompt, Message("assistant", case.answer)), case.row.origin)
                for case in cases if case.row]
        rendered = []
        for row, found in zip(rows, render(rows, self.tokenizer), strict=True):
            if isinstance(found, RenderProblem):
                raise UserError(f"{row.origin}: an answer to this row cannot be rewarded: {found.message}.")
            rendered.append(found)
        with self._on(model) as asked:
            if self._head is None:
                head = needs.scalar_head(asked.get_base_model(), self.recipe.objective, 0)
                self._head = needs.load_scalar(head, self.folder, self.recipe.objective)
            said = rewards(ForestModel(asked, packing.mode, self._head), rendered, token_budget=token_budget,
                           share=packing.share)
        return [float(one) for one in said]

    @contextmanager
    def _on(self, model: Any) -> Iterator[Any]:
        """A model of PEFT that answers with the reward adapter, which is taken off again."""
        from peft import PeftModel

        if not hasattr(model, "peft_config"):
            asked = PeftModel.from_pretrained(model, self.folder, adapter_name=ADAPTER)
            try:
                yield asked
            finally:
                asked.unload()
            return
        trains = {name for name, p in model.named_parameters() if p.requires_grad}
        model.load_adapter(self.folder, ADAPTER)
        try:
            with switched(model, ADAPTER):
                yield model
        finally:
            model.delete_adapter(ADAPTER)
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name in trains)
