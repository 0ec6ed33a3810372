"""Exports of a run's result, each checked to answer as the run's own model does. The report stays in the run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop.errors import TrainingFailed, UserError
from tuneloop.exports import merged as merging
from tuneloop.exports.equality import (
    Difference,
    Prompt,
    difference,
    judged,
    judged_gguf,
    next_logprobs,
    prompts_of,
    require_same_tokens,
)
from tuneloop.record import RunFolder, read_json

if TYPE_CHECKING:
    from torch import Tensor

    from tuneloop.recipe import Recipe

TARGETS = ("merged", "adapter", "gguf")
QUANTISATIONS = ("f16", "q8_0", "q4_0")
SAME = 0.9      # agreement below which nobody would say that two models answer alike
AGAINST = "the adapter on the base in full precision"


def export(folder: RunFolder, to: str, target: Path, *, dtype: str | None = None,
           quantise: str | None = None) -> dict[str, Any]:
    """Write the result as `to` and return the report, which is also kept in the run as exports/<name>.json.

    An export that differs by more than its tolerance is refused, and nothing is left at `target`.
    """
    work = Export(folder, to, target, dtype, quantise)
    report = {"merged": work.merged, "adapter": work.adapter, "gguf": work.gguf}[to]()
    folder.write(report, "exports", f"{work.name}.json")
    return report


class Export:
    """One export: what can be refused is refused here, before any model is loaded."""

    def __init__(self, folder: RunFolder, to: str, target: Path, dtype: str | None, quantise: str | None) -> None:
        from tuneloop.models.resolve import resolve
        from tuneloop.models.shape import read_shape
        from tuneloop.recipe import load
        from tuneloop.session import trained_folder

        if to not in TARGETS:
            raise UserError(f"Exporting to '{to}' is not supported yet.",
                            wanted=" or ".join(f"--to {name}" for name in TARGETS))
        _require_fitting(to, target, dtype, quantise)
        self.folder, self.to, self.target = folder, to, target
        self.recipe: Recipe = load(folder.file("recipe.yaml"), run_own_code=False)
        self.artefact = trained_folder(folder, self.recipe.method)
        self.base = resolve(self.recipe.base, self.recipe.root).path
        self.stored = "float32"
        if to == "adapter":
            self._check_adapter()
        else:
            merging.check(self.recipe.method)
        if to == "merged":
            self.stored = merging.dtype_for(read_shape(self.base), dtype)
        if to == "gguf":
            self.stored = quantise or "q8_0"
            _check_gguf(self.base)
        self.name = "adapter" if to == "adapter" else f"{to}-{self.stored}"

    def merged(self) -> dict[str, Any]:
        """A plain Hugging Face model."""
        found: list[dict[str, Any]] = []

        def write(into: Path) -> None:
            prompts, wanted, tokenizer, model = self._tuned()
            merging.write(self.recipe.method.merge(model), tokenizer, into, self.stored)
            del model
            report, logprobs = merging.compare(into, wanted, prompts, self.stored)
            found.append(report.to_json() | self._quantised(prompts, logprobs))

        self._publish(write)
        return self._report(found[0] | {"dtype": self.stored})

    def adapter(self) -> dict[str, Any]:
        """The PEFT folder, with which plain PEFT gives the same answers."""
        found: list[dict[str, Any]] = []

        def write(into: Path) -> None:
            from tuneloop.models.tokenizer import ChatTokenizer

            prompts, wanted, _, model = self._tuned()
            del model
            shutil.copytree(self.artefact, into, dirs_exist_ok=True)
            require_same_tokens(prompts, ChatTokenizer(into).encode, "transformers")
            known = _peft_knows(into)
            read = _plain_peft(self.base, into) if known else self._by_method(into)
            found.append(judged(wanted, next_logprobs(read, prompts), stored="float32", what="exported",
                                against=AGAINST, read_by="peft" if known else "tuneloop").to_json())
            if not known:
                found[0]["note"] = f"PEFT alone cannot read what method {self.recipe.method.kind} trains; tuneloop can."

        self._publish(write)
        return self._report(found[0])

    def gguf(self) -> dict[str, Any]:
        """A folder with one GGUF file, and a Modelfile for Ollama where the chat template can be written as one."""
        found: list[dict[str, Any]] = []

        def write(into: Path) -> None:
            from tuneloop.exports import gguf_file
            from tuneloop.exports.equality import read_gguf

            prompts, wanted, tokenizer, model = self._tuned()
            whole, file = into / "whole", into / f"{self.folder.path.resolve().name}-{self.stored}.gguf"
            merged: Any = self.recipe.method.merge(model)
            merging.write(merged, tokenizer, whole, "float32")
            stored: Any = self.stored       # one of QUANTISATIONS
            gguf_file.write(whole, file, stored)
            shutil.rmtree(whole)
            gguf_file.round_weights(merged, stored)
            rounded = next_logprobs(merged, prompts)
            del model, merged
            logprobs, read_by, tokens = read_gguf(file, prompts, tokenizer)
            report = judged_gguf(wanted, rounded, logprobs, stored=stored, against=AGAINST, read_by=read_by,
                                 tokens=tokens)
            found.append(report.to_json() | self._quantised(prompts, logprobs) | {"file": file.name}
                         | _add_modelfile(tokenizer, into, file.name))

        self._publish(write)
        return self._report(found[0] | {"quantisation": self.stored})

    def _tuned(self) -> tuple[list[Prompt], Tensor, Any, Any]:
        """Prompts, what the adapter on the whole base in float32 says after them, the tokenizer and that model."""
        import torch

        from tuneloop.session import open_run

        model, tokenizer = open_run(self.folder, whole_base=True, dtype=torch.float32)
        kept = self.folder.has("evaluation", "predictions.jsonl")       # else those of the validation rows, if any
        names = ("evaluation", "predictions.jsonl") if kept else ("samples.jsonl",)
        prompts = prompts_of(self.folder.lines(*names), tokenizer)
        return prompts, next_logprobs(model, prompts), tokenizer, model

    def _by_method(self, adapter: Path) -> Any:
        import torch

        from tuneloop.models.load import load_model

        return self.recipe.method.load(load_model(self.base, dtype=torch.float32), adapter).eval()

    def _quantised(self, prompts: list[Prompt], logprobs: Tensor) -> dict[str, Any]:
        """What the merged model differs from the quantised base with the adapter, which is what was trained."""
        bits = getattr(self.recipe.method, "bits", None)
        if bits is None:
            return {}
        from tuneloop.session import open_run

        trained, _ = open_run(self.folder)
        apart: Difference = difference(next_logprobs(trained, prompts), logprobs)
        return {"quantised_base": {
            "bits": bits, "max_difference": apart.max_difference, "mean_difference": apart.mean_difference,
            "top1_agreement": apart.top1_agreement,
            "sentence": f"It was trained on a base in {bits} bits and is merged into the base in full precision: "
                        f"against what was trained, log-probs differ by {apart.mean_difference:.2g} on average and "
                        f"{apart.max_difference:.2g} at most; {apart.top1_agreement:.0%} of the next tokens agree."}}

    def _check_adapter(self) -> None:
        kind = self.recipe.method.kind
        if self.recipe.method.artefact != "adapter":
            raise UserError(f"Method {kind} trains the whole model: there is no adapter.",
                            fix="export the model instead: --to merged")
        if not (self.artefact / "adapter_config.json").is_file():
            raise UserError(f"What method {kind} leaves is no adapter that PEFT reads.", wanted="adapter_config.json",
                            fix="export the model instead: --to merged")

    def _publish(self, write: Callable[[Path], None]) -> None:
        from tuneloop.data.versions.learnt import learnt_by, read_learnt, write_learnt
        from tuneloop.training.checkpoint import publish

        def write_all(into: Path) -> None:
            write(into)
            write_learnt(into, learnt_by(self.folder.path) | read_learnt(self.base))

        try:
            publish(self.target, write_all)
        except TrainingFailed as error:
            raise UserError(error.found, fix="free disk space, or choose another place with --out") from error

    def _report(self, entries: dict[str, Any]) -> dict[str, Any]:
        from tuneloop.adapters import weight_bytes

        return {"to": self.to, "target": str(self.target), "method": self.recipe.method.kind} | entries | {
            "adapter_bytes": weight_bytes(self.artefact)}


def sentences(report: dict[str, Any]) -> list[str]:
    """What the command says of a report."""
    allowed = f"{report['tolerance']:g} allowed"
    one, all_of_it = ("", f", {allowed}") if report["to"] == "gguf" else (f", {allowed}", "")
    agree = report["top1_agreement"]
    verdict = "answers as the run does" if agree >= SAME else "is the run's model, and answers differently as stored so"
    said = [f"{report['target']} {verdict}: log-probs differ by at most {report['max_difference']:.1e} "
            f"({report['mean_difference']:.1e} on average{one}) over {report['prompts']} prompt"
            f"{'s' * (report['prompts'] > 1)}, the next tokens' distribution diverges by "
            f"{max(0.0, report['divergence']):.1e} nats (KL{all_of_it}), and {agree:.0%} of the likeliest next tokens "
            f"agree; against {report['against']}, read by {report['read_by']}.",
            f"What was trained takes {report['adapter_bytes']:,} bytes."]
    if "quantised_base" in report:
        said.append(report["quantised_base"]["sentence"])
    if report.get("tokens") == "vocabulary":
        said.append("Of its tokenizer the vocabulary was compared; with llama-cpp-python, the prompts' tokens are.")
    return said + ([report["note"]] if "note" in report else [])


def _require_fitting(to: str, target: Path, dtype: str | None, quantise: str | None) -> None:
    """Options of one target are no silent nothing for another."""
    if dtype is not None and to != "merged":
        raise UserError(f"--dtype means nothing for --to {to}.", wanted="--dtype with --to merged")
    if quantise is not None and to != "gguf":
        raise UserError(f"--quantise means nothing for --to {to}.", wanted="--quantise with --to gguf")
    if quantise is not None and quantise not in QUANTISATIONS:
        raise UserError(f"'{quantise}' is no quantisation of an export.", wanted="one of " + ", ".join(QUANTISATIONS))
    if target.exists():
        raise UserError(f"{target} exists already.", fix="choose another place with --out")


def _check_gguf(base: Path) -> None:
    from importlib.util import find_spec

    if find_spec("gguf") is None:
        raise UserError("An export to GGUF needs the package gguf, which is not installed.", fix="pip install gguf")
    from tuneloop.exports import gguf_file

    gguf_file.check(read_json(base / "config.json"))


def _peft_knows(adapter: Path) -> bool:
    from peft import PeftType

    return read_json(adapter / "adapter_config.json")["peft_type"] in PeftType.__members__


def _plain_peft(base: Path, adapter: Path) -> Any:
    """As somebody without this tool would load it."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from tuneloop.models.load import device

    model: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter)
    return model.to(device()).eval()


def _add_modelfile(tokenizer: Any, into: Path, name: str) -> dict[str, Any]:
    from tuneloop.exports.modelfile import modelfile

    text, note = modelfile(tokenizer, name)
    (into / "Modelfile").write_text(text, encoding="utf-8")
    return {"modelfile": "Modelfile"} | ({"note": note} if note else {})
