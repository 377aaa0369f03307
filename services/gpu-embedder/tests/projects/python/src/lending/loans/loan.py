from ..models import Book, member
from ..models import book as book_module

__all__ = ["Loan"]


class Loan:
    def __init__(self, book: Book) -> None:
        self.book = book
        self.owner = member("nobody")

    def get(self) -> Book:
        return self.book if self.book else book_module.Book("", "")
