"""A merged model as one GGUF file, the format of llama.cpp, Ollama and LM Studio, written through gguf-py.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Names and changes to the weights are those of
llama.cpp's convert_hf_to_gguf.py. What llama.cpp would compute differently from the model is refused, by name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tuneloop.errors import UserError
from tuneloop.exports import gguf_rope, gguf_tokenizer

Quantisation = Literal["f32", "f16", "q8_0", "q4_0"]

ARCHITECTURES = {"llama": "LLAMA", "mistral": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3", "gemma": "GEMMA",
                 "gemma2": "GEMMA2", "gemma3_text": "GEMMA3"}
"""Of a configuration's `model_type`, the name in gguf's MODEL_ARCH."""

GEMMAS = {"gemma", "gemma2", "gemma3_text"}
FIXED_SCALE = {"gemma2": 46, "gemma3_text": 62}     # layers of the 27B, whose scale llama.cpp takes from the width
DEFAULT_PERIOD = {"gemma2": 2, "gemma3_text": 6}    # one layer in so many sees everything, where nothing is written
FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0", "q4_0": "MOSTLY_Q4_0"}
OUTER = ("token_embd.weight", "output.weight")      # the first and the last: quantised least
BLOCK = 32                                          # numbers that share a scale in q8_0 and q4_0
GREATEST_F16 = 65504.0


def check(config: dict[str, Any]) -> None:
    """Raise a UserError if the model of this config.json cannot be written so that llama.cpp computes the same."""
    family = str(config.get("model_type"))
    if family not in ARCHITECTURES:
        raise UserError(f"A model of the architecture {family} cannot be written as GGUF.",
                        wanted="one of " + ", ".join(ARCHITECTURES), fix="export it as a merged model instead")
    gguf_rope.check(config)
    if found := next(_unlike_llama_cpp(family, config), None):
        raise UserError(f"This {family} model cannot be written as GGUF: {found}, which llama.cpp does not compute.",
                        fix="export it as a merged model instead")


def write(folder: Path, target: Path, quantisation: Quantisation) -> None:
    """Write the model in `folder` (Hugging Face layout, safetensors and tokenizer) to `target`, whole or not at all."""
    if quantisation not in get_args(Quantisation):
        raise UserError(f"There is no GGUF quantisation {quantisation}.",
                        wanted="one of " + ", ".join(get_args(Quantisation)))
    config = _config(folder)
    check(config)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            _write(_tensors(folder, config, stack), folder, config, partial, quantisation, target.stem)
        os.replace(partial, target)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error}.", fix="free disk space, or choose another folder"
                        ) from error
    finally:
        partial.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    read: Callable[[], Any]     # its numbers as a float32 array, in llama.cpp's order


def _unlike_llama_cpp(family: str, config: dict[str, Any]) -> Iterator[str]:
    activation = config.get("hidden_activation") or config.get("hidden_act")
    expected = "gelu_pytorch_tanh" if family in GEMMAS else "silu"
    if activation not in (None, expected):
        yield f"its activation is {activation}, not {expected}"
    if config.get("attention_bias") and family != "llama":
        yield "its attention has biases"
    if family not in GEMMAS:
        return
    if not config.get("tie_word_embeddings", True):
        yield "its output layer is not tied to its embeddings"
    if config.get("use_bidirectional_attention"):
        yield "its attention sees what follows"
    if family == "gemma":
        return
    scale = config["hidden_size"] // config["num_attention_heads"] \
        if config["num_hidden_layers"] == FIXED_SCALE[family] else head_size(config)
    if config.get("query_pre_attn_scalar", scale) != scale:
        yield f"its query_pre_attn_scalar is {config['query_pre_attn_scalar']}, not {scale}"
    caps = [config.get("attn_logit_softcapping"), config.get("final_logit_softcapping")]
    if family == "gemma2" and None in caps:
        yield "it has no soft caps"
    if family == "gemma3_text" and caps != [None, None]:
        yield "it has soft caps"
    if _period(family, config) is None:
        yield "its layers of full attention are not evenly spaced"


def head_size(config: dict[str, Any]) -> int:
    """Numbers per attention head."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _period(family: str, config: dict[str, Any]) -> int | None:
    """One layer in so many, the last of each group, has full attention; None where it is not so."""
    kinds = config.get("layer_types")
    if not kinds:
        return int(config.get("sliding_window_pattern") or DEFAULT_PERIOD[family])
    fits = (p for p in range(1, len(kinds) + 2)
            if all((kind == "full_attention") == (i % p == p - 1) for i, kind in enumerate(kinds)))
    return next(fits, None)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'} cannot be read: {error}.", wanted="a merged model") from error
    return config


def _tensors(folder: Path, config: dict[str, Any], stack: ExitStack) -> list[_Tensor]:
    from gguf import MODEL_ARCH, get_tensor_name_map
    from safetensors import SafetensorError, safe_open

    names = get_tensor_name_map(MODEL_ARCH[ARCHITECTURES[config["model_type"]]], config["num_hidden_layers"])
    found = []
    for file in sorted(folder.glob("*.safetensors")):
        try:
            opened: Any = stack.enter_context(safe_open(file, framework="pt"))
        except SafetensorError as error:
            raise UserError(f"{file} cannot be read: {error}.", wanted="a whole safetensors file") from error
        for theirs in opened.keys():    # noqa: SIM118 - this is no dictionary
            if theirs == "lm_head.weight" and config.get("tie_word_embeddings", config["model_type"] in GEMMAS):
                continue
            if theirs.endswith("rotary_emb.inv_freq"):
                continue
            ours = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
            if ours is None:
                raise UserError(f"{file} holds {theirs}, which has no name in GGUF.", wanted="a merged model")
            found.append(_Tensor(ours, tuple(opened.get_slice(theirs).get_shape()), _reader(opened, theirs, config)))
    if not any(tensor.name == OUTER[0] for tensor in found):
        raise UserError(f"{folder} holds no weights.", wanted="a merged model with *.safetensors")
    if (factors := gguf_rope.factors(config)) is not None:
        found.append(_Tensor("rope_freqs.weight", factors.shape, lambda: factors))
    return found


