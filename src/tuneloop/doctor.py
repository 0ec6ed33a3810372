"""What works on this machine, and the exact command that mends the rest."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from importlib.util import find_spec
from pathlib import Path

from tuneloop.errors import UserError
from tuneloop.models import cache, hub
from tuneloop.models.aliases import aliases

OLDEST_PYTHON = (3, 11)
NEEDED_DISK_BYTES = 4_000_000_000
NEEDED_MEMORY_BYTES = 4_000_000_000
CPU_FLAGS = {"avx2": "avx2", "avx512f": "avx512", "avx512_bf16": "bf16", "amx_bf16": "amx",
             "asimd": "neon", "bf16": "bf16"}     # as Linux names them -> as people do
NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `ok` is None where nothing is wrong, but something is absent or slower."""

    name: str
    ok: bool | None
    detail: str
    fix: str = ""


def examine() -> list[Finding]:
    """Look at everything. Takes a few seconds, the model hub's silence included."""
    return [_python(), *_torch(), _threads(), _memory(), *_disk(), _packages(), *_extras(), _hub(), _bases()]


def _python() -> Finding:
    found = platform.python_version()
    return Finding("python", sys.version_info >= OLDEST_PYTHON, f"{found} at {sys.executable}",
                   fix="" if sys.version_info >= OLDEST_PYTHON else "install Python 3.11 or newer")


def _torch() -> Iterator[Finding]:
    cpu = f"{platform.machine()}, {', '.join(_cpu_features()) or 'features unknown'}"
    if find_spec("torch") is None:
        yield Finding("torch", False, "not installed", fix="pip install torch")
        yield Finding("cpu", True, cpu)
        return
    try:
        import torch
    except (ImportError, OSError) as error:     # OSError: a library it is linked to is missing
        yield Finding("torch", False, f"installed, but cannot be imported: {error}",
                      fix="pip install --force-reinstall torch")
        return
    yield Finding("torch", True, torch.__version__)
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        yield Finding("device", True, f"CUDA: {properties.name}, {properties.total_memory / 1e9:.0f} GB")
    elif torch.backends.mps.is_available():
        yield Finding("device", True, "Apple GPU (MPS)")
    else:
        yield Finding("device", None, f"CPU only ({cpu}): small bases train in minutes, large ones do not", _cuda_fix())


def _cuda_fix() -> str:
    """The command for a machine that has an NVIDIA GPU which this build of torch cannot use."""
    if not shutil.which("nvidia-smi"):
        return ""
    return "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu130"


def _cpu_features() -> list[str]:
    """Those that matter for speed, where the system lists them (Linux)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return []
    flags = set(re.findall(r"\w+", " ".join(re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)[:1])))
    return sorted({name for flag, name in CPU_FLAGS.items() if flag in flags})


def _threads() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS")
    if limit and limit.isdigit() and int(limit) < cores:
        return Finding("threads", None, f"{cores} cores, but OMP_NUM_THREADS={limit}", fix="unset OMP_NUM_THREADS")
    return Finding("threads", True, f"{cores} cores")


def _memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    enough = memory.available >= NEEDED_MEMORY_BYTES
    return Finding("memory", enough or None, f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free",
                   fix="" if enough else "close other programs, or train a very small base")


def _disk() -> Iterator[Finding]:
    for name, folder in (("disk: cache", cache.root()), ("disk: here", Path.cwd())):
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(there).free
        enough = free >= NEEDED_DISK_BYTES
        move = "free some, or set TUNELOOP_CACHE to another folder" if folder == cache.root() else "free some"
        yield Finding(name, enough or None, f"{free / 1e9:.1f} GB free in {folder}", fix="" if enough else move)


def _packages() -> Finding:
    """The core packages with their versions."""
    found = {name: _version(name) for name in _requirements(extra=None)}
    if not found:
        return Finding("packages", None, "tuneloop runs from its source, not installed", fix="pip install -e .")
    missing = [name for name, number in found.items() if number is None]
    detail = ", ".join(f"{name} {number or 'missing'}" for name, number in found.items())
    return Finding("packages", not missing, detail, fix=f"pip install {' '.join(missing)}" if missing else "")


def _extras() -> Iterator[Finding]:
    """The optional parts that a user may want; what only developers and tests need is left out."""
    for extra in _extra_names():
        missing = [name for name in _requirements(extra) if _version(name) is None]
        yield Finding(f"extra: {extra}", None if missing else True,
                      f"not installed: {', '.join(missing)}" if missing else "installed",
                      fix=f"pip install 'tuneloop[{extra}]'" if missing else "")


def _extra_names() -> list[str]:
    try:
        return sorted(set(metadata("tuneloop").get_all("Provides-Extra") or []) - {"dev", "parity"})
    except PackageNotFoundError:
        return []


def _requirements(extra: str | None) -> list[str]:
    """Names of the packages that tuneloop, or one of its extras, requires."""
    try:
        listed = requires("tuneloop") or []
    except PackageNotFoundError:
        return []
    wanted = [line for line in listed if (f"extra == '{extra}'" in line.replace('"', "'") if extra else
                                          "extra ==" not in line)]
    return [found[0] for line in wanted if (found := NAME.match(line)) and found[0] != "tuneloop"]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _hub() -> Finding:
    if find_spec("huggingface_hub") is None:
        return Finding("model hub", None, "huggingface_hub is not installed", fix="pip install huggingface-hub")
    try:
        hub.ask(next(iter(aliases().values())).hub)
    except UserError as error:
        return Finding("model hub", None, error.found, fix=error.fix)
    except hub.NoAnswerError as error:
        offline = [alias.name for alias in aliases().values() if alias.package]
        return Finding("model hub", None, str(error), fix=f"without it use {' or '.join(offline)}, or a local folder")
    return Finding("model hub", True, "answers")


def _bases() -> Finding:
    folder = cache.base_folder("")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
                   ) if folder.is_dir() else []
    return Finding("cached bases", True if names else None, ", ".join(names) or "none yet",
                   fix="" if names else f"tuneloop models fetch {next(iter(aliases()))}")
