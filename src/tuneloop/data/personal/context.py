"""Which words stand before a number: they tell what it is a number of."""

from __future__ import annotations

import re

BEFORE = 40         # characters
"""How far back a word speaks of a number."""

OTHER_NUMBER = re.compile(r"""(?<![a-z])(?:
    order|invoice|part|sku|tracking|track|ticket|case|article|item|customer|policy|ref|reference|batch|serial|model
  | reservation|booking|transaction|lot|account|acct|isbn(?:-1[03])?|issn|ean|upc|gtin|vin|imei|ein|po|pmid|doi|ndc|cas
  | patent|grid|room|page|pages|zip|plz|bank\ code|blz|usps|fedex|ups|dhl|id|uuid|version|build|release|chapter
  | section|flight|train|member(?:ship)?|registration|licen[cs]e|bestell\w*|kunden\w*|auftrag\w*|rechnung\w*|konto\w*
  | artikel\w*|vertrag\w*|aktenzeichen|commande|facture|pedido|factura|zamówieni\w*|订单\w*|編號|编号
)(?:\ ?(?:number|no|nr|nummer|\#))?(?![a-z])""", re.IGNORECASE | re.VERBOSE)
"""Words for numbers that are neither a telephone's nor a person's."""


def before(text: str, at: int) -> str:
    """What stands on the same line before `at`."""
    return text[max(0, at - BEFORE):at].rsplit("\n", 1)[-1]


def said_before(text: str, at: int, words: re.Pattern[str]) -> bool:
    return words.search(before(text, at)) is not None
