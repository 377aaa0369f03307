import re

from .utils import clean


def read_barcode(line: str) -> str:
    return re.sub(r"\D", "", clean(line))
