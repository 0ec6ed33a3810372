"""Prompt tuning: learnt embeddings before every row (Lester et al. 2021, arXiv 2104.08691), or p-tuning (2103.10385).

It is the smallest method of all, and the slowest to learn: the frozen base sees nothing but some more input. With an
`encoder` the embeddings come out of a small network, as in p-tuning, which is thrown away after training. PEFT holds
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tuneloop.methods._virtual import VirtualMethod, drawn_words, encoder_of

if TYPE_CHECKING:
    from torch import nn

    from tuneloop.models.shape import Shape
    from tuneloop.types import Rendered


class Method(VirtualMethod):
    """Prompt tuning by PEFT."""

    kind: Literal["prompt"] = "prompt"
    start: Literal["words", "random"] | None = None
    """`words`: embeddings of words drawn from the training rows (section 3.2 of 2104.08691: better than random in all
    but the largest bases); the start unless given, and `random` where there is an encoder."""
    encoder: Literal["none", "mlp", "lstm"] = "none"
    """P-tuning: the embeddings are made by an MLP, or by an LSTM in both directions with an MLP behind it."""
    encoder_hidden: Annotated[int, Field(ge=1)] | None = None
    """Width of the encoder; that of the base unless given."""
    encoder_layers: Annotated[int, Field(ge=1)] = 2
    """Layers of the LSTM."""
    encoder_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout between the layers of the LSTM."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        own = {name for name in ("encoder_hidden", "encoder_layers", "encoder_dropout")
               if getattr(self, name) != type(self).model_fields[name].default}
        if self.encoder == "none" and own:
            raise ValueError(f"{', '.join(sorted(own))}: there is no encoder; set `encoder: lstm`, or leave it out")
        if self.encoder == "mlp" and own - {"encoder_hidden"}:
            raise ValueError(f"{', '.join(sorted(own - {'encoder_hidden'}))}: only encoder lstm has it")
        if self.encoder_dropout and self.encoder_layers == 1:
            raise ValueError("encoder_dropout acts between layers of the LSTM, and encoder_layers is 1")
        if self.encoder != "none" and self.start == "words":
            raise ValueError("start words cannot be had with an encoder, which would change them; leave `start` out")
        return self

    @property
    def exact_when_shared(self) -> bool:
        return self.encoder_dropout == 0

    def config(self, model: nn.Module) -> Any:
        from peft import PromptEncoderConfig, PromptTuningConfig, PromptTuningInit

        if self.encoder == "none":
            return PromptTuningConfig(num_virtual_tokens=self.tokens, prompt_tuning_init=PromptTuningInit.RANDOM,
                                      task_type="CAUSAL_LM")
        hidden = self.encoder_hidden or int(model.config.hidden_size)   # type: ignore[union-attr, arg-type]
        return PromptEncoderConfig(num_virtual_tokens=self.tokens, encoder_hidden_size=hidden,
                                   encoder_reparameterization_type=self.encoder.upper(),
                                   encoder_num_layers=self.encoder_layers, encoder_dropout=self.encoder_dropout,
                                   task_type="CAUSAL_LM")

    def begin(self, model: nn.Module, seed: int, rows: Sequence[Rendered]) -> None:
        """PEFT's random embeddings are far larger than words, so random ones are made as large as words here."""
        import torch

        if self.encoder != "none":
            return
        weight = encoder_of(model).embedding.weight
        with torch.no_grad():
            words = model.get_input_embeddings()(drawn_words(model, self.tokens, seed, rows))   # type: ignore[operator]
            weight.copy_(weight * words.float().std() if self.start == "random" else words)

    def learning_rate(self, parameters: int) -> tuple[float, str]:
        if self.encoder != "none":
            return 1e-3, "that of PEFT's p-tuning: the encoder's weights train, which take usual steps of Adam"
        return 1e-2, ("far above other methods, as so few numbers at the input move the answers little (2104.08691 "
                      "takes 0.3 with Adafactor); try 3e-2, too")

    def count(self, shape: Shape) -> int:
        d = shape.hidden
        h, rows = self.encoder_hidden or d, self.tokens * d
        if self.encoder == "none":
            return rows
        if self.encoder == "mlp":
            return rows + (d + 1) * h + (h + 1) * h + (h + 1) * d
        lstm = sum(8 * h * (inputs + h + 2) for inputs in [d] + [2 * h] * (self.encoder_layers - 1))  # both directions
        return rows + lstm + (2 * h + 1) * 2 * h + (2 * h + 1) * d
