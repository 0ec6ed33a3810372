"""Source code to blocks: functions and classes whole, where they are short enough."""

from __future__ import annotations

from pathlib import Path

from tuneloop.data.documents.cutting import CODE
from tuneloop.data.documents.passages import Block, Document, cut_blocks
from tuneloop.data.documents.reading import text_of

SUFFIXES = frozenset((
    ".py", ".pyi", ".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx", ".java", ".kt", ".kts", ".scala", ".groovy",
    ".clj", ".cs", ".fs", ".vb", ".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".m", ".mm", ".go", ".rs",
    ".swift", ".zig", ".d", ".rb", ".php", ".pl", ".pm", ".lua", ".r", ".jl", ".dart", ".ex", ".exs", ".erl",
    ".hrl", ".hs", ".ml", ".mli", ".elm", ".nim", ".sql", ".sh", ".bash", ".zsh", ".fish", ".ps1", ".vue",
    ".svelte", ".proto", ".tf", ".cu", ".f90", ".sol", ".v", ".vhd", ".asm", ".lisp", ".el", ".rkt", ".cmake",
))
NAMES = frozenset(("Makefile", "Dockerfile", "CMakeLists.txt", "Jenkinsfile", "Rakefile", "Gemfile"))
MINIFIED = 300          # characters of an average line, beyond which nobody wrote it by hand


def read(path: Path, shown: str) -> Document:
    """The blocks of a source file; none of a minified one, which `notes` says."""
    text, notes = text_of(path, shown)
    if len(text) > MINIFIED * (text.count("\n") + 1):
        return Document(path.name, [], notes=[*notes, "left out, for it is minified"])
    body = text.lstrip("\n")
    above = len(text) - len(body)
    whole = Block(body, above + 1, above + 1 + body.rstrip("\n").count("\n"))
    return Document(path.name, list(cut_blocks(whole, CODE, counted=True)), notes=notes)
