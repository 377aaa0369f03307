import lending_plugins.common
from lending_plugins.barcode import read_barcode
from lending_plugins.mail.utils import send


class MailPlugin(lending_plugins.common.Plugin):
    def run(self, line: str) -> None:
        send(read_barcode(line))
