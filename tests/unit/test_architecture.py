"""What keeps the code readable, enforced: imports go one way, files and functions stay small, start-up stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "tuneloop"
FILES = sorted(SOURCE.rglob("*.py"))
LEAVES = {"types", "errors", "catalog", "record", "spec"}
# A package imports only from itself, the leaves and the packages before it. Single modules at the top import anything.
ORDER = ["models", "data", "methods", "compute", "plan", "inference", "grading", "objectives", "training",
         "evaluation", "exports", "people", "registry", "monitoring", "serving", "hosted", "web"]
LONGEST_FILE, LONGEST_FUNCTION = 500, 60
WAIVED: dict[str, str] = {}         # "training/loop.py:fit": the reason why it is better in one piece


def rank(part: str) -> int:
    """Place of a module or package, named by the first part of its path below tuneloop."""
    if part in LEAVES:
        return -1
    if part in ORDER:
        return ORDER.index(part)
    assert not (SOURCE / part).is_dir(), f"the package {part} has no place in ORDER"
    return len(ORDER)


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and first part below tuneloop of every import of our own, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            root, _, rest = name.partition(".")
            if root == "tuneloop" and rest and not rest.startswith("_"):
                yield node.lineno, rest.split(".")[0]


def own_part(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_a_file_keeps_the_rules(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text)
    name = file.relative_to(SOURCE).as_posix()
    mine = rank(own_part(file))
    broken = [f"{name}:{line} imports tuneloop.{part}, which comes after it" for line, part in imported(tree)
              if rank(part) > mine]
    if len(text.splitlines()) > LONGEST_FILE:
        broken.append(f"{name} is longer than {LONGEST_FILE} lines")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION and f"{name}:{node.name}" not in WAIVED:
                broken.append(f"{name}:{node.name} is {length} lines long")
        if isinstance(node, ast.ImportFrom) and node.level:
            broken.append(f"{name}:{node.lineno} is a relative import, which the order of packages does not see")
    assert not broken, "\n".join(broken)


def test_waivers_are_still_needed() -> None:
    for waived in WAIVED:
        name, _, function = waived.partition(":")
        lengths = [(node.end_lineno or 0) - node.lineno + 1 for node in ast.walk(ast.parse((SOURCE / name).read_text()))
                   if isinstance(node, ast.FunctionDef) and node.name == function]
        assert lengths, f"{waived} does not exist"
        assert max(lengths) > LONGEST_FUNCTION, f"{waived} needs no waiver"


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    code = ("import sys, tuneloop.cli; heavy = {'torch', 'transformers', 'peft', 'accelerate', 'sklearn', "
            "'huggingface_hub'}; print(*sorted(heavy & sys.modules.keys()))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
