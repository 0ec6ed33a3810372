"""The data report as one self-contained page: for whoever has to mend the rows."""

from __future__ import annotations

from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from tuneloop.data.examine import Examined
from tuneloop.data.findings import Finding
from tuneloop.record import write_atomic

SHOWN_PLACES = 200
HEADINGS = {"blocks": "What stops training", "fix": "Fix first", "note": "Worth knowing"}
LOOKS = {"ready": "met", "fix first": "undecided", "will not train": "not-met"}     # classes of the style sheet
SENTENCES = {
    "ready": "Nothing that was looked for speaks against training on these rows.",
    "fix first": "A model can be trained on these rows, but it would learn what is wrong with them.",
    "will not train": "A model cannot or must not be trained on these rows as they are.",
}


def write_page(examined: Examined, path: Path) -> None:
    """Write the page to `path`; nothing in it is loaded from elsewhere, and texts of rows are escaped."""
    environment = Environment(loader=FunctionLoader(_source), undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True, autoescape=lambda name: ".html" in str(name))
    environment.filters |= {"places": places, "title": title}
    page = environment.get_template("findings.html.j2").render(
        examined=examined, sentence=SENTENCES[examined.verdict], look=LOOKS[examined.verdict],
        sections=[(heading, [f for f in examined.findings if f.severity == severity])
                  for severity, heading in HEADINGS.items()],
        found={name: sum(f.check == name for f in examined.findings) for name in examined.looked_for})
    write_atomic(path, page)


def places(finding: Finding) -> dict[str, str]:
    """File -> its lines, as text; cut after so many."""
    lines: dict[str, list[str]] = {}
    for origin in islice(finding.places, SHOWN_PLACES):
        lines.setdefault(origin.file, []).append(str(origin.line))
    more = len(finding.places) > SHOWN_PLACES
    return {file: ", ".join(at) + (", …" if more and file == list(lines)[-1] else "") for file, at in lines.items()}


def title(key: Any) -> str:
    """A key of the facts as people read it."""
    text = str(key).replace("_", " ")
    return text[:1].upper() + text[1:]


def _source(name: str) -> str:
    folder = "tuneloop.templates" if name.endswith(".css") else "tuneloop.data"
    return resources.files(folder).joinpath(name).read_text(encoding="utf-8")
