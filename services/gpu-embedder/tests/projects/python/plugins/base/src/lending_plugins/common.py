"""`lending_plugins` is a namespace package: it lies in three folders, none of them with an `__init__.py`."""


class Plugin:
    name = ""
