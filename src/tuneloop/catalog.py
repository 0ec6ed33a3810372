"""Name -> object, imported on use. Built-ins are found by folder, third parties by entry point."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any

from tuneloop.errors import UserError


@dataclass(frozen=True)
class Catalog:
    """The things of one kind: every public module of `package` is one, and offers it under the name `attribute`.

    Adding a built-in thing is adding a file. A third party offers one through the entry point group `package`.
    """

    kind: str           # "method", "objective", ... for messages
    package: str        # "tuneloop.methods"
    attribute: str      # "Method": the name each module defines

    @cached_property
    def names(self) -> list[str]:
        return sorted(self._built_in | set(self._third_party))

    def get(self, name: str) -> Any:
        """The object called `name`, or a UserError that lists what there is."""
        if name in self._built_in:
            return getattr(importlib.import_module(f"{self.package}.{name}"), self.attribute)
        if name in self._third_party:
            return self._third_party[name].load()
        near = difflib.get_close_matches(name, self.names, n=1)
        raise UserError(f"Unknown {self.kind} '{name}'.", wanted=f"one of: {', '.join(self.names)}",
                        fix=f"did you mean '{near[0]}'?" if near else "")

    @cached_property
    def _built_in(self) -> set[str]:
        folder = importlib.import_module(self.package).__path__
        return {m.name for m in pkgutil.iter_modules(folder) if not m.name.startswith("_") and m.name != "base"}

    @cached_property
    def _third_party(self) -> dict[str, Any]:
        return {e.name: e for e in entry_points(group=self.package)}
