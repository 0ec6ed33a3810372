"""Telephone numbers: found by a pattern and by the words beside them, judged by the numbering plans of countries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tuneloop.data.personal.context import OTHER_NUMBER, said_before
from tuneloop.data.personal.hit import Hit

_CANDIDATE = re.compile(r"(?<![A-Za-z0-9_.#/@$€£+-])(?<!\d,)(?:\+|\(\+?)?\d(?:[ \t\u00a0().\-–/]{0,3}\d){6,16}"
                        r"(?![A-Za-z0-9_]|[-.,:/]\d|-[A-Za-z]|\d)")
_NUMBER_WORD = r"(?:\ ?(?:no|nr|number|num|nummer|numéro|número|numero|номер)s?)?"
_WORD = rf"""(?:(?<![a-z])(?:
    (?: tel(?:e(?:phone|fono|fone|fon|foon))?|telefon\w*|tlf|telf|τηλ|phones?|ph|mobile?|mob|cell|cellphone|fax(?:en)?
      | handy|whatsapp|viber|sms|hotline|contact|rufnummer|festnetz|mobil|mobiltelefon|tél|téléphone|portable|móvil
      | celular|cellulare|mobiel|тел|телефон\w* ){_NUMBER_WORD}
  | call(?:ing|ed)?|ring|dial|text(?=\ )|reach|rufen?|anruf\w*|appele[rz]|llam[ae]\w*|chiama\w*|bel|zadzwoń
  | позвоните|звоните
  | (?:my|his|her|our|your|their|mijn|meine|mon|mi|mio|meu|min|mój|мой)\ (?:number|nummer|numéro|número|numero|\#)
  | numer
)(?![a-z])|电话|電話|手机|手機|携帯|号码)"""
_BRIDGE = r"""(?:
    [\s:：.,;=\#()\[\]"'“”<>*_-] | 号|號|号码|番号|是|は|为
  | is|are|in|at|on|under|via|me|us|him|her|my|our|the|to|for|now
  | today|or|and | sie|uns|mich|unter|ist|an|oder|und | le|la|lo|al|il|è|au|est|nous|ou|y|e|o|es|é|por|of|и|или
)*"""
_CALLED = re.compile(rf"{_WORD}{_BRIDGE}$", re.IGNORECASE | re.VERBOSE)
"""Ends where a telephone number is to come: the word for it, and little words."""
_NEXT = re.compile(r"^(?:[\s,;/&+]|or|and|oder|und|of|ou|y|o|e|и|или|festnetz|mobile?)+$", re.IGNORECASE)
"""What stands between one telephone number and the next."""
_AFTER = re.compile(r"\s?[(\[](?:mobile?|cell|home|office|work|fax|handy|privat|dienstlich|portable|móvil)\b",
                    re.IGNORECASE)
_PLAIN_SHAPES = (
    ("US", re.compile(r"(?:1[-. ]?)?(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4}")),
    ("FR", re.compile(r"0[1-9](?:[ .]\d\d){4}")),
    ("DE", re.compile(r"01[5-7]\d[ /-]?\d{7,8}|0\d{2,4} ?/ ?\d{5,8}")),
    ("BR", re.compile(r"\(\d\d\) 9?\d{4}-\d{4}")),
    ("GB", re.compile(r"\(?0(?:20\)? \d{4} \d{4}|1\d{2}\)? \d{3} \d{4}|7\d{3} \d{6}|1\d{3}\)? \d{6})")),
)
"""Layouts that hardly anything but a telephone number has: no word is needed before them."""
_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "CH", "AT", "BE", "PT", "PL", "SE", "NO", "DK", "FI", "IE", "CZ",
            "CN", "JP", "KR", "IN", "BR", "AU", "RU", "MX", "ZA", "TR")
"""Where a number without its country may be from; looked at after the word "phone" alone."""
_NO_NUMBER = re.compile(r"""
    \d{4}[-/.]\d{1,2}[-/.]\d{1,2} | \d{1,2}[-/.]\d{1,2}[-/.]\d{4}                          # a date
  | (?:19|20)\d\d[ ]?[-–/ ][ ]?(?:19|20)\d\d$                                               # years
  | \d+[ ]?/[ ]?\d{1,4}$ | [1-9]\d{0,1}(?:[ ]\d{3})+$ | [1-9]\d\d(?:[ ]000)+$               # a fraction, thousands
  | 0?123456789 | (?:.*(?<!\d)[1-9](?!\d)){3}                                               # all digits, a list
""", re.VERBOSE)
_LINK = re.compile(r"://\S*$")
_FICTION = re.compile(r"\+1\d{3}55501\d\d|\+44(?:20794600|7700900|1632960)\d*")


def phones(text: str) -> Iterator[Hit]:
    """Numbers with a country code anywhere; others where layout or a word beside them tells."""
    last = -1
    for match in _CANDIDATE.finditer(text):
        start = match.start() + (match[0][0] == "(" and ")" not in match[0])     # a bracket around more than a part
        written = text[start:match.end()]
        follows = last >= 0 and _NEXT.match(text[last:start]) is not None
        number = _number(text, start, written, follows)
        if number is not None:
            last = match.end()
            yield Hit("phone", start, last, _is_public(number))


def _number(text: str, start: int, written: str, follows: bool) -> Any:
    """The number as its numbering plan has it; None where it is none. `follows` another, as after `or`."""
    if written.lstrip("(").startswith("+"):
        return _valid(written, None)
    if _NO_NUMBER.match(written) or said_before(text, start, _LINK):
        return None
    called = follows or said_before(text, start, _CALLED)
    if not called and said_before(text, start, OTHER_NUMBER):
        return None
    if written.startswith("00") and (number := _valid("+" + written[2:], None)):
        return number
    for region, shape in _PLAIN_SHAPES:
        if shape.fullmatch(written):
            return _valid(written, region)
    if not called and not _AFTER.match(text, start + len(written)):
        return None
    return next((number for region in _REGIONS if (number := _valid(written, region))), None)


def _valid(written: str, region: str | None) -> Any:
    import phonenumbers

    try:
        number = phonenumbers.parse(written, region)
    except phonenumbers.NumberParseException:
        return None
    return number if phonenumbers.is_valid_number(number) else None


def _is_public(number: Any) -> bool:
    """Free numbers are those of offices; some ranges are kept for films."""
    import phonenumbers

    written = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return _FICTION.fullmatch(written) is not None or (
        phonenumbers.number_type(number) == phonenumbers.PhoneNumberType.TOLL_FREE)
