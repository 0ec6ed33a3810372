"""A base that is not here, by its shape: a name of shapes.yaml, or a folder with a config.json and no weights."""

from __future__ import annotations

import difflib
import functools
from importlib.resources import files
from pathlib import Path
from typing import Any

from tuneloop.errors import UserError
from tuneloop.models import cache, hub
from tuneloop.models.aliases import aliases
from tuneloop.models.formula import tensors_of
from tuneloop.models.resolve import HUB_ID, missing_parts
from tuneloop.models.shape import Shape, read_config, shape_of, weight_files
from tuneloop.spec import Spec

CLOSE = 0.75        # how alike a name must be to one of these to be meant


class Outline(Spec):
    """A shape by name."""

    like: str
    """The published model that has this shape."""
    parameters: int
    """What is published of it."""
    config: dict[str, Any]
    """What its config.json says of the shape."""


@functools.cache
def outlines() -> dict[str, Outline]:
    """All shapes of shapes.yaml, by name, in the order of the file."""
    import yaml

    listed = yaml.safe_load(files("tuneloop.models").joinpath("shapes.yaml").read_text(encoding="utf-8"))
    return {name: Outline(**entry) for name, entry in listed.items()}


@functools.cache
def shape_named(name: str) -> Shape:
    """The shape called `name` in shapes.yaml. Raises UserError."""
    if name not in outlines():
        near = difflib.get_close_matches(name, outlines(), n=1)
        raise UserError(f"There is no shape '{name}'.", wanted=f"one of: {', '.join(outlines())}",
                        fix=f"did you mean '{near[0]}'?" if near else "")
    config = outlines()[name].config
    return shape_of(config, Path(name), tensors_of(config))


def outline_of(base: str, root: Path) -> Shape | None:
    """The shape of what a recipe in folder `root` calls `base`, where it can be planned and not trained.

    None for a base with weights, and for what is to be fetched. Raises UserError for a name that is nearly a shape's.
    """
    name = base.lower()
    if name in aliases():
        return None
    if name in outlines():
        return shape_named(name)
    folder = root / Path(base).expanduser()
    if folder.is_dir() and _is_config_alone(folder):
        config = read_config(folder)
        return shape_of(config, folder, tensors_of(config))
    near = [] if folder.exists() or "/" in base else difflib.get_close_matches(name, outlines(), 1, CLOSE)
    if near and near[0] not in aliases():
        raise UserError(f"Unknown base '{base}'.", fix=f"did you mean '{near[0]}'?",
                        wanted=f"a base, or to plan without one a shape: {', '.join(outlines())}")
    return None


def remote_outline(base: str, root: Path) -> Shape | None:
    """The shape of a base that would have to be fetched, from its config.json alone; None for one that is here.

    Raises UserError where the hub does not have it, or does not answer.
    """
    if alias := aliases().get(base.lower()):
        here = cache.base_folder(alias.name).is_dir() or _on_hubs_cache(alias.hub)
        return None if here else shape_named(alias.name)
    if (root / Path(base).expanduser()).exists() or not HUB_ID.fullmatch(base) or _on_hubs_cache(base):
        return None
    try:
        hub.ask(base)
    except hub.NoAnswerError as error:
        raise UserError(f"The base {base} is not on this machine, and {error}.",
                        fix=f"try again with a connection, or plan by a shape: {', '.join(outlines())}") from error
    folder = hub.download(base, only="config.json")
    config = read_config(folder)
    return shape_of(config, folder, tensors_of(config))


def _on_hubs_cache(hub_id: str) -> bool:
    folder = hub.cached(hub_id)
    return folder is not None and not missing_parts(folder)


def _is_config_alone(folder: Path) -> bool:
    return (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file() \
        and not any(folder.glob("*.bin")) and not any(path.is_file() for path in weight_files(folder))
