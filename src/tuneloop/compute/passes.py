"""The forwards of a step in turn: trunks are kept while pieces start from them, then go through their backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from tuneloop.compute.model import to_batch
from tuneloop.compute.prefix import Prefix, chain
from tuneloop.types import Batch, Outputs, Piece

Forward = Callable[[Batch, frozenset[str], Prefix | None, int], Outputs | Prefix]


def passes(model: Forward, pieces: Sequence[Piece], device: torch.device | str,
           needs: frozenset[str] = frozenset(), top: int = 0) -> Iterator[tuple[Piece, Batch, Outputs]]:
    """Batch and outputs of every piece that has samples; `top` as in `ForestModel.forward`.

    Whoever takes them calls backward on its loss before it asks for the next ones, so that one graph is held at a time.
    """
    alive: list[tuple[int, Prefix]] = []
    for i, piece in enumerate(pieces):
        batch = to_batch(piece.forest, device)
        result = model(batch, needs, chain(alive, piece.parent), top)
        if isinstance(result, Prefix):
            alive.append((i, result))
        else:
            yield piece, batch, result
        del result
    chain(alive, -1)
