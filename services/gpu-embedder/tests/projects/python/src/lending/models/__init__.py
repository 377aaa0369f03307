from .book import Book
from .member import member

__all__ = ["Book", "member"]
