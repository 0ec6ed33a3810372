"""An objective in the user's own file, `./my_loss.py:MyLoss`: found, run, checked, and identified by its sha256.

The file is the whole of the code: its folder is not put on the import path, so that the sha256 tells one loss from
another. Nothing here needs torch, unless the file does.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from tuneloop.errors import UserError
from tuneloop.objectives.base import COLUMNS, REDUCERS, Objective
from tuneloop.types import Conversation, Denominator, Preference, Rated, Rollout

KINDS = (Conversation, Preference, Rated, Rollout)
DENOMINATORS: tuple[str, ...] = get_args(Denominator)
START = "`tuneloop new objective my_loss` writes one to start from"


@dataclass(frozen=True)
class OwnObjective:
    """A class of a user's file that can be an objective."""

    made_by: type[Objective]
    file: Path          # absolute
    sha256: str

    @property
    def reference(self) -> str:
        """How a recipe names it, from anywhere."""
        return f"{self.file}:{self.made_by.__name__}"


def is_reference(kind: Any) -> bool:
    """Whether `kind` names a Python file, and not a thing of a catalog."""
    return isinstance(kind, str) and re.search(r"\.py(:|$)", kind) is not None


def find(reference: str, root: Path) -> OwnObjective:
    """The class that `reference` names, which is a path from `root`. Runs the file. Raises UserError."""
    stem, _, name = reference.rpartition(".py")
    shown, name = f"{stem}.py", name.removeprefix(":")
    file = (root / Path(shown).expanduser()).resolve()
    try:
        source = file.read_bytes()
    except FileNotFoundError:
        raise _no_file(shown, file) from None
    except OSError as error:
        raise UserError(f"The objective's file {shown} cannot be read: {error.strerror or error}.") from error
    module = _run(source, file, shown)
    classes = [n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__]
    if name not in classes:
        raise _no_class(shown, name, classes)
    made_by = getattr(module, name)
    _check_class(made_by, f"{name} in {shown}")
    return OwnObjective(made_by, file, hashlib.sha256(source).hexdigest())


def declaration_flaws(objective: Objective) -> list[UserError]:
    """What is wrong with what an objective says of itself: `batch_kind`, `denominator`, `needs`."""
    name, flaws = type(objective).__name__, []
    try:
        needs: Any = objective.needs
        denominator, kind = objective.denominator, objective.batch_kind
    except Exception as error:
        return [UserError(f"{name} cannot say what it needs: {told(error, file_of(type(objective)))}.")]
    known = sorted(REDUCERS | COLUMNS)
    if not isinstance(needs, set | frozenset) or not all(isinstance(n, str) for n in needs):
        flaws.append(UserError(f"{name}.needs is {needs!r}.",
                               wanted='a property that gives a set of names, such as frozenset({"entropy"})'))
        needs = frozenset()
    for unknown in sorted(set(needs) - set(known)):
        near = difflib.get_close_matches(unknown, known, n=1)
        flaws.append(UserError(f"{name} needs '{unknown}', which nothing computes.", wanted=f"of: {', '.join(known)}",
                               fix=f"did you mean '{near[0]}'?" if near else ""))
    if "selected" in needs and "teacher" not in needs:
        flaws.append(UserError(f"{name} needs 'selected' alone, and nothing says which tokens to select.",
                               fix="add 'teacher', which brings `select_ids`"))
    if "old_values" in needs and "values" not in needs:
        flaws.append(UserError(f"{name} needs 'old_values', and no value head that gives them.", fix="add 'values'"))
    if "teacher" in needs and not (hasattr(objective, "teacher") and hasattr(objective, "top_k")):
        flaws.append(UserError(f"{name} needs 'teacher', and does not say which.",
                               fix="give it the options `teacher: str` and `top_k: int`, as objective distill has"))
    if denominator not in DENOMINATORS:
        flaws.append(UserError(f"{name}.denominator is {denominator!r}.", wanted=f"one of: {', '.join(DENOMINATORS)}"))
    if kind not in KINDS:
        flaws.append(UserError(f"{name}.batch_kind is {kind!r}.",
                               wanted=f"one of: {', '.join(k.__name__ for k in KINDS)}, of tuneloop.types"))
    return flaws


