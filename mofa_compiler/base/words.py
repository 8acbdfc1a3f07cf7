"""Numbers in words, as every command, page and report writes them."""

from __future__ import annotations

_UNITS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))

UNTRAINED = "the weights are those that the network is built with, usually random, and say little about its output"


def quantity(number: float) -> str:
    """Three significant digits and a decimal prefix: `962 M`, `1.03 M`, `448`, or an exponent where there is none."""
    if abs(number) >= 0.9995e21:
        return f"{number:.2e}"
    for scale, unit in _UNITS:
        if abs(number) >= 0.9995 * scale:
            scaled = number / scale
            digits = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
            return f"{scaled:.{digits}f} {unit}"
    return f"{number:.0f}"


def signed(number: float) -> str:
    """A change: `+3.08 M`, `−406 k`, `0`."""
    return f"{'+' if number > 0 else '−'}{quantity(abs(number))}" if number else "0"


def change(before: float, after: float) -> str:
    """A change relative to what was before: `+298 %`, `−3.1 %`."""
    if after == before:
        return "unchanged"
    if not before:
        return "new"
    percent = 100 * (after / before - 1)
    digits = 0 if abs(percent) >= 9.95 else 1
    return f"{'+' if percent > 0 else '−'}{abs(percent):.{digits}f} %"


def error_text(value: float | None) -> str:
    """A relative error: `2.64 %`, `0.00200 %`, `< 0.001 %`, `0 %`."""
    if value is None:
        return "not finite"
    if value == 0:
        return "0 %"
    if value < 1e-5:
        return "< 0.001 %"
    return f"{100 * value:#.3g}".rstrip(".") + " %"  # with the zeros at its end: as wide as the next figure


def off(error: float) -> str:
    """An error of something exact: `2e-16`, `0`."""
    return f"{error:.0e}" if error else "0"


def count(number: int, noun: str) -> str:
    """`1 layer`, `3 layers`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
