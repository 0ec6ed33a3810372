"""What the blocks of a model make in a forward and keep for their backward, tensor by tensor, by arithmetic.

Counted as transformers and PEFT compute a block, and as `compute.attention` attends. Per token, with d hidden, q and kv
the widths of queries and of keys, f feed-forward, H heads:

    norm         RMS: x², x/rms and the result, 3 d; keeps x, and x/rms where its weights train. LayerNorm: 1 d, keeps x
    linear       its result; keeps its input where it, or an update of it, trains (q, k, v read one, gate and up, too)
    rotation     4.5 tensors as large as what is rotated, of which the last is used
    attention    a part and the merged result, 2 q, and 4 q more where a prefix is a part of its own; keeps queries,
                 keys, values and result, 2 q + 2 kv, and H sums
    norm of q, k 3 (q + kv); keeps q + kv, and as much again where its weights train
    MLP          gated: act(g) and the product, 2 f; keeps g, act(g) and u, and the product where the last layer's input
                 is wanted. Plain: act(x), f; keeps x, and act(x) where wanted. GELU written out (GPT-2): 8 f, keeps 4 f
    residuals    2 d, which the norms after them keep

What is not kept is freed at once. Checked against what autograd saves and what the dispatcher makes, number by number
(tests/unit/plan/test_block.py).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from tuneloop.methods.base import MethodMemory
from tuneloop.models.shape import Shape

BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks|layer)\.(\d+)\.(.+)$")
NORM = re.compile(r"(?:^|\.)(?:[^.]*norm[^.]*|ln_?[^.]*)\.weight$")
QUERY_NORM = re.compile(r"\.q_norm\.|\.q_layernorm\.|\.query_norm\.")
GATE = re.compile(r"\b(?:gate_proj|gate_up_proj|w3|wi_1|linear_v)\b|dense_h_to_4h_gate")
LEARNT_POSITIONS = re.compile(r"\bwpe\b|embed_positions|position_embedding")
OUTPUT_LAYERS = frozenset({"o_proj", "out_proj", "dense", "wo", "c_proj", "attention.dense"})
"""What families call the last layer of the attention; its input is kept as the attention's result anyway."""
WRITTEN_OUT = frozenset({"gpt2", "openai-gpt", "gpt_neo", "gptj", "codegen", "imagegpt", "gpt_bigcode"})
"""Families whose GELU is written out in single operations."""
MERGED = 4              # tensors as wide as the queries that merging the parts of an attention takes
EXPERTS_USED = 2        # of a mixture, per token: config.json says, but `Shape` does not; two is what Mixtral has


@dataclass(frozen=True)
class Tensors:
    """Tensors of all blocks by their width, in numbers per token: how many."""

    kept: Mapping[float, float]
    made: Mapping[float, float]

    @cached_property
    def kept_per_token(self) -> float:
        """Numbers."""
        return sum(width * count for width, count in self.kept.items())

    def dropped(self, narrower: float) -> float:
        """Numbers per token that are made and not kept, in tensors narrower than that."""
        return sum(width * (count - self.kept.get(width, 0.0)) for width, count in self.made.items()
                   if width < narrower)

    def all(self, narrower: float) -> float:
        """Numbers per token that are made, in tensors narrower than that."""
        return sum(width * count for width, count in self.made.items() if width < narrower)


@dataclass(frozen=True)
class Block:
    """What matters of a base's blocks, read from the names and sizes of their tensors."""

    norms: int              # of the hidden state
    layer_norm: bool        # LayerNorm instead of RMS norm
    query_norm: bool
    gated: bool
    written_out: bool
    rotated: bool
    experts: bool           # of a mixture

    @classmethod
    def of(cls, shape: Shape) -> Block:
        first = {found[2]: size for name, size in shape.weights.items() if (found := BLOCK.search(name))
                 and found[1] == "0"}
        norms = [name for name, size in first.items() if NORM.search(name) and size == (shape.hidden,)
                 and not QUERY_NORM.search(f".{name}")]
        return cls(norms=len(norms) or 2,
                   layer_norm=any(name.removesuffix("weight") + "bias" in first for name in norms),
                   query_norm=any(QUERY_NORM.search(f".{name}") for name in first),
                   gated=any(GATE.search(name) for name in first),
                   written_out=shape.model_type in WRITTEN_OUT,
                   rotated=not any(LEARNT_POSITIONS.search(name) for name in shape.weights),
                   experts=any(".experts." in f".{name}" for name in first))


def tensors(shape: Shape, method: MethodMemory, *, shared: bool = False, padded: bool = False) -> Tensors:
    """Of the blocks that the backward goes through. What a method makes by itself is spread over all of them.

    `shared`: tokens look at prefixes computed once, so that attention has parts to merge. `padded`: rows of unequal
    length, for which transformers copies keys and values for every head.
    """
    blocks = shape.layers if method.blocks is None else method.blocks
    kept, made = ({width: count * blocks for width, count in part.items()}
                  for part in _block(shape, Block.of(shape), method, shared, padded))
    for width, count in method.kept.items():
        kept[width] = kept.get(width, 0.0) + count
    for width, count in method.made.items():
        made[width] = made.get(width, 0.0) + count
    return Tensors(kept, made)


def _block(shape: Shape, block: Block, method: MethodMemory, shared: bool,
           padded: bool) -> tuple[dict[float, float], dict[float, float]]:
    """What one block keeps and makes, a linear layer's own result included."""
    kept, made = defaultdict[float, float](float), defaultdict[float, float](float)
    d, f, q, kv = shape.hidden, shape.intermediate, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    wanted = _wanted(shape, method)
    kept[d] += block.norms * (2 if method.norms and not block.layer_norm else 1) + wanted["attention"] + wanted["mlp"]
    made[d] += block.norms * (1 if block.layer_norm else 3) + 2
    for width in (q, kv):
        kept[width] += 2 + block.query_norm * (2 if method.norms else 1)
        made[width] += 3 * block.query_norm + 4 * block.rotated
        made[width / 2] += block.rotated
    kept[shape.heads] += 1
    made[q] += 2 + MERGED * shared
    if padded and kv < q:
        kept[q], kept[kv], made[q] = kept[q] + 2, kept[kv] - 2, made[q] + 2
    for _, _, outputs, count in shape.adaptable_shapes():
        made[outputs] += count / shape.layers
    mlp_kept, mlp_made = _mlp(block, wanted["down"])
    copies = EXPERTS_USED if block.experts else 1
    kept[f] += copies * mlp_kept
    made[f] += copies * (mlp_made + 2 * block.experts)
    made[d] += 2 * copies * block.experts
    return kept, made


def _mlp(block: Block, wants_product: bool) -> tuple[int, int]:
    """Tensors of feed-forward width that it keeps, and makes beside the results of its linear layers."""
    if block.written_out:
        return 4 + wants_product, 8
    if block.gated:
        return 3 + wants_product, 2
    return 1 + wants_product, 1


def _wanted(shape: Shape, method: MethodMemory) -> dict[str, bool]:
    """Which inputs the gradient needs: of the attention's first layers, of the MLP's, of the MLP's last one."""
    found = {"attention": False, "mlp": False, "down": False}
    for name, inputs, outputs, _ in shape.linear_shapes():
        if method.inputs is not None and name not in method.inputs:
            continue
        if inputs == shape.intermediate and outputs == shape.hidden:
            found["down"] = True
        elif outputs in (shape.intermediate, 2 * shape.intermediate) and inputs == shape.hidden:
            found["mlp"] = True
        elif name not in OUTPUT_LAYERS:
            found["attention"] = True
    return found
