"""What columns of a file say of its rows, whatever the rows have become."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from typing import Any

from tuneloop.data.load import Loaded
from tuneloop.errors import UserError, raise_all
from tuneloop.types import Origin


def column(own: Loaded, name: str, key: str) -> dict[Origin, Any]:
    """What a column says of each row of a source; lists and mappings as JSON. `key` is that of the recipe that names
    it. Raises UserError where there is no such column.
    """
    if name not in own.table.columns:
        raise UserError(f'{key} names the column "{name}", which {own.table.file} does not have.',
                        wanted=f"one of: {', '.join(own.table.columns)}")
    return {item.origin: value if isinstance(value := item.values.get(name), Hashable) else
            json.dumps(value, sort_keys=True) for item in own.items}


def columns(own: Loaded, wanted: Mapping[str, str]) -> dict[str, dict[Origin, Any]]:
    """The same of several columns, each with the key that names it. Raises UserError with all that are missing."""
    found, problems = {}, []
    for name, key in wanted.items():
        try:
            found[name] = column(own, name, key)
        except UserError as error:
            problems.append(error)
    raise_all(problems)
    return found
