from lending.models import Book


def make_book(title: str) -> Book:
    return Book("1", title)
