"""Which files of a data set on the hub make up which part of it, as `datasets.load_dataset` would see it.

The card says so under `configs`; where it does not, names of files do.
https://huggingface.co/docs/hub/datasets-manual-configuration
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from tuneloop.data.files import suffix_of
from tuneloop.data.sources._splits import split_of

DEFAULT = "default"
FAMILIES = {".parquet": "parquet", ".pq": "parquet", ".jsonl": "json", ".json": "json", ".ndjson": "json",
            ".csv": "csv", ".tsv": "csv", ".arrow": "arrow"}
Parts = dict[str, list[str]]        # "config/split" -> paths of its files, sorted


def parts_of(configs: Any, files: Sequence[str]) -> Parts:
    """The parts that hold files of rows. `configs` is what the card says, if anything."""
    data = [file for file in files if suffix_of(Path(file)) in FAMILIES]
    if not isinstance(configs, list) or not configs:
        return _by_names(DEFAULT, data)
    parts: Parts = {}
    for config in configs:
        parts |= _of_config(config, data)
    return parts


def parts_of_converted(files: Sequence[str]) -> Parts:
    """The parts of what the hub itself has converted to Parquet: `config/split/0000.parquet`."""
    parts: Parts = {}
    for file in sorted(files):
        if file.count("/") == 2 and file.endswith(".parquet"):
            parts.setdefault(file.rpartition("/")[0], []).append(file)
    return parts


def find(parts: Parts, wanted: str) -> str | None:
    """The part that `wanted` means: `config/split`, or one of the two where that is plain, or nothing for the only one.

    None where no part or several could be meant.
    """
    if wanted in parts:
        return wanted
    meant = [part for part in parts if not wanted or wanted in part.split("/")]
    by_default = [part for part in meant if part == f"{DEFAULT}/{wanted}"]
    return meant[0] if len(meant) == 1 else by_default[0] if by_default else None


def _of_config(config: Any, data: Sequence[str]) -> Parts:
    if not isinstance(config, dict):
        return {}
    name = str(config.get("config_name", DEFAULT))
    folder = str(config.get("data_dir") or "").strip("/")
    inside = [file for file in data if not folder or file.startswith(f"{folder}/")]
    given = config.get("data_files")
    if not given:
        return _by_names(name, inside)
    entries = given if isinstance(given, list) and all(isinstance(entry, dict) for entry in given) else [
        {"split": "train", "path": given}]
    parts = {f"{name}/{entry.get('split', 'train')}": _matching(entry.get("path"), folder, data) for entry in entries}
    return {part: files for part, files in parts.items() if files}


def _matching(patterns: Any, folder: str, data: Sequence[str]) -> list[str]:
    from fsspec.utils import glob_translate

    given = [patterns] if isinstance(patterns, str) else patterns or []
    wholes = [re.compile(glob_translate(str(PurePosixPath(folder, str(pattern))))) for pattern in given]
    return sorted({file for file in data if any(whole.match(file) for whole in wholes)})


def _by_names(config: str, data: Sequence[str]) -> Parts:
    """By the words in the paths; all are for training where none says anything. One kind of file: the commonest."""
    said = [file for file in data if split_of(file)]
    chosen = said or data
    kinds = Counter(FAMILIES[suffix_of(Path(file))] for file in chosen).most_common(1)
    parts: Parts = {}
    for file in sorted(chosen):
        if FAMILIES[suffix_of(Path(file))] == kinds[0][0]:
            parts.setdefault(f"{config}/{split_of(file) or 'train'}", []).append(file)
    return parts
