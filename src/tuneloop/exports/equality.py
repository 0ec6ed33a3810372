"""Does an export answer as the run does? Token ids of the prompts, and log-probs of the likeliest next tokens."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop.errors import UserError
from tuneloop.types import Message

if TYPE_CHECKING:
    from torch import Tensor

    from tuneloop.models.tokenizer import ChatTokenizer

PROMPTS, TOP = 64, 10
TOLERANCES = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.5}
"""Largest difference in a log-prob that is allowed, by how the weights are stored; a quarter of it on average.

Measured on SmolLM2-135M-Instruct, ten prompts, after an update that left bfloat16's grid: at most 0.009 as float16 and
0.053 as bfloat16 (on average 0.003 and 0.015).
"""
ERRORS = {"f16": 1e-3, "q8_0": 0.03, "q4_0": 0.03}
LOSSES = {"f16": 1e-3, "q8_0": 0.1, "q4_0": 2.0}
"""Of GGUF files, the mean KL divergence in nats that is allowed: from the model whose weights were rounded as they are
in the file (llama.cpp rounds what it multiplies them with, too), and from the model as it was.

Measured on SmolLM2-135M-Instruct by llama.cpp: 0.004 from the rounded weights as q4_0, and 0.00001 (f16), 0.006 (q8_0)
and 0.48 (q4_0) from the model as it was; so small a model suffers from 4 bits as no larger one does. Files written
wrong: 0.10 with a tenth of the rope's base, 1.2 with heads in the wrong order (q8_0).
"""


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt and its tokens, as the run's own tokenizer has them."""

    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Difference:
    """How far two models are apart in the log-probs of next tokens: over the `TOP` likeliest of either."""

    prompts: int
    max_difference: float
    mean_difference: float
    divergence: float           # mean Kullback-Leibler divergence of the second's next tokens from the first's, in nats
    top1_agreement: float       # share of the prompts after which both find the same token likeliest


@dataclass(frozen=True)
class Report(Difference):
    """A difference, what was compared with what, and how much is allowed."""

    tolerance: float            # of the divergence for GGUF files, else of the largest difference
    against: str
    read_by: str
    tokens: str = "prompts"     # what was compared of the tokenizer: the prompts' ids, or its vocabulary

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def prompts_of(rows: Iterable[Mapping[str, Any]], tokenizer: ChatTokenizer) -> list[Prompt]:
    """Up to `PROMPTS` different prompts of the run's rows, or a greeting where it has none."""
    asked = list(dict.fromkeys(str(row["prompt"]) for row in rows if row.get("prompt")))[:PROMPTS] or ["Hello."]
    texts = [tokenizer.prompt_text([Message("user", text)]) for text in asked]
    return [Prompt(text, tuple(ids)) for text, ids in zip(texts, tokenizer.encode(texts), strict=True)]


def next_logprobs(model: Any, prompts: Sequence[Prompt]) -> Tensor:
    """(prompts, vocabulary) float32 log-probs of what comes next; each prompt alone, as padding adds noise of its own.
    """
    import torch

    device = next(model.parameters()).device
    with torch.no_grad():
        return torch.stack([model(input_ids=torch.tensor([p.ids], device=device)).logits[0, -1].float()
                            .log_softmax(-1).cpu() for p in prompts])


def difference(wanted: Tensor, found: Tensor) -> Difference:
    """Of two (prompts, vocabulary) tables of log-probs. Numbers that are not finite are infinitely far."""
    import torch

    width = min(wanted.shape[1], found.shape[1])        # some files pad the vocabulary
    wanted, found = wanted[:, :width], found[:, :width]
    count = min(TOP, width)
    apart = []
    for one, other in zip(wanted, found, strict=True):
        likely = torch.unique(torch.cat([one.topk(count).indices, other.topk(count).indices]))
        apart.append((one[likely] - other[likely]).abs().nan_to_num(nan=torch.inf))
    every, divergence = torch.cat(apart), (wanted.exp() * (wanted - found)).sum(-1).mean()
    return Difference(len(wanted), float(every.max()), float(every.mean()), float(divergence.nan_to_num(nan=torch.inf)),
                      float((wanted.argmax(-1) == found.argmax(-1)).float().mean()))


def judged(wanted: Tensor, found: Tensor, *, stored: str, what: str, against: str, read_by: str,
           tokens: str = "prompts") -> Report:
    """The report on an export whose weights are `stored` so, or a UserError with the numbers."""
    report = Report(**asdict(difference(wanted, found)), tolerance=TOLERANCES[stored], against=against,
                    read_by=read_by, tokens=tokens)
    if report.max_difference <= report.tolerance and report.mean_difference <= report.tolerance / 4:
        return report
    raise UserError(f"The {what} model differs from the tuned one by {report.max_difference:.2e} in a log-prob "
                    f"({report.mean_difference:.2e} on average over {report.prompts} prompts; both find the same token "
                    f"likeliest after {report.top1_agreement:.0%} of them).",
                    wanted=f"at most {report.tolerance:g} as {stored}, and {report.tolerance / 4:g} on average, "
                           f"read by {report.read_by}",
                    fix="use the adapter itself, or a more precise format; nothing was written")


