"""Personal data and secrets in a text: what can be told by its layout and check digits.

Names and postal addresses have neither and are not looked for: without a model most of what is found would be wrong.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Literal

from tuneloop.data.personal.addresses import emails, ip_addresses
from tuneloop.data.personal.birth import birth_dates
from tuneloop.data.personal.hit import Hit
from tuneloop.data.personal.keys import secrets
from tuneloop.data.personal.numbers import cards, ibans, social_security_numbers
from tuneloop.data.personal.phones import phones

Detector = Callable[[str], Iterator[Hit]]

Kind = Literal["secret", "email", "iban", "card", "ssn", "ip", "birth_date", "phone"]

KINDS: dict[Kind, str] = {
    "secret": "a key, token or password",
    "email": "an e-mail address",
    "iban": "a bank account (IBAN)",
    "card": "the number of a payment card",
    "ssn": "a US social security number",
    "ip": "an IP address",
    "birth_date": "a date of birth",
    "phone": "a telephone number",
}
"""The kinds, the most specific first, in words."""

_DETECTORS: tuple[tuple[re.Pattern[str], Detector], ...] = (
    (re.compile(r"AKIA|ASIA|gh[pousr]_|github_pat|glpat-|xox|k_live_|AIza|sk-|hf_|npm_|pypi-|SG\.|eyJ|PRIVATE KEY|://"
                r"|(?i:aws_?secret)"), secrets),
    (re.compile(r"@|(?i:[\[({] ?at ?[\])}])"), emails),
    (re.compile(r"[A-Za-z]{2}\d\d[ -]?[A-Za-z0-9]"), ibans),
    (re.compile(r"\d(?:[ -]{0,2}\d){12}"), cards),
    (re.compile(r"\d{3}[ -]?\d\d[ -]?\d{4}"), social_security_numbers),
    (re.compile(r"\d\.\d{1,3}\.\d|:[0-9A-Fa-f]{0,4}:"), ip_addresses),
    (re.compile(r"\d{4}|\d[-/.]\d\d\b"), birth_dates),
    (re.compile(r"\d(?:[ \t\u00a0().\-–/]{0,3}\d){6}"), phones),
)
"""A cheap sign without which a text holds nothing of a kind, and what looks closer."""


def find_personal(text: str) -> list[Hit]:
    """Every piece of personal data in `text`, in order and without overlaps: the most specific kind wins."""
    found: list[Hit] = []
    for sign, detector in _DETECTORS:
        if sign.search(text):
            for hit in detector(text):
                at = bisect(found, hit.start, key=attrgetter("start"))
                if (at == 0 or found[at - 1].end <= hit.start) and (at == len(found) or hit.end <= found[at].start):
                    found.insert(at, hit)
    return found
