"""Numbers with check digits or a fixed layout: payment cards, IBANs, US social security numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from tuneloop.data.personal.context import OTHER_NUMBER, said_before
from tuneloop.data.personal.hit import Hit

_CARD = re.compile(r"(?<![A-Za-z0-9_.#/+-])\d(?:[ -]{0,2}\d){12,18}(?![A-Za-z0-9_]|[ -]\d|\.\d)")
_CARD_WORD = re.compile(r"visa|card|karte|carte|tarjeta|cart[ãa]o|maestro|卡|карт", re.IGNORECASE)
_ISSUERS = re.compile(r"""
    4\d{12}(?:\d{3}){0,2}                                                   # Visa
  | (?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}        # Mastercard
  | 3[47]\d{13}                                                             # American Express
  | (?:6011|64[4-9]\d|65\d\d)\d{12}                                         # Discover
  | 35(?:2[89]|[3-8]\d)\d{12}                                               # JCB
  | 3(?:0[0-5]|095|[689]\d)\d{11}                                           # Diners Club
  | 62\d{14,17}                                                             # UnionPay
  | (?:5018|5020|5038|5893|6304|6759|676[1-3])\d{12}                        # Maestro
""", re.VERBOSE)
_TEST_CARDS = frozenset(re.findall(r"\d+", """
    4111111111111111 4242424242424242 4012888888881881 4000056655665556 4222222222222 5555555555554444
    5105105105105100 5200828282828210 2223003122003222 378282246310005 371449635398431 378734493671000
    6011111111111117 6011000990139424 30569309025904 38520000023237 3056930009020004 3530111333300000
    3566002020360505 6200000000000005
"""))
"""Numbers that payment services publish for trying things out."""

_IBAN = re.compile(r"(?<![A-Za-z0-9])([A-Za-z]{2})\d{2}(?=[ -]?[A-Za-z0-9])")
_IBAN_LENGTHS = dict(re.findall(r"([A-Z]{2})(\d\d)", """
    AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24
    FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21
    LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22
    RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20
"""))
_FEWEST_IBAN_DIGITS = 8
_EXAMPLE_IBANS = frozenset(re.findall(r"\w+", """
    DE89370400440532013000 GB82WEST12345698765432 GB29NWBK60161331926819 FR1420041010050500013M02606
    NL91ABNA0417164300 ES9121000418450200051332 AT611904300234573201 CH9300762011623852957 BE68539007547034
    IT60X0542811101000000123456
"""))

_SSN = re.compile(r"(?<![A-Za-z0-9_.-])(?!000|666|9)\d{3}([ -]?)(?!00)\d{2}\1(?!0000)\d{4}(?![A-Za-z0-9_]|-\d|\.\d)")
_SSN_WORD = re.compile(r"\bSSNs?\b|\bSS ?#|social[ _-]?security|\bher social\b|\bhis social\b|\bmy social\b",
                       re.IGNORECASE)
_EXAMPLE_SSNS = frozenset({"078051120", "219099999", "123456789"})


def cards(text: str) -> Iterator[Hit]:
    """Payment cards: known issuer and length, and the Luhn check digit."""
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if not _ISSUERS.fullmatch(digits) or not luhn(digits) or not _grouped(match[0]):
            continue
        if len(digits) in (13, 19) and not said_before(text, match.start(), _CARD_WORD):
            continue        # so long are article codes, too
        yield Hit("card", match.start(), match.end(), digits in _TEST_CARDS)


def _grouped(written: str) -> bool:
    """Whether the digits stand in one piece or in the groups that are embossed on cards."""
    sizes = [len(group) for group in re.split("[ -]+", written)]
    return len(sizes) == 1 or sizes in ([4, 4, 4, 4], [4, 6, 5], [4, 6, 4], [4, 4, 4, 4, 3])


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of ISO/IEC 7812."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (1 + place % 2)
        total += doubled - 9 * (doubled > 9)
    return total % 10 == 0


def ibans(text: str) -> Iterator[Hit]:
    """Bank accounts: the length of their country, and the check digits of ISO 13616."""
    for match in _IBAN.finditer(text):
        length = _IBAN_LENGTHS.get(match[1].upper())
        rest = _iban_rest(int(length)).match(text, match.end()) if length else None
        if rest is None or sum(map(str.isdigit, rest[0])) < _FEWEST_IBAN_DIGITS:
            continue
        account = re.sub(r"[ -]", "", text[match.start():rest.end()]).upper()
        if iban_is_valid(account):
            yield Hit("iban", match.start(), rest.end(), account in _EXAMPLE_IBANS)


@cache
def _iban_rest(length: int) -> re.Pattern[str]:
    return re.compile(rf"(?:[ -]?[A-Za-z0-9]){{{length - 4}}}(?![A-Za-z0-9])")


def iban_is_valid(account: str) -> bool:
    """Whether the remainder by 97 is 1, with the first four characters moved to the end and letters as 10 to 35."""
    return int("".join(str(int(character, 36)) for character in account[4:] + account[:4])) % 97 == 1


def social_security_numbers(text: str) -> Iterator[Hit]:
    """US social security numbers in ranges that can be issued; without dashes only where the words stand before."""
    for match in _SSN.finditer(text):
        named = said_before(text, match.start(), _SSN_WORD)
        if named or (match[1] == "-" and not said_before(text, match.start(), OTHER_NUMBER)):
            yield Hit("ssn", match.start(), match.end(), re.sub(r"\D", "", match[0]) in _EXAMPLE_SSNS)
