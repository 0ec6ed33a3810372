"""Files on other machines: any address that fsspec knows. `s3://bucket/rows.parquet`, `https://example.org/rows.csv`."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from tuneloop.data.read import without_secrets
from tuneloop.data.sources import database
from tuneloop.data.sources._spool import Spooled, size_of, spooled
from tuneloop.errors import UserError, missing_extra

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+(::[a-z][a-z0-9+.-]+)*://", re.IGNORECASE)
DRIVERS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs",
           "http": "aiohttp", "https": "aiohttp", "sftp": "paramiko", "ssh": "paramiko"}


class Source(Spooled):
    """A remote file of any kind that a file here may have. It is fetched once in the life of the process."""

    @classmethod
    def owns(cls, name: str) -> bool:
        return ADDRESS.match(name) is not None and not database.Source.owns(name)

    def __init__(self, name: str, root: Path, shown: str) -> None:
        address, _, part = name.partition("#")
        path, note = _fetched(address)
        super().__init__(name, shown, path, part)
        self.notes += note


@cache
def _fetched(address: str) -> tuple[Path, list[str]]:
    """The file, here, and a note that says how large it was if it had to be fetched."""
    shown = without_secrets(address)
    try:
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem
    except ImportError:
        raise missing_extra("fsspec", "data", "Reading files on other machines") from None
    try:
        system, path = url_to_fs(address)
        if isinstance(system, LocalFileSystem):
            return Path(path), []
        with system.open(path, "rb") as stream:
            fetched = spooled(stream, path, shown)
        return fetched, [f"{size_of(fetched)} fetched"]
    except ImportError as error:
        protocol = address.partition("://")[0]
        package = DRIVERS.get(protocol.lower().rpartition("::")[2], "")
        raise UserError(f"{shown}: reading {protocol}:// addresses needs a package that is not installed ({error}).",
                        fix=f"pip install {package}" if package else "") from None
    except FileNotFoundError:
        raise UserError(f"{shown} does not exist there.", fix="look at the address, and whether you may read it"
                        ) from None
    except UserError:
        raise
    except Exception as error:      # every file system below fsspec has errors of its own
        reason = without_secrets(str(error).replace(address, shown)).strip().rstrip(".") or type(error).__name__
        raise UserError(f"{shown} cannot be fetched: {reason}.",
                        fix="look at the address, your log-in and the network") from None
