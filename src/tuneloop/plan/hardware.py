"""What this machine has, without torch."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np
import psutil


@dataclass(frozen=True)
class Hardware:
    """The machine a plan is made for."""

    cpus: int
    memory_bytes: int               # in all
    available_bytes: int            # free now
    flops_per_second: float         # fp32 matrix products, measured


def here() -> Hardware:
    """This machine. Its matrix rate is measured in about a tenth of a second, on a product of a small model's shape."""
    memory = psutil.virtual_memory()
    return Hardware(os.cpu_count() or 1, memory.total, memory.available, _measure())


def _measure() -> float:
    a, b = np.ones((512, 576), np.float32), np.ones((576, 1536), np.float32)
    a @ b       # the first product pays for memory and threads
    best = 0.0
    for _ in range(8):
        began = time.perf_counter()
        a @ b
        best = max(best, 2 * a.shape[0] * a.shape[1] * b.shape[1] / (time.perf_counter() - began))
    return best