def told(error: BaseException, file: Path | None) -> str:
    """What was raised and where in `file`: "my_loss.py line 7 raises NameError: ..."."""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError) and error.lineno and (file is None or error.filename == str(file)):
        return f"{Path(error.filename or '').name} line {error.lineno} is no Python: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if file is not None and f.filename == str(file)]
    if not own:
        return what
    return f"{Path(own[-1].filename).name} line {own[-1].lineno} raises {what}"


def file_of(made_by: type[Any]) -> Path | None:
    """The file that defines a class."""
    file = getattr(sys.modules.get(made_by.__module__), "__file__", None)
    return Path(file) if file else None


def _run(source: bytes, file: Path, shown: str) -> ModuleType:
    """The module of a file; the same one again while path and content stay the same."""
    digest = hashlib.sha256(str(file).encode() + b"\0" + source).hexdigest()
    name = f"{file.stem}_{digest[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module      # dataclasses and pydantic look up the types of fields there
    try:
        exec(compile(source, str(file), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(f"The objective's file {shown} cannot be run: {told(error, file)}.",
                        fix=_fix_of_import(error, file)) from error
    return module


def _fix_of_import(error: BaseException, file: Path) -> str:
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    if (file.parent / f"{error.name.partition('.')[0]}.py").exists():
        return "an objective is one file, so that its run can record it: move the code into it, or install it"
    return f"install the package that has {error.name}"


def _no_file(shown: str, file: Path) -> UserError:
    near = difflib.get_close_matches(file.name, [f.name for f in file.parent.glob("*.py")], n=1)
    return UserError(f"There is no file {shown} for the objective; looked for {file}.",
                     wanted="FILE.py:CLASS, with the path from the recipe's folder",
                     fix=f"did you mean '{near[0]}'?" if near else START)


def _no_class(shown: str, name: str, classes: list[str]) -> UserError:
    near = difflib.get_close_matches(name, classes, n=1) or (classes if len(classes) == 1 else [])
    return UserError(f"{shown} has no class '{name}'." if name else f"'{shown}' names no class.",
                     wanted=f"{shown}:CLASS, with one of: {', '.join(classes)}" if classes else f"{shown}:CLASS",
                     fix=f"did you mean '{shown}:{near[0]}'?" if near else "" if classes else START)


def _check_class(made_by: Any, shown: str) -> None:
    """Refuse what is no objective, or could not be given its options."""
    if getattr(made_by, "loss", Objective.loss) is Objective.loss or not callable(made_by.loss):
        raise UserError(f"{shown} has no method `loss`.", fix=START,
                        wanted="def loss(self, out: Outputs, batch: Batch) -> LossOutput")
    if not issubclass(made_by, Objective):
        raise UserError(f"{shown} does not derive from Objective, so what it needs is not known.",
                        fix=f"from tuneloop.objectives import base, and class {made_by.__name__}(base.Objective)")
    fields = {f.name for f in dataclasses.fields(made_by)} if dataclasses.is_dataclass(made_by) else set()
    lost = [n for n, kind in vars(made_by).get("__annotations__", {}).items()
            if n not in fields and "ClassVar" not in str(kind)]
    if not dataclasses.is_dataclass(made_by) or lost:
        raise UserError(f"{shown} is no dataclass, so a recipe cannot set its options.",
                        fix="put @dataclass(frozen=True) above it")
    frozen: Callable[..., Any] | None = getattr(made_by, "__dataclass_params__", None)
    if not getattr(frozen, "frozen", False):
        raise UserError(f"{shown} can change while it trains; then a resumed run would not go on as it began.",
                        fix="put @dataclass(frozen=True) above it")
