"""Numbers as people are shown them: amounts, times, powers of ten."""

UNITS = (("s", 1.0), ("min", 60.0), ("h", 3600.0), ("days", 86_400.0))

RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def amount(number: float) -> str:
    """A number in three digits: 950, 12.8k, 2.5M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def duration(seconds: float | None) -> str:
    """A time in two digits or so: 45 s, 12 min, 3.4 h."""
    if seconds is None:
        return "–"
    unit, size = [pair for pair in UNITS if seconds >= 1.5 * pair[1] or pair is UNITS[0]][-1]
    number = seconds / size
    return f"{number:.1f} {unit}" if number < 9.95 and size > 1 else f"{number:.0f} {unit}"


def scientific(number: float) -> str:
    """A large number in two digits: 4.2·10¹²."""
    if not number:
        return "0"
    digits, _, exponent = f"{number:.1e}".partition("e")
    return f"{digits}·10{str(int(exponent)).translate(RAISED)}"
