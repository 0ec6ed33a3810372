"""The shape of a base, without torch: read from config.json and from the headers of its safetensors files.

A safetensors file starts with 8 bytes, the little-endian length of a JSON header that gives every tensor's dtype,
shape and place; so parameters and layers are counted exactly, and a file that was cut off is noticed, without reading
any weights. Sizes of a linear layer are given as (in, out), though its weight is stored as (out, in).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneloop.errors import UserError
from tuneloop.models.packages import sha256_of

LinearShape = tuple[str, int, int, int]         # name, in, out, how many of them
Tensors = dict[str, tuple[str, list[int]]]      # name -> dtype, shape

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
BUFFERS = (".attn.bias", ".attn.masked_bias", ".inv_freq")      # stored by old files, but not parameters
HEADS = ("lm_head.weight", "embed_out.weight")
STORED_AS_IN_OUT = {"gpt2", "openai-gpt"}       # their linear layers are transformers' Conv1D
BLOCK_WEIGHT = re.compile(r"(?:^|\.)(?:layers|h|blocks|layer)\.\d+\.(?:.+\.)?([^.]+)\.weight$")

EXPERT_LAYERS = frozenset({"gate_proj", "up_proj", "down_proj", "gate_up_proj", "w1", "w2", "w3"})
"""What families call the layers of an expert; PEFT takes layers of these names in a mixture for its experts."""
EXPERTS = re.compile(r"\.experts\.|\.(?:mlp|block_sparse_moe|feed_forward)\.(?:gate|router)\.|\.router\.")


@dataclass(frozen=True)
class Shape:
    """What memory and time depend on. `stored_bytes` and `stored_dtype` are those of the files."""

    model_type: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool                      # the head is the embedding
    max_positions: int
    sliding_window: int | None      # None where no layer uses one
    parameters: int
    stored_bytes: int
    stored_dtype: str
    linears: tuple[LinearShape, ...]
    folder: Path = field(compare=False)         # where the base lies
    weights: Mapping[str, tuple[int, ...]]      # every stored parameter and its shape; no tied head, no buffers
    quantised: str | None           # how the files are quantised ("gptq", "bitsandbytes"), None where they are not

    def linear_shapes(self) -> list[LinearShape]:
        """(name, in, out, count) of the linear layers of all blocks; neither embeddings nor the head are among them."""
        return list(self.linears)

    def adaptable_shapes(self) -> list[LinearShape]:
        """Those that transformers holds as linear layers: it fuses the experts of a mixture, and routers are its own.

        Files hold experts one by one, as `experts.0.up_proj`, and the router as `mlp.gate` or `router`.
        """
        mixture = any(".experts." in name for name in self.weights)
        stored = {name: ("", list(size)) for name, size in self.weights.items() if not EXPERTS.search(name)
                  and not (mixture and name.removesuffix(".weight").rpartition(".")[2] in EXPERT_LAYERS)}
        return list(_linears(stored, stored_as_in_out=self.model_type in STORED_AS_IN_OUT))


def read_shape(folder: Path) -> Shape:
    """The shape of the base in `folder`, or a UserError that says which file is broken."""
    return shape_of(read_config(folder), folder, _stored_tensors(folder))


def shape_of(config: dict[str, Any], folder: Path, tensors: Tensors) -> Shape:
    """The shape of a base from its config.json, which messages say lies in `folder`, and its tensors."""
    heads = [name for name in tensors if name.endswith(HEADS)]
    tied = not heads or bool(config.get("tie_word_embeddings", False))
    weights = {name: tuple(shape) for name, (_, shape) in tensors.items()
               if not (tied and name in heads) and not _buffer(name, shape)}
    model_type = str(config.get("model_type", "unknown"))
    hidden = _size(config, folder, "hidden_size", "n_embd", "d_model")
    heads_count = _size(config, folder, "num_attention_heads", "n_head", "num_heads")
    return Shape(
        model_type=model_type,
        layers=_size(config, folder, "num_hidden_layers", "n_layer", "num_layers"),
        hidden=hidden,
        heads=heads_count,
        kv_heads=_size(config, folder, "num_key_value_heads", default=heads_count),
        head_dim=_size(config, folder, "head_dim", default=hidden // heads_count),
        intermediate=_size(config, folder, "intermediate_size", "n_inner", "ffn_dim", default=4 * hidden),
        vocab=_size(config, folder, "vocab_size"),
        tied=tied,
        max_positions=_size(config, folder, "max_position_embeddings", "n_positions", default=2048),
        sliding_window=_sliding_window(config),
        parameters=sum(math.prod(shape) for shape in weights.values()),
        stored_bytes=sum(BYTES.get(dtype, 1) * math.prod(shape) for dtype, shape in tensors.values()),
        stored_dtype=_stored_dtype(tensors),
        linears=_linears(tensors, stored_as_in_out=model_type in STORED_AS_IN_OUT),
        folder=folder,
        weights=weights,
        quantised=_quantised(config),
    )


def read_config(folder: Path) -> dict[str, Any]:
    """config.json; of a multimodal base the part about its language model."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}.", wanted="the config.json that belongs to the base",
                        fix="fetch the base again") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no configuration.", wanted="a JSON object", fix="fetch the base again")
    inner = config.get("text_config")
    return config | inner if isinstance(inner, dict) else config


