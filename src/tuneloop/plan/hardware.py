"""What a plan is made for: this machine, measured without torch, or one by name from the data files."""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
import time
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import numpy as np
import psutil

from tuneloop.errors import UserError
from tuneloop.plan.offers import Accelerator, Market, Offer, packaged

BYTES = {"bfloat16": 2, "float32": 4}
TPU = ("tuneloop has no path for TPUs: it trains with torch on CUDA, ROCm, Apple's GPUs and CPUs. Its attention over "
       "token trees and bitsandbytes have no XLA form, and a figure for it would be made up")


@dataclass(frozen=True)
class Hardware:
    """The machine a plan is made for. Memory and FLOP/s are those of one device."""

    cpus: int
    memory_bytes: int               # in all
    available_bytes: int            # free now
    flops_per_second: float         # matrix products in the dtype that trains there; here measured, else the maker's
    name: str = "here"
    kind: Literal["cpu", "cuda", "tpu"] = "cpu"
    devices: int = 1
    dtype: Literal["bfloat16", "float32"] = "float32"
    bandwidth_bytes_per_second: float | None = None     # of its memory; None where nobody measured it
    watts: float | None = None      # of one device at full load
    offer: Offer | None = None      # what an hour costs; None where no price is known

    @property
    def dtype_bytes(self) -> int:
        return BYTES[self.dtype]

    @property
    def usd_per_hour(self) -> float | None:
        """Of the whole machine."""
        return None if self.offer is None else self.offer.hourly_usd

    @property
    def total_watts(self) -> float | None:
        """Of the whole machine: what its owner says, else its devices' boards alone."""
        if self.offer is not None and self.offer.watts is not None:
            return self.offer.watts
        return None if self.watts is None else self.watts * self.devices


def here() -> Hardware:
    """This machine. Its matrix rate is measured in about a tenth of a second, on a product of a small model's shape."""
    memory = psutil.virtual_memory()
    return Hardware(os.cpu_count() or 1, memory.total, memory.available, _measure())


def named(name: str, market: Market | None = None) -> Hardware:
    """An accelerator, an offer, or an instance as its provider calls it. Raises UserError."""
    market = market or packaged()
    key = name.strip().lower()
    by_instance = {offer.instance.lower(): known for known, offer in market.offers.items() if offer.instance}
    key = by_instance.get(key, key)
    if key in market.offers:
        offer = market.offers[key]
        return replace(_device(offer.accelerator, market.accelerators[offer.accelerator]), name=key,
                       devices=offer.devices, offer=offer)
    if key in market.accelerators:
        return _device(key, market.accelerators[key])
    known = [*market.accelerators, *market.offers]
    near = [k for k in known if k.startswith(key)] or difflib.get_close_matches(key, [*known, *by_instance], n=3)
    raise UserError(f"No machine is called '{name.strip()}'.",
                    wanted=f"here, an accelerator ({', '.join(market.accelerators)}) or an offer "
                           f"({', '.join(market.offers)})",
                    fix=f"did you mean {' or '.join(near)}?" if near else "describe it in a file for --offers")


def gpu_here(market: Market | None = None) -> Hardware | None:
    """The first GPU of this machine, with the memory that is free now, where torch can use it and it is known by name.

    Asks the driver's nvidia-smi; None without one, with a torch for CPUs alone, and for a GPU that no file describes.
    """
    if shutil.which("nvidia-smi") is None or _torch_is_for_cpus():
        return None
    asked = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout
        name, total, free = (part.strip() for part in told.splitlines()[0].split(","))
        sizes = int(total) * 2**20, int(free) * 2**20
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None
    bare = name.removeprefix("NVIDIA ").removeprefix("Tesla ")
    for key, accelerator in (market or packaged()).accelerators.items():
        if bare in accelerator.names:
            return replace(_device(key, accelerator), name=f"here: {key}", memory_bytes=sizes[0],
                           available_bytes=sizes[1])
    return None


def bandwidth_here() -> float:
    """Bytes per second that this machine's memory gives to a read, measured in about a tenth of a second."""
    block = np.ones(2**25, np.float32)
    best = 0.0
    for _ in range(4):
        began = time.perf_counter()
        block.sum()
        best = max(best, block.nbytes / (time.perf_counter() - began))
    return best


def _device(name: str, a: Accelerator) -> Hardware:
    memory = int(a.memory_gb * 1e9)
    return Hardware(0, memory, memory, a.tflops[a.dtype] * 1e12, name=name, kind=a.kind, dtype=a.dtype,
                    bandwidth_bytes_per_second=a.bandwidth_gb_s * 1e9, watts=a.watts)


def _torch_is_for_cpus() -> bool:
    try:
        return "+cpu" in version("torch")
    except PackageNotFoundError:
        return True


def _measure() -> float:
    a, b = np.ones((512, 576), np.float32), np.ones((576, 1536), np.float32)
    a @ b       # the first product pays for memory and threads
    best = 0.0
    for _ in range(8):
        began = time.perf_counter()
        a @ b
        best = max(best, 2 * a.shape[0] * a.shape[1] * b.shape[1] / (time.perf_counter() - began))
    return best
