import pytest

from lending import Catalogue
from lending_plugins import barcode, mail


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue() if barcode and mail else None
