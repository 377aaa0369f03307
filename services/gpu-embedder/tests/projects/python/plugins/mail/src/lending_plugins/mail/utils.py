import smtplib
from email.message import EmailMessage

from lending.models.book import Book


def send(text: str, book: Book | None = None) -> None:
    smtplib.SMTP("localhost").send_message(EmailMessage())
