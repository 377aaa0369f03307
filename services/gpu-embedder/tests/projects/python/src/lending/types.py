"""Has the name of a module of the standard library, and uses that one too."""

from types import SimpleNamespace
from typing import NewType

Identifier = NewType("Identifier", str)
Options = SimpleNamespace
