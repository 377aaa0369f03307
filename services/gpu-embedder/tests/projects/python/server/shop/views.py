import shop.settings, shop.urls
from lending import Loan, fees


def index() -> object:
    return Loan if shop.settings.DEBUG else fees


def about() -> object:
    return shop.urls.routes
