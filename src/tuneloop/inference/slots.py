"""Keys and values of many sequences that grow at their own pace: one row of one tensor for each, in every layer.

Shapes: B rows of a pass, m new tokens in each, L places of the longest, H heads, Hkv heads of keys and values, D. A row
keeps its tokens at places 0, 1, 2 … and a token's place is its position, so that nothing depends on who else is there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

NAME = "tuneloop_slots"
GROWTH = 64     # places are added in multiples of this


@dataclass
class Pass:
    """Which rows a forward extends, and where their new tokens go."""

    rows: slice
    places: Tensor              # (B, m)
    length: int                 # places of the longest row, its new tokens included

    @cached_property
    def row_of(self) -> Tensor:
        """(B, 1), to index with beside `places`."""
        return torch.arange(self.rows.start, self.rows.stop, device=self.places.device).unsqueeze(1)


class _Layer(CacheLayerMixin):  # type: ignore[misc]    # transformers is untyped
    """One layer's keys and values, (rows, Hkv, places, D)."""

    is_sliding = False

    def __init__(self, slots: Slots) -> None:
        super().__init__()
        self.slots = slots

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = (x.new_zeros(0, x.shape[1], 0, x.shape[3]) for x in (key_states, value_states))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Put the new ones (B, Hkv, m, D) in their places; all of the rows, (B, Hkv, L, D), comes back without a copy.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        now = self.slots.now
        assert now is not None
        self.keys, self.values = self._grown(self.keys, now), self._grown(self.values, now)
        row_of = now.row_of
        self.keys[row_of, :, now.places] = key_states.transpose(1, 2)
        self.values[row_of, :, now.places] = value_states.transpose(1, 2)
        return self.keys[now.rows, :, :now.length], self.values[now.rows, :, :now.length]

    def _grown(self, x: Tensor | None, now: Pass) -> Tensor:
        assert x is not None
        rows, places = max(x.shape[0], now.rows.stop), x.shape[2]
        if now.length > places:
            places = max(now.length + GROWTH - now.length % GROWTH, places + places // 2)
        if (rows, places) == (x.shape[0], x.shape[2]):
            return x
        grown = x.new_zeros(rows, x.shape[1], places, x.shape[3])
        grown[:x.shape[0], :, :x.shape[2]] = x
        return grown

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return (self.slots.now.length if self.slots.now else 0), 0

    def get_seq_length(self) -> int:
        return self.slots.now.length if self.slots.now else 0

    def get_max_length(self) -> int:
        return -1


class Slots(Cache):  # type: ignore[misc]    # transformers is untyped
    """The cache of all layers. `now` says what the next forward extends."""

    def __init__(self, layers: int) -> None:
        super().__init__(layers=[_Layer(self) for _ in range(layers)])
        self.now: Pass | None = None

    def copy(self, source: int, target: int, places: int) -> None:
        """Begin row `target` with the first `places` of row `source`."""
        for keys in self._tensors(target + 1, places):
            keys[target, :, :places] = keys[source, :, :places]

    def swap(self, one: int, other: int, places: int) -> None:
        """Exchange two rows, of which at most the first `places` matter."""
        for keys in self._tensors(max(one, other) + 1, places):
            kept = keys[one, :, :places].clone()
            keys[one, :, :places] = keys[other, :, :places]
            keys[other, :, :places] = kept

    def fill(self, row: int, cache: Any) -> None:
        """Begin a row with what another cache of transformers holds of its first row: virtual tokens."""
        for mine, given in zip(self.layers, cache.layers, strict=True):
            places = torch.arange(given.keys.shape[2], device=given.keys.device).unsqueeze(0)
            self.now = Pass(slice(row, row + 1), places, places.shape[1])
            mine.update(given.keys[:1], given.values[:1])

    def _tensors(self, rows: int, places: int) -> list[Tensor]:
        """Keys and values of every layer that has any, with room."""
        reach = Pass(slice(0, rows), torch.empty(0), places)
        found: list[Tensor] = []
        for layer in self.layers:
            if layer.is_initialized:        # layers that use the keys of others have none
                layer.keys, layer.values = layer._grown(layer.keys, reach), layer._grown(layer.values, reach)
                found += [layer.keys, layer.values]
        return found


def masks(config: Any, now: Pass, dtype: torch.dtype) -> Any:
    """Which places every new token sees: (B, 1, m, L) of 0, or of the smallest number, which is added to attention's
    logits, where it does not; one of those for each kind of layer, where there are several.
    """
    place = torch.arange(now.length, device=now.places.device)
    at = now.places[:, None, :, None]
    causal = place <= at
    sees: dict[str, Callable[[], Tensor]] = {
        "full_attention": lambda: causal,
        "sliding_attention": lambda: causal & (place > at - config.sliding_window),
        "chunked_attention": lambda: causal & (place // config.attention_chunk_size
                                               == at // config.attention_chunk_size)}

    def told(mask: Tensor) -> Tensor:
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)

    kinds = kinds_of_layers(config)
    found = {kind: told(sees[kind]()) for kind in kinds}
    return found if len(kinds) > 1 or _takes_mapping(config) else found[kinds[0]]


def kinds_of_layers(config: Any) -> list[str]:
    """Kinds of attention in this base, as transformers names them."""
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return sorted(set(kinds))
    if getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True):
        return ["sliding_attention"]
    return ["chunked_attention" if getattr(config, "attention_chunk_size", None) is not None else "full_attention"]


def require_known(config: Any) -> None:
    """Raise a ValueError for layers that keep something else than keys and values."""
    unknown = set(kinds_of_layers(config)) - {"full_attention", "sliding_attention", "chunked_attention"}
    if unknown:
        raise ValueError(f"layers of another kind: {', '.join(sorted(unknown))}")


def reach(config: Any) -> int | None:
    """Positions up to which a row does not depend on how long it, or another one, will be; None: however long.

    Beyond them LongRoPE (arXiv 2402.13753) turns all positions of a forward in another way.
    """
    given = getattr(config, "rope_parameters", None) or {}
    found = [kind["original_max_position_embeddings"] for kind in (given, *given.values())
             if isinstance(kind, dict) and kind.get("rope_type") == "longrope"]
    return min(found, default=None)


def _takes_mapping(config: Any) -> bool:
    return bool(getattr(config, "layer_types", None))


def attend(module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
           scaling: float | None = None, dropout: float = 0.0, **unused: Any) -> tuple[Tensor, None]:
    """What transformers calls in every layer: query (B, H, m, D), key and value (B, Hkv, L, D). Returns (B, m, H, D).

    Query heads that share keys are laid one after the other as queries of those, so that no key is copied.
    """
    if attention_mask is None or unused.get("s_aux") is not None or unused.get("softcap") is not None:
        raise RuntimeError("slots take a mask, no attention sinks and no soft-capped attention")
    rows, heads, new, size = query.shape
    groups = heads // key.shape[1]
    folded = query.reshape(rows, key.shape[1], groups * new, size)
    mask = attention_mask.to(query.dtype)
    if groups > 1 and new > 1:
        mask = mask.unsqueeze(2).expand(-1, -1, groups, -1, -1).reshape(rows, 1, groups * new, -1)
    out = torch.nn.functional.scaled_dot_product_attention(folded, key, value, attn_mask=mask, scale=scaling)
    return out.reshape(rows, heads, new, value.shape[-1]).transpose(1, 2), None


def register() -> None:
    """Make the attention known to transformers under `NAME`."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
