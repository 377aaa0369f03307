from dataclasses import dataclass

from ..types import Identifier


@dataclass
class Book:
    isbn: Identifier
    title: str