def _reader(opened: Any, name: str, config: dict[str, Any]) -> Callable[[], Any]:
    family, heads = config["model_type"], int(config["num_attention_heads"])
    permuted = {"q_proj": heads, "k_proj": int(config.get("num_key_value_heads") or heads)}

    def read() -> Any:
        weight = opened.get_tensor(name).float().numpy()
        if family in GEMMAS and name.endswith("norm.weight"):
            return weight + 1       # Gemma multiplies by 1 + weight, llama.cpp by the weight
        part = name.split(".")[-2]
        if ARCHITECTURES[family] == "LLAMA" and part in permuted:
            # Hugging Face rotates the two halves of a head, llama.cpp neighbours.
            count, rest = permuted[part], weight.shape[1:]
            return weight.reshape(count, 2, weight.shape[0] // count // 2, *rest).swapaxes(1, 2).reshape(weight.shape)
        return weight
    return read


def round_weights(model: Any, quantisation: Quantisation) -> None:
    """Round the weights of a model in memory as `write` stores them: what a right file answers like."""
    import torch
    from gguf import GGMLQuantizationType, quants

    outer = {id(layer.weight) for layer in (model.get_input_embeddings(), model.get_output_embeddings())}
    with torch.no_grad():
        for parameter in model.parameters():
            kind = GGMLQuantizationType[_kind(tuple(parameter.shape), id(parameter) in outer, quantisation)]
            stored = quants.quantize(parameter.float().cpu().numpy(), kind)
            parameter.copy_(torch.from_numpy(quants.dequantize(stored, kind)))


def _kind(shape: tuple[int, ...], outer: bool, quantisation: str) -> str:
    """How llama.cpp stores it: vectors as they are, the outer two in half precision where the others are quantised."""
    if len(shape) == 1 or quantisation == "f32":
        return "F32"
    if quantisation == "f16" or outer or shape[-1] % BLOCK:
        return "F16"
    return quantisation.upper()


def _write(tensors: list[_Tensor], folder: Path, config: dict[str, Any], partial: Path, quantisation: Quantisation,
           name: str) -> None:
    import numpy as np
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGMLQuantizationType, GGUFWriter, LlamaFileType, quants

    writer = GGUFWriter(partial, MODEL_ARCH_NAMES[MODEL_ARCH[ARCHITECTURES[config["model_type"]]]])
    try:
        writer.add_type("model")
        writer.add_name(name)
        writer.add_file_type(LlamaFileType[FILE_TYPES[quantisation]])
        writer.add_quantization_version(2)
        _add_shape(writer, config)
        rows = next(tensor.shape[0] for tensor in tensors if tensor.name == OUTER[0])
        writer.add_vocab_size(rows)
        gguf_tokenizer.add(writer, folder, rows)
        for tensor in tensors:
            kind = GGMLQuantizationType[_kind(tensor.shape, tensor.name in OUTER, quantisation)]
            if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
                dtype: Any = np.dtype(np.float32 if kind == GGMLQuantizationType.F32 else np.float16)
                writer.add_tensor_info(tensor.name, tensor.shape, dtype, int(np.prod(tensor.shape)) * dtype.itemsize)
            else:
                stored = quants.quant_shape_to_byte_shape(tensor.shape, kind)
                writer.add_tensor_info(tensor.name, stored, np.dtype(np.uint8), int(np.prod(stored)), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:      # one at a time: a model need not fit twice
            values = np.ascontiguousarray(tensor.read())
            kind = GGMLQuantizationType[_kind(tensor.shape, tensor.name in OUTER, quantisation)]
            _require_representable(tensor.name, values, kind.name)
            writer.write_tensor_data(quants.quantize(values, kind))
    finally:
        writer.close()


def _require_representable(name: str, values: Any, kind: str) -> None:
    import numpy as np

    greatest = float(np.abs(values).max(initial=0))
    if not np.isfinite(greatest):
        raise UserError(f"{name} holds numbers that are not finite.", fix="train again, with a smaller learning rate")
    if kind != "F32" and greatest > GREATEST_F16:
        raise UserError(f"{name} holds {greatest:.0f}, more than half precision can store.", fix="export as f32")


def _add_shape(writer: Any, config: dict[str, Any]) -> None:
    family, heads, size = config["model_type"], int(config["num_attention_heads"]), head_size(config)
    writer.add_context_length(_context(config))
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_layer_norm_rms_eps(float(config.get("rms_norm_eps", 1e-6)))
    gguf_rope.add(writer, config, size)
    if family == "gemma2":
        writer.add_attn_logit_softcapping(float(config["attn_logit_softcapping"]))
        writer.add_final_logit_softcapping(float(config["final_logit_softcapping"]))
    if family in DEFAULT_PERIOD:
        writer.add_sliding_window(int(config["sliding_window"]))
        period = _period(family, config)
        if period is not None and period != DEFAULT_PERIOD[family]:
            writer.add_sliding_window_pattern(period)


def _context(config: dict[str, Any]) -> int:
    """Longest text. llama.cpp knows no sliding window but Gemma's, so others end where theirs would begin to matter."""
    length, window = int(config["max_position_embeddings"]), config.get("sliding_window")
    slides = config["model_type"] == "mistral" or config.get("use_sliding_window")
    return min(length, int(window)) if slides and window and config["model_type"] not in GEMMAS else length
