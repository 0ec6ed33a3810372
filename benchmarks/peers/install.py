"""Virtual environments of the peers, each apart from ours, in a cache folder outside the project.

`python benchmarks/peers/install.py [trl litgpt ...] [--cache FOLDER]`; the folder is TUNELOOP_BENCH_CACHE or the user's
cache. torch is pinned to the version that we run ourselves, from wherever pip finds it: a peer whose requirements
exclude it is not run, and why is kept beside its environment.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TORCH = "torch==2.13.0"


@dataclass(frozen=True)
class Peer:
    """What pip installs for a peer, and what of it shows that the environment works."""

    packages: tuple[str, ...]
    module: str
    without: tuple[str, ...] = ()       # installed with it, needed for no text, and broken beside torch's CPU build


PEERS = {
    "trl": Peer(("trl==1.16.0", "transformers==5.23.0", "peft==0.21.2", "datasets==5.2.0"), "trl"),
    "llamafactory": Peer(("llamafactory==0.9.5",), "llamafactory", ("torchvision", "torchaudio")),
    "litgpt": Peer(("litgpt==0.5.13", "safetensors"), "litgpt"),
}


def cache_folder(given: Path | None = None) -> Path:
    """Where environments are kept: as given, as TUNELOOP_BENCH_CACHE says, or the user's cache."""
    import platformdirs

    named = given or os.environ.get("TUNELOOP_BENCH_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("tuneloop-bench"))


def python_of(name: str, cache: Path) -> Path:
    """The interpreter of a peer's environment."""
    return cache / "peers" / name / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def why_not(name: str, cache: Path) -> str | None:
    """Why the peer cannot be run, in words; None if it can."""
    reason = cache / "peers" / f"{name}.failed"
    if reason.is_file():
        return reason.read_text().strip()
    return None if python_of(name, cache).is_file() else "not installed: python benchmarks/peers/install.py"


def install(name: str, cache: Path) -> str | None:
    """Make the environment of one peer from nothing; returns why it cannot be run, if so."""
    folder, reason = cache / "peers" / name, cache / "peers" / f"{name}.failed"
    shutil.rmtree(folder, ignore_errors=True)
    reason.unlink(missing_ok=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    constraints = folder.parent / "constraints.txt"
    constraints.write_text(TORCH + "\n")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python, peer = str(python_of(name, cache)), PEERS[name]
    steps = [[python, "-m", "pip", "install", "-q", "-c", str(constraints), TORCH, *peer.packages],
             *([[python, "-m", "pip", "uninstall", "-y", "-q", *peer.without]] if peer.without else []),
             [python, "-c", f"import torch, {peer.module}; print(torch.__version__)"]]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True)
        if done.returncode:
            said = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
            errors = [line for line in said if "ERROR" in line or "Error" in line] or said[-1:]
            reason.write_text(" ".join(errors)[:600] + "\n")
            return reason.read_text().strip()
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="PEER", help=f"out of {', '.join(PEERS)}; all unless given")
    parser.add_argument("--cache", type=Path)
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(PEERS)):
        parser.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    for name in given.names or PEERS:
        failed = install(name, cache_folder(given.cache))
        print(f"{name}: {'not run: ' + failed if failed else 'ready'}", flush=True)


if __name__ == "__main__":
    main()
