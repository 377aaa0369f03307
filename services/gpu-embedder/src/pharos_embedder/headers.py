"""Whether a `.h` file is C or C++, which its name does not say: its neighbours do. Pure."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Mapping
from typing import Final

_FAMILY: Final = frozenset({"c", "cpp"})


def cpp_headers(languages: Mapping[str, str]) -> frozenset[str]:
    """The `.h` files that are C++ among the files path → language of one repository.

    A source of the same name beside the header decides. Else it is the nearest folder, from the header's own
    up to the root, that has sources of either language in it or below: the header is C++ if no fewer of them
    are C++ than C. Where there are none at all it is C.
    """
    headers = [path for path in languages if path.endswith((".h", ".H")) and languages[path] in _FAMILY]
    if not headers:
        return frozenset()
    beside: dict[str, str] = {}
    sources: dict[str, Counter[str]] = {}
    for path, language in languages.items():
        if language not in _FAMILY or path.endswith((".h", ".H")):
            continue
        stem = posixpath.splitext(path)[0]
        beside[stem] = "c" if "c" in (language, beside.get(stem)) else language
        folder = posixpath.dirname(path)
        while True:
            sources.setdefault(folder, Counter())[language] += 1
            if not folder:
                break
            folder = posixpath.dirname(folder)
    return frozenset(path for path in headers if _language(path, beside, sources) == "cpp")


def _language(path: str, beside: Mapping[str, str], sources: Mapping[str, Counter[str]]) -> str:
    if (language := beside.get(posixpath.splitext(path)[0])) is not None:
        return language
    folder = posixpath.dirname(path)
    while folder and folder not in sources:
        folder = posixpath.dirname(folder)
    counts = sources.get(folder, Counter())
    return "cpp" if counts["cpp"] and counts["cpp"] >= counts["c"] else "c"
