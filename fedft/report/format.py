"""Numbers and foreign text as people read them."""

from __future__ import annotations

import math

from fedft.statements import PrivacyStatement

_PERCENT = ("exact_match", "accuracy")
MEMORY_PARTS = {
    "weights": "frozen weights",
    "frames": "frozen matrices of the adapters",
    "trainable": "trained matrices, gradients, optimiser state",
    "workspace": "dense workspace of quantised weights",
    "activations": "activations and temporaries",
}
_SIZES = ("kB", "MB", "GB", "TB")


def size(count: float) -> str:
    """Bytes in SI units with three digits, e.g. ``64.0 kB``."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in _SIZES:
        count /= 1000
        if count < 999.5 or unit == _SIZES[-1]:
            break
    digits = 0 if count >= 99.95 else 1 if count >= 9.995 else 2
    return f"{count:.{digits}f} {unit}"


def duration(seconds: float) -> str:
    """Seconds as ``0.25 s``, ``12.3 s``, ``4 min 05 s`` or ``2 h 03 min``."""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def metric_name(metric: str) -> str:
    """``exact_match`` as ``exact match``."""
    return metric.replace("_", " ")


def metric_value(metric: str, value: float | None) -> str:
    """A metric's value in its unit: shares in per cent, the rest with four digits; ``–`` for none."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "∞"
    return f"{100 * value:.1f} %" if is_share(metric) else f"{value:#.4g}".rstrip(".")


def metric_change(metric: str, before: float | None, after: float | None) -> str:
    """The difference with its sign; shares in points."""
    if before is None or after is None or not math.isfinite(after - before):
        return "–"
    change = after - before
    text = f"{100 * change:+.1f} points" if is_share(metric) else f"{change:+.3g}"
    return text.replace("-", "−")


def is_share(metric: str) -> bool:
    """Tell whether a metric is a share between 0 and 1."""
    return metric in _PERCENT


def clean(text: str) -> str:
    """Make text that another machine has sent safe to print: no control characters, no line breaks."""
    return "".join(char if char.isprintable() else " " if char.isspace() else "�" for char in text)


def ledger_entry(statement: PrivacyStatement | None) -> str:
    """Number and beginning of the digest of the ledger's entry that a release was charged with."""
    witness = statement and statement.ledger
    return f"{witness.sequence} {witness.digest[:8]}" if witness else "–"


def moment(time: str) -> str:
    """An ISO 8601 time in UTC as ``2025-01-31 12:00:00``."""
    return time[:19].replace("T", " ")
