"""GGUF files: turned into a float32 base in the Hugging Face layout, once."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneloop.errors import UserError

SLACK_BYTES = 200_000_000       # tokenizer, configuration, what Python needs besides the weights


@dataclass(frozen=True)
class Contents:
    """What a GGUF file says about itself."""

    parameters: int
    stored_as: str      # the quantisation of most of its weights, such as Q4_1

    @property
    def float32_bytes(self) -> int:
        return 4 * self.parameters


def inspect(file: Path) -> Contents:
    """Read the header of a GGUF file, or say that it is none."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
        counts: Counter[str] = Counter()
        for tensor in reader.tensors:
            counts[tensor.tensor_type.name] += int(tensor.n_elements)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise UserError(f"{file} cannot be read as GGUF: {error}.", wanted="a whole .gguf file of one part",
                        fix="download the file again") from error
    if not counts:
        raise UserError(f"{file} holds no weights.", wanted="a .gguf file of a language model")
    return Contents(counts.total(), counts.most_common(1)[0][0])


def require_torch(base: str) -> None:
    """A UserError where torch cannot be imported: converting needs it, using what was converted does not."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        fix = f"pip install torch, or where it is installed run: tuneloop models fetch {base}"
        raise UserError(f"The base {base} has to be converted once, and that needs torch, which cannot be imported "
                        f"({error}).", fix=fix) from error


def convert(file: Path, folder: Path) -> list[str]:
    """Write the base in `file` to `folder` as float32 safetensors with its tokenizer; returns what there is to say."""
    contents = inspect(file)
    _require_room(file, folder, contents)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # Without `dequantize` the model keeps a flag that it is quantised, and neither trains nor saves.
    options: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    with _quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(file.parent, **options)
            model = AutoModelForCausalLM.from_pretrained(
                file.parent, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32, **options)
        except (ValueError, KeyError, NotImplementedError, OSError) as error:
            raise UserError(f"{file.name} cannot be converted: {error}",
                            fix="use the original base from the model hub instead") from error
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    if contents.stored_as in {"F32", "F16", "BF16"}:
        return [f"converted from {file.name}"]
    return [f"converted from {file.name}: its weights were quantised ({contents.stored_as}), which makes it a little "
            "worse than the original"]


def _require_room(file: Path, folder: Path, contents: Contents) -> None:
    import psutil

    needed = contents.float32_bytes + SLACK_BYTES
    for what, free in (("memory", psutil.virtual_memory().available), ("disk space", shutil.disk_usage(folder).free)):
        if free < needed:
            raise UserError(f"Converting {file.name} needs {needed / 1e9:.1f} GB of {what}; {free / 1e9:.1f} GB are "
                            "free.", fix="free some, or choose a smaller base (`tuneloop models`)")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars: one of them heeds no setting, so standard error is held back, and dropped unless this fails."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        if shown:
            logging.enable_progress_bar()
