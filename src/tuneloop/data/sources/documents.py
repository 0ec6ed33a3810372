"""Documents as rows: PDF, HTML, Markdown, plain text, code, or a folder or repository of them, in citing passages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tuneloop.data.documents.folder import READERS, documents, kind_of
from tuneloop.data.documents.passages import passages
from tuneloop.data.read import Row
from tuneloop.data.sources import base
from tuneloop.errors import UserError, raise_all

SCHEME = "docs:"


class Source(base.Source):
    """Passages of one document, or of all in a folder, each as `{"text": …, "source": …, "title": …}`.

    `Row.line` is the line or page on which the passage begins. What cannot be read is refused by name, after the rest.
    """

    schemes = (SCHEME,)
    suffixes = (".pdf", ".html", ".htm", ".md")

    def __init__(self, name: str, root: Path, shown: str) -> None:
        super().__init__(name, root, shown.removeprefix(SCHEME))
        self.path = base.whole_file(name.removeprefix(SCHEME), root, self.shown)
        known = None if self.path.is_dir() else kind_of(self.path)
        if known is None and not self.path.is_dir() and self.path.exists():
            raise UserError(f"{self.shown} is no document that can be read.",
                            wanted=f"a folder, or a file that ends with one of {' '.join(sorted(READERS))}")
        self.kind = known[0] if known else "documents"

    def rows(self) -> Iterator[Row]:
        return base.some(self._of_folder() if self.path.is_dir() else self._of(self.path, self.shown, self.path.name),
                         self.shown)

    def _of_folder(self) -> Iterator[Row]:
        problems = []
        for path in documents(self.path, self.notes):
            inside = path.relative_to(self.path).as_posix()
            try:
                yield from self._of(path, f"{self.shown.rstrip('/')}/{inside}", inside)
            except UserError as error:
                problems.append(error)
        raise_all(problems)

    def _of(self, path: Path, shown: str, cited: str) -> Iterator[Row]:
        found = kind_of(path)
        read = found[1] if found else READERS[".txt"][1]        # which says that there is no such file
        document = read(path, shown)
        self.notes += [f"{cited}: {note}" for note in document.notes]
        for passage in passages(document, cited):
            yield Row(passage.at, {"text": passage.text, "source": passage.source, "title": passage.title}, shown)
