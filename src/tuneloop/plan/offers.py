"""What devices can do and what machines cost, from data files that anyone may edit; no torch, no network.

Prices in `plan/data/offers.yaml` are dated examples. `--offers FILE` adds to them or replaces them by name; such a file
has offers by name, and may have an `accelerators:` part, both with the keys below. A price without a date is refused.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from tuneloop.errors import UserError, raise_all
from tuneloop.spec import Spec

HOURS_A_YEAR = 8766
Positive = Annotated[float, Field(gt=0)]


def _written(given: Any) -> Any:
    """YAML takes a whole date for one; a month alone stays text."""
    return given.isoformat() if isinstance(given, datetime.date) else given


Date = Annotated[str, BeforeValidator(_written), Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])(-\d{2})?$")]


class Accelerator(Spec):
    """A kind of device."""

    kind: Literal["cuda", "tpu"] = "cuda"
    memory_gb: Positive
    """In 10^9 bytes."""
    bandwidth_gb_s: Positive
    """Of its memory."""
    tflops: dict[Literal["bfloat16", "float32"], Positive]
    """Matrix products, dense, by dtype."""
    watts: Positive | None = None
    """Of the board at full load."""
    note: str = ""
    names: tuple[str, ...] = ()
    """What the driver calls it."""
    source: str
    as_of: Date

    @property
    def dtype(self) -> Literal["bfloat16", "float32"]:
        """What tuneloop trains in there."""
        return "bfloat16" if "bfloat16" in self.tflops else "float32"


class Offer(Spec):
    """A machine that can be had: for rent by the hour, or bought."""

    provider: str = ""
    instance: str = ""
    """What the provider calls it."""
    accelerator: str
    """A name in accelerators.yaml."""
    devices: Annotated[int, Field(ge=1)] = 1
    kind: Literal["on demand", "spot", "reserved", "on premise"] = "on demand"
    region: str = ""
    usd_per_hour: Annotated[float, Field(ge=0)] | None = None
    """For the whole machine."""
    purchase_usd: Positive | None = None
    """Instead of an hourly price: what the machine cost,"""
    life_years: Positive | None = None
    """for how many years it is written off,"""
    utilisation: Annotated[float, Field(gt=0, le=1)] = 0.5
    """in what share of those hours it works,"""
    watts: Positive | None = None
    """what the whole machine draws while it does,"""
    usd_per_kwh: Annotated[float, Field(ge=0)] | None = None
    """and what a kWh costs."""
    as_of: Date
    """The month or day of the price."""
    source: str = ""
    note: str = ""

    @model_validator(mode="after")
    def _one_price(self) -> Offer:
        bought = {"purchase_usd": self.purchase_usd, "life_years": self.life_years, "watts": self.watts,
                  "usd_per_kwh": self.usd_per_kwh}
        missing = [name for name, value in bought.items() if value is None]
        if self.usd_per_hour is None and missing:
            raise ValueError("either usd_per_hour, or what a machine of one's own costs: missing "
                             + ", ".join(missing))
        if self.usd_per_hour is not None and self.purchase_usd is not None:
            raise ValueError("usd_per_hour or purchase_usd, not both")
        return self

    @property
    def hourly_usd(self) -> float:
        """An hour of work: the rent, or the share of the purchase that falls on a working hour, and its power."""
        if self.usd_per_hour is not None:
            return self.usd_per_hour
        bought, years, watts, usd_per_kwh = self.purchase_usd, self.life_years, self.watts, self.usd_per_kwh
        if bought is None or years is None or watts is None or usd_per_kwh is None:
            raise RuntimeError("an offer without a price was made")
        return bought / (years * HOURS_A_YEAR * self.utilisation) + watts / 1000 * usd_per_kwh


@dataclass(frozen=True)
class Market:
    """Everything that can be named with --on."""

    accelerators: dict[str, Accelerator]
    offers: dict[str, Offer]

    def merged(self, other: Market) -> Market:
        """With what `other` adds or replaces."""
        return Market(self.accelerators | other.accelerators, self.offers | other.offers)


@cache
def packaged() -> Market:
    """The two data files of the package."""
    data = files("tuneloop.plan").joinpath("data")
    texts = {name: data.joinpath(f"{name}.yaml").read_text(encoding="utf-8") for name in ("accelerators", "offers")}
    market = Market(_entries(Accelerator, yaml.safe_load(texts["accelerators"]), "accelerators.yaml"),
                    _entries(Offer, yaml.safe_load(texts["offers"]), "offers.yaml"))
    _check_known(market, "offers.yaml")
    return market


def read_market(path: Path | None) -> Market:
    """What is packaged, and a file of the user's on top. Raises UserError with every problem of the file."""
    if path is None:
        return packaged()
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The offers {path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {getattr(error, 'problem', None) or error}.") from error
    if not isinstance(given, dict):
        raise UserError(f"{path} holds no offers.", wanted="offers by name, each with accelerator, usd_per_hour, as_of")
    devices = given.pop("accelerators", None) or {}
    own = Market(_entries(Accelerator, devices, str(path)), _entries(Offer, given, str(path)))
    market = packaged().merged(own)
    _check_known(market, str(path))
    return market


def _entries(kind: type[Any], given: Any, shown: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise UserError(f"{shown}: '{given!r}' is no list of entries by name.", wanted="names, each with its keys")
    found, problems = {}, []
    for name, entry in given.items():
        try:
            found[str(name).lower()] = kind.model_validate(entry)
        except ValidationError as error:
            problems += [_problem(item, entry, str(name), shown) for item in error.errors()]
    raise_all(problems)
    return found


def _problem(item: Any, entry: Any, name: str, shown: str) -> UserError:
    key = ".".join(map(str, item["loc"]))
    wanted = item["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if key == "as_of":
        dated = isinstance(entry, dict) and entry.get("as_of") is not None
        what = f"is dated {entry['as_of']!r}" if dated else "has no date"
        return UserError(f"{shown}: the entry '{name}' {what}, and prices move.",
                         wanted="as_of: the month or day it was read, such as 2026-11")
    if item["type"] == "missing":
        return UserError(f"{shown}: the entry '{name}' has no {key}.")
    found = f"has {key}: {item['input']!r}" if key else "is wrong"
    return UserError(f"{shown}: the entry '{name}' {found}.", wanted=wanted)


def _check_known(market: Market, shown: str) -> None:
    raise_all([UserError(f"{shown}: the offer '{name}' has the accelerator '{offer.accelerator}', which nobody "
                         "described.", wanted=f"one of: {', '.join(market.accelerators)}",
                         fix="add it to the part `accelerators:` of the file")
               for name, offer in market.offers.items() if offer.accelerator not in market.accelerators])
