"""The greatest memory in use between two marks, and giving back what is free.

On Linux the kernel keeps it for every process, exactly (VmHWM), and forgets it on request. CUDA's allocator does the
same for what tensors take, and for what it has reserved. Elsewhere memory is sampled.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import torch

SAMPLE_SECONDS = 0.02
STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
FORGET_PEAK = "5"       # proc(5): resets the peak resident set size, and nothing else


@dataclass(frozen=True)
class Peak:
    """Bytes since the last mark. `reserved_bytes` is what CUDA's allocator held, None elsewhere."""

    in_use_bytes: int
    reserved_bytes: int | None = None


class HighWater:
    """Tells the peak since it was asked last. A context, because where memory is sampled a thread does it."""

    def __init__(self) -> None:
        self.how: Literal["kernel", "allocator", "samples"] = (
            "allocator" if torch.cuda.is_available() else "kernel" if _forget() else "samples")
        self.peak_bytes = 0         # of all marks
        self.reserved_bytes: int | None = None
        self._sampled = 0
        self._done = threading.Event()
        self._sampler: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self.how == "samples":
            self._sampler = threading.Thread(target=self._sample, daemon=True)
            self._sampler.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.mark()
        self._done.set()
        if self._sampler is not None:
            self._sampler.join()

    def mark(self) -> Peak:
        """The peak since the last mark, or since this was made."""
        found = self._read()
        self.peak_bytes = max(self.peak_bytes, found.in_use_bytes)
        if found.reserved_bytes is not None:
            self.reserved_bytes = max(self.reserved_bytes or 0, found.reserved_bytes)
        return found

    def _read(self) -> Peak:
        if self.how == "allocator":
            found = Peak(torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved())
            torch.cuda.reset_peak_memory_stats()
            return found
        if self.how == "kernel":
            peak = _status("VmHWM")
            _forget()
            return Peak(peak)
        peak, self._sampled = max(self._sampled, memory_bytes()), 0
        return Peak(peak)

    def _sample(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            self._sampled = max(self._sampled, memory_bytes())


def memory_bytes() -> int:
    """Memory in use: of the GPU where there is one, else of this process."""
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else resident_bytes()


def resident_bytes() -> int:
    """Memory of this process."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def release() -> None:
    """Give back to the system what is free: Python's garbage, CUDA's cache, and holes in glibc's heap."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)      # other C libraries have none
        if trim is not None:
            trim(0)


def _forget() -> bool:
    """Make the kernel forget the peak; whether it can."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        FORGET.write_text(FORGET_PEAK)
        return _status("VmHWM") > 0
    except (OSError, ValueError):
        return False


def _status(name: str) -> int:
    """Bytes of an entry of the kernel's account of this process."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise ValueError(f"{STATUS} has no {name}")
