"""Where the time of one training step of the first row goes, by torch's profiler.

`python benchmarks/profile_step.py [--side ours|padded] [--steps N] [--top N]`. Times are those of the calling thread,
which waits for the others inside an operator; what no operator accounts for is Python and the dispatch. The profiler
itself slows small operators down, so their share is an upper bound; the wall time without it is told, too.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from typing import Any

from one_side import chosen, parser
from sides import RANK
from torch.profiler import ProfilerActivity, profile

PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}
ORDER = ("products of the base's linear layers", "products of the adapters", "products of the head", "attention",
         "optimizer and clipping", "copies and layout", "elementwise and reductions")
COPIES = {"aten::copy_", "aten::cat", "aten::index", "aten::index_select", "aten::index_add_", "aten::clone",
          "aten::fill_", "aten::zero_", "aten::embedding", "aten::slice_backward", "aten::gather"}


def kind_of(name: str, shapes: Any, vocabulary: int) -> str:
    """Which line of the table an operator belongs to."""
    sizes = {n for shape in shapes or [] if isinstance(shape, list) for n in shape}
    if "scaled_dot_product" in name:
        return "attention"
    if "_foreach" in name or "Optimizer" in name or "fused_adam" in name:
        return "optimizer and clipping"
    if name in PRODUCTS:
        if vocabulary in sizes:
            return "products of the head"
        return "products of the adapters" if RANK in sizes else "products of the base's linear layers"
    if name in COPIES:
        return "copies and layout"
    return "elementwise and reductions"


def main() -> None:
    options = parser(__doc__, steps=3)
    options.add_argument("--top", type=int, default=12, help="single operators to list")
    given = options.parse_args()
    side, make = chosen(given)
    vocabulary = int(side.model.config.vocab_size)
    side.step(make(0))
    plain = statistics.median(side.step(make(1 + i)).seconds for i in range(given.steps))
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded:
        began = time.perf_counter()
        for i in range(given.steps):
            side.step(make(1 + i))
        wall = time.perf_counter() - began
    events = recorded.key_averages(group_by_input_shape=True)
    seconds: defaultdict[str, float] = defaultdict(float)
    single: defaultdict[str, float] = defaultdict(float)
    for event in events:
        own = event.self_cpu_time_total / 1e6
        seconds[kind_of(event.key, event.input_shapes, vocabulary)] += own
        single[event.key] += own
    seconds["Python, dispatch and the rest"] = wall - sum(seconds.values())
    print(f"{side.name}: {plain:.2f} s a step; {wall / given.steps:.2f} s under the profiler\n")
    print("| part | ms a step | share |\n|---|---|---|")
    for part in (*ORDER, "Python, dispatch and the rest"):
        print(f"| {part} | {1000 * seconds[part] / given.steps:.0f} | {seconds[part] / wall:.1%} |")
    print(f"\n| the {given.top} greatest operators | ms a step | share |\n|---|---|---|")
    for name, own in sorted(single.items(), key=lambda entry: -entry[1])[:given.top]:
        print(f"| {name} | {1000 * own / given.steps:.0f} | {own / wall:.1%} |")


if __name__ == "__main__":
    main()
