"""Prefix tuning: learnt keys and values before every row, in every layer (Li & Liang 2021, arXiv 2101.00190).

The base is frozen and sees the virtual tokens in all layers, so that few of them change much. They are computed once
per forward for all its rows. PEFT holds them; its two-layer MLP over them (`projection`) is thrown away after training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import Field, model_validator

from tuneloop.errors import UserError
from tuneloop.methods._virtual import VirtualMethod, drawn_words, encoder_of

if TYPE_CHECKING:
    from torch import nn

    from tuneloop.models.shape import Shape
    from tuneloop.types import Rendered


class Method(VirtualMethod):
    """Prefix tuning by PEFT."""

    kind: Literal["prefix"] = "prefix"
    projection: bool = False
    """Train a small matrix and an MLP that makes the prefix of it, as the paper does (section 4.3); many more
    parameters in training, the same prefix after it."""
    projection_hidden: Annotated[int, Field(ge=1)] | None = None
    """Width of that MLP; 512 unless given (512 and 800 in the paper)."""
    start: Literal["words", "random"] | None = None
    """`words`: the keys and values that the base computes for words drawn from the training rows (section 7.4: random
    starts are worse and less stable); the start unless given, and `random` where there is a projection."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.projection and self.start == "words":
            raise ValueError("start words cannot be had with a projection: no input of the MLP is known that gives "
                             "the words' keys and values; leave `start` out")
        if not self.projection and self.projection_hidden is not None:
            raise ValueError("projection_hidden is the width of the projection: set `projection: true`, too")
        return self

    def config(self, model: nn.Module) -> Any:
        from peft import PrefixTuningConfig

        return PrefixTuningConfig(num_virtual_tokens=self.tokens, prefix_projection=self.projection,
                                  encoder_hidden_size=cast(int, self._width if self.projection else None),
                                  task_type="CAUSAL_LM")

    def begin(self, model: nn.Module, seed: int, rows: Sequence[Rendered]) -> None:
        import torch

        layers = _computed(model, drawn_words(model, self.tokens, seed, rows))
        if not self.projection and self.start != "random":
            with torch.no_grad():
                encoder_of(model).embedding.weight.copy_(torch.cat([part for pair in layers for part in pair], -1))

    def learning_rate(self, parameters: int) -> tuple[float, str]:
        if self.projection:
            return 1e-3, "above the 5e-5 of the paper (2101.00190, appendix), which trains many more steps than usual"
        return 1e-2, ("without the paper's MLP the prefix itself trains, which takes far larger steps than its 5e-5: "
                      "SmolLM2-135M learnt faster so than by 5e-3")

    def count(self, shape: Shape) -> int:
        wide = shape.kv_heads * shape.head_dim
        whole = 2 * shape.layers * wide
        if not self.projection:
            return self.tokens * whole
        return self.tokens * wide + (wide + 1) * self._width + (self._width + 1) * whole

    @property
    def _width(self) -> int:
        return self.projection_hidden or 512


def _computed(model: nn.Module, ids: Any) -> list[tuple[Any, Any]]:
    """Keys and values (T, heads * size) of every layer of the base for these tokens.

    A UserError where they do not have the form of the prefix that PEFT makes: some layers keep none, or others.
    """
    import torch

    tuned = cast(Any, model)
    base, config = tuned.get_base_model(), tuned.active_peft_config
    was_training = base.training
    base.eval()
    with torch.no_grad():
        cache = base(input_ids=ids.unsqueeze(0), use_cache=True).past_key_values
    base.train(was_training)
    layers = getattr(cache, "layers", [])
    heads = config.num_attention_heads
    wanted = (1, heads, len(ids), config.token_dim // heads)
    found = [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in layers]
    if len(found) != config.num_layers or any(getattr(x, "shape", None) != wanted for pair in found for x in pair):
        raise UserError("Not all layers of this base keep keys and values of one form, which prefix tuning needs.",
                        wanted="a transformer whose layers all attend in the same way",
                        fix="use method: lora, or method: prompt, which changes the input only")
    return [(k[0].transpose(0, 1).flatten(1), v[0].transpose(0, 1).flatten(1)) for k, v in cast(Any, found)]
