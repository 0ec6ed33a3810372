"""The bases that have a short name, as listed in aliases.yaml."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from tuneloop.models.packages import PackageFile
from tuneloop.spec import Spec


class Alias(Spec):
    """A base with a short name."""

    name: str
    hub: str
    licence: str
    parameters: int
    download_bytes: int
    gated: bool = False
    warning: str = ""
    """For what the base is too small."""
    package: PackageFile | None = None
    """Where the weights are found if the model hub does not answer."""


@cache
def aliases() -> dict[str, Alias]:
    """All aliases, in the order of the file."""
    import yaml

    listed = yaml.safe_load(files("tuneloop.models").joinpath("aliases.yaml").read_text(encoding="utf-8"))
    return {name: Alias(name=name, **entry) for name, entry in listed.items()}


def published_name(base: str) -> str:
    """What others call a base: the hub's id of a short name, and what it is called here otherwise."""
    alias = aliases().get(base.lower())
    return alias.hub if alias else base
