"""Dates of birth: dates beside a word that says so."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tuneloop.data.personal.hit import Hit

_WORD = r"""(?<![^\W\d_])(?:
    d\.?o\.?b\.? | date[ _]of[ _]birth | birth[ _-]?da(?:te|y) | born(?:[ ]in[ ][A-Z]\w+)?
  | b\.(?=[ ]\d\d?[ ][^\W\d])
  | geboren | geb\. | geburts(?:datum|tag) | n(?:ée?|é\(e\)) | date[ ]de[ ]naissance
  | fecha[ ]de[ ]nacimiento | naci(?:do|da|ó) | data[ ]di[ ]nascita | nat[oa](?=[ ]il)
  | data[ ]de[ ]nascimento | nascid[oa]
  | geboortedatum | data[ ]urodzenia | urodzon[ya] | födelsedatum | дата[ ]рождения | родил(?:ся|ась)
  | 出生日期 | 出生于 | 生年月日
)"""
_MONTH = r"""(?:
    jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|jän|mär|mai|okt|dez|fév|fev|avr|jui|aoû|déc|ene|abr|ago|dic|gen|mag
  | giu|lug|set|ott|out|mei|maa|янв|фев|мар|апр|мая|июн|июл|авг|сен|окт|ноя|дек)[^\W\d_]*\.?"""
_DATE = rf"""(?:
    (?:19|20)\d\d [-/.年] \d{{1,2}} [-/.月] \d{{1,2}}日? | (?:19|20)\d\d[01]\d[0-3]\d
  | \d{{1,2}} [-/.] \d{{1,2}} [-/.] (?:(?:19|20)\d\d|\d\d)
  | \d{{1,2}} (?:\.|st|nd|rd|th)? [ ] (?:of[ ]|de[ ])? {_MONTH} (?:[ ]de)? ,?[ ] (?:19|20)\d\d
  | {_MONTH} [ ] \d{{1,2}} (?:st|nd|rd|th)? ,?[ ] (?:19|20)\d\d
)(?![\w])"""
_BIRTH = re.compile(rf"""{_WORD} [\s:：="'(\[>*_-]{{0,6}} (?:(?:on|is|was|am|the|op|le|el|il|em|den|dnia)[ ]){{0,2}}
                    (?P<date>{_DATE})""", re.IGNORECASE | re.VERBOSE)


def birth_dates(text: str) -> Iterator[Hit]:
    """The date after "born", "DOB" and their like in some languages; of people of this century and the last."""
    for match in _BIRTH.finditer(text):
        yield Hit("birth_date", match.start("date"), match.end("date"))
