"""Strings of files, as they may be printed."""

import reprlib
from typing import Any

_LENGTH = 100
# Joiners that Persian and Indic scripts need, and spaces; `str.isprintable` counts them as control.
_PLAIN = "\u200c\u200d\u00a0\u3000"


class _Short(reprlib.Repr):
    """`repr` of the first few values and levels: entries of a file can be of any size and depth."""

    def __init__(self):
        super().__init__()
        self.maxlist = self.maxdict = 4
        self.maxlevel = 3
        self.maxstring = self.maxother = self.maxlong = _LENGTH

    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:  # Python writes no number of more than 4300 digits
            return f"a number of {x.bit_length():,} bits"


_short = _Short()


def shown(value: Any, length: int = _LENGTH) -> str:
    """A value of a file, cut to a length and without what would act on a terminal or a log.

    Those are control characters (a sequence of them can rename a window or hide lines), line
    breaks, marks that turn the direction of writing round, and halves of surrogate pairs, which
    cannot be printed at all. A question mark takes the place of each.

    Args:
        value: text, or anything else, of which the beginning of its `repr` is shown.
        length: in characters.
    """
    text = value if isinstance(value, str) else _short.repr(value)
    text = "".join(c if c.isprintable() or c in _PLAIN else "?" for c in text[: length + 1])
    return text if len(text) <= length else f"{text[: length - 3]}..."
