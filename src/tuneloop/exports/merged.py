"""A plain Hugging Face model: the adapter merged into its base in full precision, then stored as wished."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from tuneloop.errors import UserError
from tuneloop.exports.equality import Prompt, Report, judged, next_logprobs, require_same_tokens

if TYPE_CHECKING:
    from torch import Tensor

    from tuneloop.methods.base import MethodSpec
    from tuneloop.models.shape import Shape
    from tuneloop.models.tokenizer import ChatTokenizer

DType = Literal["float32", "float16", "bfloat16"]
LARGEST_FLOAT16 = 65504.0


def check(method: MethodSpec) -> None:
    """Raise a UserError for a method whose result is no change of the base's own weights; before anything loads."""
    if not getattr(method, "mergeable", True):
        raise UserError(f"The result of method {method.kind} cannot be merged into the base: it is no change of the "
                        "base's own weights.", fix="export the adapter instead: --to adapter")


def dtype_for(shape: Shape, given: str | None) -> str:
    """How to store the weights: as `given`, else as the base's own files where those have 16 bits, else float32."""
    if given is None:
        return shape.stored_dtype if shape.stored_dtype in ("float16", "bfloat16") else "float32"
    if given not in get_args(DType):
        raise UserError(f"'{given}' is no dtype of an export.", wanted="one of " + ", ".join(get_args(DType)))
    return given


def write(model: Any, tokenizer: ChatTokenizer, folder: Path, dtype: str) -> None:
    """Store a merged model, which is cast in place."""
    import torch

    if dtype == "float16":
        for name, parameter in model.named_parameters():
            if float(parameter.detach().abs().max()) > LARGEST_FLOAT16:
                raise UserError(f"{name} holds numbers that are too large for float16.", fix="--dtype bfloat16")
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save(folder)


def compare(folder: Path, wanted: Tensor, prompts: Sequence[Prompt], dtype: str) -> tuple[Report, Tensor]:
    """The model as it was written, loaded again: its report and its log-probs, or a UserError.

    Computed in float32, whatever the files hold: the noise of arithmetic in 16 bits is not that of the export.
    """
    import torch

    from tuneloop.models.load import load_model
    from tuneloop.models.tokenizer import ChatTokenizer

    require_same_tokens(prompts, ChatTokenizer(folder).encode, "transformers")
    found = next_logprobs(load_model(folder, dtype=torch.float32), prompts)
    report = judged(wanted, found, stored=dtype, what="merged", read_by="transformers",
                    against="the adapter on the base in full precision")
    return report, found
