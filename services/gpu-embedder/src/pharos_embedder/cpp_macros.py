"""Macros of C++ that stand where the syntax has nothing: they are blanked, so that what is around them can be
read. Pure.

What only the preprocessor knows hides a whole class from a parser: of `class API Shape final : public Base`
nothing is found, and of what comes after Qt's `public slots:` not much.
"""

from __future__ import annotations

import re
from typing import Final

_BEFORE_A_NAME: Final = re.compile(
    r"(?:class(?<!\wclass)|struct(?<!\wstruct)|union(?<!\wunion))"
    r"[ \t\n\r]{1,9}([A-Z][A-Z0-9_]{1,99})[ \t\n\r]{1,9}"
    r"(?=[A-Za-z_]\w{0,199}(?:[ \t\n\r]{1,9}final\b|[ \t\n\r]{0,9}:(?!:)))"
)
"""Not before a plain body, where it may be the type of a variable (`struct POINT origin{};`). It begins with
letters and not with `\\b`, so that it is looked for eight times as fast.
"""
_SLOTS: Final = re.compile(r"\b(?:public|protected|private)[ \t]{1,9}(Q_SLOTS|slots)[ \t]{0,9}:(?!:)")
_SIGNALS: Final = re.compile(r"^[ \t]*((?:Q_SIGNALS|signals)[ \t]{0,9}:)(?!:)", re.MULTILINE)
_ALONE: Final = re.compile(
    r"^[ \t]*(Q_OBJECT|Q_GADGET|Q_PROPERTY[ \t]?\([^()\n]{0,500}\))[ \t\r]*$", re.MULTILINE
)
_OF_QT: Final = ("Q_", "slots", "signals")


def without_macros(text: str) -> str:
    """*text* with blanks for such macros: every other character is where it was."""
    text = _BEFORE_A_NAME.sub(_blanked, text)
    if any(word in text for word in _OF_QT):  # few files have one, and to search for it all takes longer
        for pattern in (_SLOTS, _SIGNALS, _ALONE):
            text = pattern.sub(_blanked, text)
    return text


def _blanked(found: re.Match[str]) -> str:
    start, end = found.start(1) - found.start(), found.end(1) - found.start()
    whole = found[0]
    return whole[:start] + " " * (end - start) + whole[end:]
