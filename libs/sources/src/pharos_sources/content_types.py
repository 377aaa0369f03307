"""What the name of a file says of its content. Pure: Python's own table, not that of the machine."""

from __future__ import annotations

import mimetypes
from typing import Final

_TABLE: Final = mimetypes.MimeTypes(filenames=())
_TABLE.add_type("text/markdown", ".md")
_TABLE.add_type("text/markdown", ".markdown")
_TABLE.add_type("application/x-ipynb+json", ".ipynb")


def of_name(name: str) -> str | None:
    """The media type that the ending of *name* stands for; None for an unknown or a compressed one."""
    kind, encoding = _TABLE.guess_type(name.rpartition("/")[2])
    return kind if encoding is None else None