def judged_gguf(wanted: Tensor, rounded: Tensor, found: Tensor, *, stored: str, against: str, read_by: str,
                tokens: str) -> Report:
    """The report on a GGUF file, or a UserError with the numbers.

    Few bits change the answers, and so would a mistake. Therefore the file is also compared with what `rounded` says:
    the model itself, in torch, whose weights were rounded as they are in the file.
    """
    report = Report(**asdict(difference(wanted, found)), tolerance=LOSSES[stored], against=against, read_by=read_by,
                    tokens=tokens)
    error = difference(rounded, found).divergence
    if error > ERRORS[stored]:
        raise UserError(f"The GGUF file computes something else than its weights mean: read by {read_by}, it diverges "
                        f"by {error:.2g} nats from the model with the same rounded weights.",
                        wanted=f"at most {ERRORS[stored]:g}", fix="export to another format; nothing was written"
                        + ("" if tokens == "prompts" else ". Or pip install llama-cpp-python, which reads more"))
    if report.divergence > report.tolerance:
        raise UserError(f"As {stored} the model diverges by {report.divergence:.2g} nats from the tuned one (both find "
                        f"the same token likeliest after {report.top1_agreement:.0%} of {report.prompts} prompts).",
                        wanted=f"at most {report.tolerance:g}", fix="use a more precise format; nothing was written")
    return report


def require_same_tokens(prompts: Sequence[Prompt], encode: Callable[[list[str]], Sequence[Sequence[int]]],
                        read_by: str) -> None:
    """Raise a UserError unless `encode` of the export gives the prompts' own ids."""
    for prompt, ids in zip(prompts, encode([p.text for p in prompts]), strict=True):
        if tuple(ids) != prompt.ids:
            at = next((i for i, (a, b) in enumerate(zip(prompt.ids, ids, strict=False)) if a != b),
                      min(len(prompt.ids), len(ids)))
            raise UserError(f"The exported tokenizer, read by {read_by}, gives other tokens for {prompt.text[:60]!r}: "
                            f"{list(ids[at:at + 5])} in place of {list(prompt.ids[at:at + 5])} at token {at}.",
                            wanted="the same token ids", fix="export to another format; nothing was written")


def read_gguf(file: Path, prompts: Sequence[Prompt], tokenizer: ChatTokenizer) -> tuple[Tensor, str, str]:
    """Log-probs of a GGUF file, who read it, and what of its tokenizer was compared.

    llama.cpp where its Python package works; otherwise transformers, which reads the weights exactly, but rebuilds the
    tokenizer only roughly: of that the file's own vocabulary is compared instead.
    """
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError):
        _require_same_vocabulary(file, tokenizer)
        return next_logprobs(_by_transformers(file), prompts), "transformers", "vocabulary"
    return _by_llama_cpp(llama_cpp, file, prompts), f"llama_cpp {llama_cpp.__version__}", "prompts"


def _by_llama_cpp(llama_cpp: Any, file: Path, prompts: Sequence[Prompt]) -> Tensor:
    import torch

    longest = max(len(p.ids) for p in prompts)
    with contextlib.redirect_stderr(io.StringIO()):
        model = llama_cpp.Llama(str(file), n_ctx=longest + 8, n_batch=longest + 8, logits_all=True, verbose=False)
    require_same_tokens(prompts, lambda texts: [model.tokenize(t.encode(), add_bos=False, special=True)
                                                for t in texts], "llama_cpp")
    rows = []
    for prompt in prompts:
        model.reset()
        model.eval(list(prompt.ids))
        rows.append(torch.tensor(model.scores[len(prompt.ids) - 1]).float().log_softmax(-1))
    model.close()
    return torch.stack(rows)


def _by_transformers(file: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    options: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True, "dtype": torch.float32}
    try:
        with contextlib.redirect_stderr(io.StringIO()):     # one of its progress bars heeds no setting
            model = AutoModelForCausalLM.from_pretrained(
                file.parent, quantization_config=GgufConfig(dequantize=True), **options)
    except (ValueError, KeyError, NotImplementedError, OSError) as error:
        raise UserError(f"{file.name} cannot be read again by transformers: {error}",
                        fix="pip install llama-cpp-python, so that llama.cpp itself compares") from error
    return model.eval()


def _require_same_vocabulary(file: Path, tokenizer: ChatTokenizer) -> None:
    from gguf import GGUFReader

    field = GGUFReader(file).get_field("tokenizer.ggml.tokens")
    written = [] if field is None else field.contents()
    for token, number in tokenizer.inner.get_vocab().items():
        if number >= len(written) or written[number] != token:
            raise UserError(f"The exported vocabulary has another token {number} than {token!r}.",
                            wanted="the same token ids", fix="export to another format; nothing was written")
