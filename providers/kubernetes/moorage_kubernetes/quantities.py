"""Reads and writes the quantities of Kubernetes, which have their own suffixes and precision.

Exact within: `0.1` and `100m` are one number, and bytes are whole. What cannot be read raises ValueError.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal

_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_DECIMAL = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
}
_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?\d+)?", re.ASCII)


def parse_quantity(text: str) -> Decimal:
    """`100m`, `1.5Gi`, `12e6` as the number they stand for."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a quantity")
    number, suffix = Decimal(match[1]), match[2] or ""
    if suffix in _BINARY:
        return number * _BINARY[suffix]
    if suffix in _DECIMAL:
        return number * _DECIMAL[suffix]
    return number.scaleb(int(suffix[1:]))


def parse_cpu(text: str) -> float:
    """Cores."""
    return float(parse_quantity(text))


def parse_count(text: str) -> int:
    """Whole things: bytes, accelerators, pods. Part of one counts as one."""
    return int(parse_quantity(text).to_integral_value(ROUND_CEILING))


def cpu_quantity(cores: float) -> str:
    """As Kubernetes writes it: whole cores, else thousandths, never less than one of them."""
    thousandths = max(1, round(cores * 1000))
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"


def memory_quantity(count: int) -> str:
    """Bytes in the largest binary unit that holds them exactly."""
    for suffix in ("Ti", "Gi", "Mi", "Ki"):
        if count and count % _BINARY[suffix] == 0:
            return f"{count // _BINARY[suffix]}{suffix}"
    return str(count)
