"""The greatest memory in use between two marks."""

from __future__ import annotations

import mmap
import sys
import time

import pytest

from tuneloop.training import peak
from tuneloop.training.peak import HighWater, Peak, release, resident_bytes

SIZE = 96 * 2**20


def take() -> None:
    """Use so much memory, every page of it, and let it go: by pages of its own, which an allocator might keep."""
    with mmap.mmap(-1, SIZE) as block:
        for at in range(0, SIZE, mmap.PAGESIZE):
            block[at] = 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel of Linux keeps it")
def test_the_kernel_tells_the_peak_between_marks_exactly() -> None:
    with HighWater() as high:
        assert high.how == "kernel"
        high.mark()
        before = resident_bytes()
        take()
        found = high.mark().in_use_bytes
        assert SIZE * 0.95 < found - before < SIZE * 1.05
        assert high.mark().in_use_bytes < found - SIZE // 2         # forgotten with the mark
    assert high.peak_bytes >= found


def test_elsewhere_it_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "_forget", lambda: False)
    monkeypatch.setattr(peak, "SAMPLE_SECONDS", 0.001)
    used = iter([1, 5, 3] + [2] * 10**6)
    monkeypatch.setattr(peak, "memory_bytes", lambda: next(used))
    with HighWater() as high:
        assert high.how == "samples"
        while high._sampled < 5:
            time.sleep(0.001)
        assert high.mark() == Peak(5)
    assert high.peak_bytes == 5
    assert high.reserved_bytes is None
    assert not high._sampler.is_alive()  # type: ignore[union-attr]


def test_cuda_tells_allocated_and_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in: no GPU was there to run it on."""
    told = {"is_available": lambda: True, "max_memory_allocated": lambda: 7, "max_memory_reserved": lambda: 11,
            "reset_peak_memory_stats": lambda: None}
    for name, answer in told.items():
        monkeypatch.setattr(peak.torch.cuda, name, answer)
    with HighWater() as high:
        assert (high.how, high.mark()) == ("allocator", Peak(7, 11))
    assert (high.peak_bytes, high.reserved_bytes) == (7, 11)


def test_releasing_is_harmless_where_the_c_library_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    release()
    monkeypatch.setattr(peak.ctypes, "CDLL", lambda name: object())
    release()
