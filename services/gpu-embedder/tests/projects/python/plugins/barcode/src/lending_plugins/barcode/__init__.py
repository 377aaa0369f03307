from lending_plugins.common import Plugin

from . import utils
from .reader import read_barcode


class BarcodePlugin(Plugin):
    name = utils.clean(" barcode ")
    read = staticmethod(read_barcode)
