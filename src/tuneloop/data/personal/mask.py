"""Personal data as a report may show it: enough to find it again, too little to use it."""

from __future__ import annotations

import re

from tuneloop.data.personal.find import find_personal

_MAKER = re.compile(r"AKIA|ASIA|AIza|eyJ|github_pat_|-----BEGIN|[a-z]{2,5}[_-](?:live_|proj-|ant-)?|SG\.")


def masked(kind: str, value: str) -> str:
    """`jo…@…com`, `AKIA…`, or of other kinds the last two characters: `…90`."""
    if kind == "email" and "@" in value:
        return f"{value.partition('@')[0][:2]}…@…{value.rpartition('.')[2]}"
    if kind == "secret":
        maker = _MAKER.match(value)
        return (maker[0] if maker else "") + "…"
    return "…" + value[-2:]


def covered(text: str) -> str:
    """`text` with what is personal in it masked; what is public stays."""
    pieces, at = [], 0
    for hit in find_personal(text):
        if not hit.public:
            pieces += [text[at:hit.start], masked(hit.kind, text[hit.start:hit.end])]
            at = hit.end
    return "".join(pieces) + text[at:]
