"""What every test shares: one thread per worker, no model hub, tiny bases, and the real base where it was fetched."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tiny import tiny_base
from tuneloop.models import cache

# Nothing above imports torch, and these are read when it is. Workers of pytest-xdist that each take all cores slow each
# other down, and results are compared bit by bit, which holds for a fixed number of threads. Subprocesses inherit them.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
# Certificates are signed with a key of their own, and answers of one test are not those of another.
os.environ["TUNELOOP_KEYS"] = tempfile.mkdtemp(prefix="tuneloop-keys-")

REAL_BASE = "smollm2-135m-instruct"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `real` where the base was not fetched."""
    if (cache.base_folder(REAL_BASE) / "config.json").is_file():
        return
    skip = pytest.mark.skip(reason=f"{REAL_BASE} is not in the cache; fetch it: tuneloop models fetch {REAL_BASE}")
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def real_base() -> Path:
    """The folder of the real SmolLM2-135M-Instruct, for tests marked `real`."""
    return cache.base_folder(REAL_BASE)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random llama, shared by all tests of a worker: do not write into it."""
    return tiny_base(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for this test alone."""
    monkeypatch.setenv("TUNELOOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
