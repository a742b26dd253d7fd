"""Quantities: 500m, 24Gi, 2. Exact, as a scheduler and a quota must count them."""

from __future__ import annotations

import re
from fractions import Fraction

_SUFFIX: dict[str, int | Fraction] = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "E": 10**18,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "Pi": 2**50,
    "Ei": 2**60,
    "m": Fraction(1, 10**3),
    "u": Fraction(1, 10**6),
    "n": Fraction(1, 10**9),
}
_QUANTITY = re.compile(
    r"^(?P<number>[+-]?(\d+\.?\d*|\.\d+))((?P<suffix>[numkMGTPE]|[KMGTPE]i)|e(?P<power>[+-]?\d+))?$"
)


def quantity(text: str | float) -> Fraction:
    """The number that a quantity stands for. Raises ValueError."""
    met = _QUANTITY.match(str(text))
    if met is None:
        raise ValueError(
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )
    number = Fraction(met["number"].rstrip(".") if met["number"] != "." else "0")
    if met["power"]:
        return number * Fraction(10) ** int(met["power"])
    return number * _SUFFIX[met["suffix"] or ""]


def shown(amount: Fraction, unit: str = "") -> str:
    """As a server writes it: whole where it can, in thousandths else; bytes in the largest binary unit."""
    if amount.denominator != 1:
        return f"{int(amount * 1000)}m"
    whole = int(amount)
    if unit == "bytes" and whole:
        for suffix in ("Ti", "Gi", "Mi", "Ki"):
            if whole % int(_SUFFIX[suffix]) == 0:
                return f"{whole // int(_SUFFIX[suffix])}{suffix}"
    return str(whole)