def weights_sha256(folder: Path) -> str:
    """One hash for all weight files of a base: what an adapter belongs to."""
    found = [sha256_of(path) for path in weight_files(folder)]
    return found[0] if len(found) == 1 else hashlib.sha256("\n".join(found).encode()).hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a base, whether they exist or not: those that the index names, else the single one."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return [folder / "model.safetensors"]
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} cannot be read: {error}.", wanted="a weight_map from tensors to files",
                        fix="fetch the base again") from error
    return [folder / str(name) for name in sorted(names)]


def _stored_tensors(folder: Path) -> Tensors:
    tensors: Tensors = {}
    for path in weight_files(folder):
        tensors |= _read_header(path)
    return tensors


def _read_header(path: Path) -> Tensors:
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            if length > size - 8:
                raise _broken(path, "it is a Git LFS pointer, not the weights" if start == b"version " else
                              "its header is cut off")
            header = json.loads(file.read(length))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        if end > size:
            raise _broken(path, f"it is cut off: {size:,} of {end:,} bytes are there")
        return {name: (entry["dtype"], entry["shape"]) for name, entry in tensors.items()}
    except OSError as error:
        raise _broken(path, error.strerror or str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _broken(path, f"its header makes no sense ({error})") from error


def _broken(path: Path, why: str) -> UserError:
    return UserError(f"The weights {path} cannot be read: {why}.", wanted="a whole safetensors file",
                     fix="fetch the base again")


def _size(config: dict[str, Any], folder: Path, *names: str, default: int | None = None) -> int:
    """The first of `names` that the config sets; families name the same thing differently."""
    value = next((config[name] for name in names if config.get(name) is not None), default)
    if isinstance(value, int) and value > 0:
        return value
    raise UserError(f"{folder / 'config.json'}: {names[0]} is {value!r}.", wanted="a positive number",
                    fix="use a causal language model with a complete config.json")


def _sliding_window(config: dict[str, Any]) -> int | None:
    window = config.get("sliding_window")
    kinds = config.get("layer_types")
    used = config.get("use_sliding_window", True) and (not kinds or "sliding_attention" in kinds)
    return int(window) if window and used else None


def _buffer(name: str, shape: list[int]) -> bool:
    """Whether a tensor is a buffer; a bias called `attn.bias` has one dimension, GPT-2's mask of that name has four."""
    return name.endswith(BUFFERS) and not (name.endswith(".attn.bias") and len(shape) == 1)


def _quantised(config: dict[str, Any]) -> str | None:
    found = config.get("quantization_config")
    return str(found.get("quant_method", "unknown")) if isinstance(found, dict) else None


def _stored_dtype(tensors: Tensors) -> str:
    """The dtype of most of the parameters."""
    counts: Counter[str] = Counter()
    for dtype, shape in tensors.values():
        counts[dtype] += math.prod(shape)
    dtype = counts.most_common(1)[0][0] if counts else "unknown"
    return DTYPES.get(dtype, dtype.lower())


def _linears(tensors: Tensors, *, stored_as_in_out: bool) -> tuple[LinearShape, ...]:
    counts: Counter[tuple[str, int, int]] = Counter()
    for tensor, (_, shape) in tensors.items():
        found = BLOCK_WEIGHT.search(tensor)
        if found and len(shape) == 2 and not tensor.endswith(BUFFERS):
            inputs, outputs = shape if stored_as_in_out else reversed(shape)
            counts[found[1], inputs, outputs] += 1
    return tuple((*linear, count) for linear, count in counts.items())
