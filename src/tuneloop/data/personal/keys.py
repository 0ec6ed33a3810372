"""Keys, tokens and passwords, by the layout that their makers gave them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tuneloop.data.personal.hit import Hit

_KEY = re.compile(r"""(?<![A-Za-z0-9_-])(?:
    (?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Z0-9])                                   # Amazon
  | gh[pousr]_[A-Za-z0-9]{36,255}                                           # GitHub
  | github_pat_[A-Za-z0-9_]{60,255}
  | glpat-[A-Za-z0-9_-]{20,64}                                              # GitLab
  | xox[abeoprs]-[A-Za-z0-9-]{20,255}                                       # Slack
  | [rs]k_live_[A-Za-z0-9]{16,255}                                          # Stripe
  | AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])                                  # Google
  | sk-ant-[A-Za-z0-9_-]{32,255}                                            # Anthropic
  | sk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{32,255}                      # OpenAI
  | hf_[A-Za-z0-9]{34}(?![A-Za-z0-9_])                                      # Hugging Face
  | npm_[A-Za-z0-9]{36}(?![A-Za-z0-9_])
  | pypi-AgEI[A-Za-z0-9_-]{50,255}
  | SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}                          # SendGrid
  | eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}        # JSON web token
)""", re.VERBOSE)
_PRIVATE_KEY = re.compile(r"""
    -----BEGIN[ ](?:[A-Z0-9]+[ ])*PRIVATE[ ]KEY(?:[ ]BLOCK)?-----
    (?: (?s:.{0,10000}?)-----END[ ](?:[A-Z0-9]+[ ])*PRIVATE[ ]KEY(?:[ ]BLOCK)?----- | (?:\s*[A-Za-z0-9+/=]{16,})+ )
""", re.VERBOSE)
_AMAZON_SECRET = re.compile(r"aws_?secret_?(?:access_?)?key[\s\"':=]{1,6}([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+])",
                            re.IGNORECASE)
_URL_PASSWORD = re.compile(r"://[^\s:/@\"'<>]{0,80}:([^\s@/\"'<>{}$%*]{3,80})@[A-Za-z0-9\[]")
_PLACEHOLDER = re.compile(r"(?i:pass(?:word|wd)?|pwd|secret|token|your\w*|x{3,}|changeme|example|key|apikey)")
_FEWEST_DIFFERENT = 8       # characters of a key that is no `xxxx…`


def secrets(text: str) -> Iterator[Hit]:
    """Whatever opens a door: API keys, web tokens, private keys, passwords within URLs."""
    for match in _PRIVATE_KEY.finditer(text):
        yield Hit("secret", match.start(), match.end())
    for match in _KEY.finditer(text):
        if _is_random(match[0]):
            yield Hit("secret", match.start(), match.end(), match[0].endswith("EXAMPLE"))
    for match in _AMAZON_SECRET.finditer(text):
        yield Hit("secret", match.start(1), match.end(1), "EXAMPLE" in match[1])
    for match in _URL_PASSWORD.finditer(text):
        if not _PLACEHOLDER.fullmatch(match[1]):
            yield Hit("secret", match.start(1), match.end(1))


def _is_random(key: str) -> bool:
    """Keys are drawn at random: `sk-your-api-key-goes-here` holds neither a capital nor a digit."""
    return len(set(key)) >= _FEWEST_DIFFERENT and re.search(r"[A-Z0-9]", key[4:]) is not None and (
        re.search(r"\d", key) is not None)
