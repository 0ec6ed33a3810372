"""Files to start a thing of one's own from: a working example under a new name, with its test."""

from __future__ import annotations

import importlib.util
import keyword
import re
from importlib.resources import files
from pathlib import Path

from tuneloop.errors import UserError, raise_all


def write_objective(name: str, into: Path) -> tuple[Path, Path, str]:
    """Write the loss `name` and its test into a folder; returns both files, and how a recipe there names the loss.

    Raises UserError where the name makes no module, or a file is there already.
    """
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip().removesuffix(".py")).replace("-", "_").lower()
    module, cls = words, "".join(word.capitalize() for word in words.split("_"))
    if not (module.isidentifier() and module.isascii() and cls.isidentifier()) or keyword.iskeyword(module):
        raise UserError(f"'{name}' cannot be the name of a Python file and class.",
                        wanted="letters, digits and underscores, such as my_loss")
    code, test = into / f"{module}.py", into / f"test_{module}.py"
    raise_all([UserError(f"{file} exists already.", fix="choose another name, or another folder with --into")
               for file in (code, test) if file.exists()])
    if importlib.util.find_spec(module) is not None:
        raise UserError(f"'{module}' is the name of an installed package, which the file would hide.",
                        fix=f"choose another name, such as {module}_loss")
    try:
        into.mkdir(parents=True, exist_ok=True)
        for file, template in ((code, "objective.py.txt"), (test, "test_objective.py.txt")):
            text = (files("tuneloop") / "templates" / template).read_text(encoding="utf-8")
            file.write_text(text.replace("my_loss", module).replace("MyLoss", cls), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{code} cannot be written: {error.strerror or error}.") from error
    return code, test, f"./{code.as_posix()}:{cls}" if not code.is_absolute() else f"{code}:{cls}"
