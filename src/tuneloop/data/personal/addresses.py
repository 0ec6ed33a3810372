"""Addresses of people and machines on a network: e-mail, IPv4, IPv6."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address

from tuneloop.data.personal.context import before, said_before
from tuneloop.data.personal.hit import Hit

_LETTER = "A-Za-zÀ-ɏ"
_EMAIL = re.compile(rf"""
    (?<![{_LETTER}0-9_.%+@-])
    ([{_LETTER}0-9_](?:[{_LETTER}0-9_.%+'-]{{0,62}}[{_LETTER}0-9_+-])?)
    @
    ((?:[{_LETTER}0-9](?:[{_LETTER}0-9-]{{0,61}}[{_LETTER}0-9])?\.)+[{_LETTER}]{{2,24}})
    (?![{_LETTER}0-9_@(-])
""", re.VERBOSE)
_SPELT_EMAIL = re.compile(r"""
    (?<![A-Za-z0-9_.+-])
    ([A-Za-z0-9_.+-]+) [ ]? [\[({][ ]?(?:at|@)[ ]?[\])}] [ ]?
    ((?:[A-Za-z0-9-]+ [ ]? (?:\.|[\[({][ ]?(?:dot|punkt|\.)[ ]?[\])}]) [ ]?)+ (?P<top>[A-Za-z]{2,24}))
    (?![A-Za-z0-9_])
""", re.VERBOSE | re.IGNORECASE)
"""`anna [at] posteo [dot] de`."""
_TOP_LEVEL = frozenset(re.findall(r"\w+", """
    ac ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bm bn bo br bs bt bw by bz ca cc cd
    cf cg ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg er es et eu fi fj fk fm fo fr ga gb gd
    ge gf gg gh gi gl gm gn gp gq gr gs gt gu gw gy hk hm hn hr ht hu id ie il im in io iq ir is it je jm jo jp ke kg
    kh ki km kn kp kr kw ky kz la lb lc li lk lr ls lt lu lv ly ma mc md me mg mh mk ml mm mn mo mp mq mr ms mt mu mv
    mw mx my mz na nc ne nf ng ni nl no np nr nu nz om pa pe pf pg ph pk pl pm pn pr ps pt pw py qa re ro rs ru rw sa
    sb sc sd se sg sh si sk sl sm sn so sr ss st su sv sx sy sz tc td tf tg th tj tk tl tm tn to tr tt tv tw tz ua ug
    uk us uy uz va vc ve vg vi vn vu wf ws ye yt za zm zw
    com org net edu gov mil int info biz name pro aero coop museum jobs mobi travel tel cat asia post app dev cloud
    online site store shop tech xyz top club live blog email health agency digital studio design media news world today
    solutions services group company global systems network consulting marketing software technology energy finance
    bank capital legal law clinic dental care hospital academy school university education college training work works
    center city london berlin paris tokyo nyc hamburg wien koeln cologne bayern swiss africa scot wales page link wiki
    space website fun icu vip life team zone community foundation events photography art music film video games tours
    hotel restaurant cafe bar farm garden house estate construction engineering build tools supply support help chat
    social family green eco solar auto car cars bike taxi repair ltd llc gmbh inc limited international partners
    ventures management expert guru ninja rocks one example
"""))
_OFFICES = re.compile(r"""(?:
    abuse|accounts?|admin|billing|careers?|contact|customer\W?(?:care|service)|datenschutz|do\W?not\W?reply|enquiries
  | feedback|hello|help|helpdesk|hr|info|jobs?|kontakt|legal|mail|marketing|newsletter|no\W?reply|office|orders?
  | postmaster|presse?|privacy|sales|security|service|shop|support|team|webmaster|welcome
)""", re.VERBOSE | re.IGNORECASE)
_EXAMPLE_DOMAINS = re.compile(r"(?:.*\.)?(?:example(?:-domain)?\.\w+|example|(?:your|my)?-?(?:domain|company)\.com|"
                              r"email\.com|test\.com)", re.IGNORECASE)
_IN_LINK = re.compile(r"://[^\s/]{0,80}$")

_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = re.compile(rf"(?<![A-Za-z0-9_.-])(?:{_OCTET}\.){{3}}{_OCTET}(?![A-Za-z0-9_]|\.\d|-[A-Za-z])", re.ASCII)
_IPV6 = re.compile(r"(?<![A-Za-z0-9_:.])[0-9A-Fa-f:]{5,39}(?![A-Za-z0-9_:])")
_HEXADECIMAL = re.compile(r":[^:]*:.*[A-Fa-f]|[A-Fa-f].*:[^:]*:|::|:\d{3}")
_VERSION_BEFORE = re.compile(r"""(?:
    (?<![A-Za-z])(?:version|ver|vers|release|build|firmware|driver|update|upgrade|patch|fassung|chapter|section|sections|clause
     |article|kapitel|abschnitt|paragraph|oid|windows|win|nt|§+|v)[\s:."'(=]{0,3}
  | [A-Za-z0-9]/ | [=<>~^!]=[\s"']? )$""", re.IGNORECASE | re.VERBOSE)
_MACHINE_WORD = re.compile(r"\bips?\b|\bipv4|address|adresse|host|server|login|ping|ssh|://|\bfrom\b|gateway|dns|subnet",
                           re.IGNORECASE)
_SMALL_OCTET = 32          # so small are all numbers of a section; those of an address seldom
_NETWORK = re.compile(r"/(?:[0-9]|[12][0-9]|30)(?![0-9])")
_PUBLIC_SERVERS = frozenset({"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9"})


def emails(text: str) -> Iterator[Hit]:
    """E-mail addresses, also where "at" and "dot" are spelt out in brackets."""
    for match in _EMAIL.finditer(text):
        domain = _domain(match[2])
        if domain and match[1] != "git" and not _IN_LINK.search(before(text, match.start())):
            yield Hit("email", match.start(), match.start(2) + len(domain), _is_office(match[1], domain))
    for match in _SPELT_EMAIL.finditer(text):
        if match["top"].lower() in _TOP_LEVEL:
            yield Hit("email", match.start(), match.end(), _is_office(match[1], match[2]))


def _domain(written: str) -> str:
    """The domain without the word that follows where the space after a full stop is missing; empty: it is none."""
    labels = written.split(".")
    while len(labels) > 1 and labels[-1].lower() not in _TOP_LEVEL:
        if not labels[-1][0].isupper():
            return ""
        labels.pop()
    return ".".join(labels) if len(labels) > 1 else ""


def _is_office(local: str, domain: str) -> bool:
    return bool(_OFFICES.fullmatch(local) or _EXAMPLE_DOMAINS.fullmatch(domain))


def ip_addresses(text: str) -> Iterator[Hit]:
    """IPv4 and IPv6; version numbers and numbered sections look alike and are left out by what stands before them."""
    for match in _IPV4.finditer(text):
        if _is_version(text, match):
            continue
        known = match[0] in _PUBLIC_SERVERS or _NETWORK.match(text, match.end())
        yield Hit("ip", match.start(), match.end(), bool(known) or not ip_address(match[0]).is_global)
    for match in _IPV6.finditer(text):
        if not _HEXADECIMAL.search(match[0]) or not any(map(str.isdigit, match[0])):
            continue        # numbers, times and lists; names in code such as `dead::beef`
        try:
            address = ip_address(match[0])
        except ValueError:
            continue
        yield Hit("ip", match.start(), match.end(), not address.is_global)


def _is_version(text: str, match: re.Match[str]) -> bool:
    if _VERSION_BEFORE.search(text, max(0, match.start() - 20), match.start()):
        return True
    octets = [int(octet) for octet in match[0].split(".")]
    small = all(octet < _SMALL_OCTET for octet in octets) and octets[0] != 10
    return small and not said_before(text, match.start(), _MACHINE_WORD)
