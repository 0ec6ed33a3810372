"""Virtual tokens of prefix and prompt tuning: one learnt root above every tree, positions offset by its length.

PEFT holds and trains them; what it would do with them in its own forward (batch by batch, position ids dropped) is done
here instead, so that they are computed once per forward and prefixes go on being shared below them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tuneloop.compute.prefix import Prefix


@dataclass(frozen=True)
class Virtual:
    """`slots` virtual tokens: keys and values for every layer, or embeddings that go through the layers."""

    slots: int
    keys_values: list[tuple[Tensor, Tensor]] | None     # per layer, each (1, Hkv, slots, D)
    embeddings: Tensor | None                           # (slots, d)

    def root(self, inner: nn.Module) -> Prefix | None:
        """The keys and values as a prefix without tokens of its own; its gradients flow on into what learns them."""
        if self.keys_values is None:
            return None
        root = Prefix(0, virtual=self.slots)
        for module in inner.modules():
            layer = getattr(module, "layer_idx", None)
            if isinstance(layer, int):
                root.keys[id(module)], root.values[id(module)] = self.keys_values[layer]
        return root

    def cache(self, inner: Any, rows: int) -> Any:
        """The same as a cache of transformers for so many rows."""
        from transformers import DynamicCache

        if self.keys_values is None:
            assert self.embeddings is not None
            embeddings = self.embeddings.unsqueeze(0)
            cache = inner.get_decoder()(inputs_embeds=embeddings, use_cache=True).past_key_values
            cache.batch_repeat_interleave(rows)
            return cache
        cache = DynamicCache(config=inner.config)
        for layer, (keys, values) in enumerate(self.keys_values):
            cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
        return cache


def virtual_of(model: Any) -> Virtual | None:
    """What a PEFT model would put before its input; None for other models, and where the method is switched off."""
    config = getattr(model, "active_peft_config", None)
    if config is None or not config.is_prompt_learning or model._adapters_disabled:
        return None
    prompt: Any = model.get_prompt(batch_size=1)
    if isinstance(prompt, Tensor):
        embeddings = prompt[0].to(model.word_embeddings.weight.dtype)
        return Virtual(len(embeddings), None, embeddings)
    return Virtual(config.num_virtual_tokens, [(layer.keys, layer.values) for layer in prompt.layers], None)


def embedded(inner: Any, ids: Tensor, virtual: Virtual) -> Tensor:
    """Embeddings (rows, slots + T, d) of tokens (rows, T) behind virtual ones that are embeddings themselves."""
    assert virtual.embeddings is not None
    tokens: Tensor = inner.get_input_embeddings()(ids)
    return torch.cat([virtual.embeddings.expand(len(ids), -1, -1), tokens], 1)


def virtual_inputs(inner: Any, virtual: Virtual | None, ids: Tensor, mask: Tensor | None = None) -> dict[str, Any]:
    """What the base's own forward takes for tokens (rows, T), padded on the right where `mask` (rows, T) is 0."""
    padded = {} if mask is None else {"attention_mask": mask}
    if virtual is None:
        return {"input_ids": ids} | padded
    if mask is not None:
        padded = {"attention_mask": torch.cat([mask.new_ones(len(ids), virtual.slots), mask], 1)}
    if virtual.embeddings is not None:
        return {"inputs_embeds": embedded(inner, ids, virtual)} | padded
    positions = torch.arange(virtual.slots, virtual.slots + ids.shape[1], device=ids.device)
    return {"input_ids": ids, "position_ids": positions.expand(len(ids), -1),
            "past_key_values": _read_only(virtual.cache(inner, len(ids)), inner)} | padded


def _read_only(cache: Any, inner: nn.Module) -> Any:
    """`cache` as something to start from that no forward changes, so that layers can be computed again from it.

    Otherwise transformers takes the cache away from layers whose activations are checkpointed, and says so in a log;
    and some models (GPT-2) do so themselves, who are told that nothing is checkpointed, as their layers know better.
    """
    def behind(keys: Tensor, values: Tensor, layer: int, *args: Any, **more: Any) -> tuple[Tensor, Tensor]:
        kept = cache.layers[layer]
        return torch.cat([kept.keys, keys], -2), torch.cat([kept.values, values], -2)

    cache.update = behind
    for module in inner.modules():
        if hasattr(module, "_can_checkpoint_with_cache"):
            module._can_checkpoint_with_cache = True    # type: ignore[assignment]
        elif hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = False       # type: ignore[assignment]
    return cache
