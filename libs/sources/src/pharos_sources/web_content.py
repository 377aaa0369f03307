"""What a server says that it serves: its kind, and whether Pharos reads that kind. Pure.

The words of the server are taken for what they are worth: a kind that says nothing, or less than the name of
the file does, is replaced by what the name says.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote

NAME_LENGTH_MAX: Final = 255

_MEDIA_TYPE: Final = re.compile(r"[ \t]*(?P<kind>[a-z]{1,30}/[a-z0-9!#$&^_.+-]{1,127})[ \t]*(?:;|$)", re.I)
_CHARSET: Final = re.compile(r";[ \t]*charset=\"?(?P<charset>[A-Za-z0-9][A-Za-z0-9._:-]{0,39})\"?", re.I)
_FILE_NAME: Final = re.compile(
    r";[ \t]*filename=(?:\"(?P<quoted>[^\"]{1,1024})\"|(?P<bare>[^\s;\"]{1,1024}))", re.I
)
_FILE_NAME_UTF8: Final = re.compile(r";[ \t]*filename\*=utf-8'[^']{0,16}'(?P<encoded>[^\s;\"]{1,1024})", re.I)
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

_OFFICE: Final = "application/vnd.openxmlformats-officedocument."
_TEXT_SUFFIXES: Final = (
    "txt text rst adoc asciidoc org srt vtt log tex ini cfg conf properties diff patch "
    "py pyi js mjs cjs jsx ts tsx go java kt kts scala groovy rs c h cc cpp cxx hpp hh cs fs vb rb php swift "
    "m mm sh bash zsh fish ps1 sql r jl lua pl pm ex exs erl hrl hs clj cljs elm dart vue svelte css scss "
    "less proto graphql tf nix zig ml mli lisp el vim cmake gradle"
)
OF_SUFFIX: Final = {
    **dict.fromkeys((f".{suffix}" for suffix in _TEXT_SUFFIXES.split()), "text/plain"),
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "application/xhtml+xml",
    **dict.fromkeys((".md", ".markdown", ".mdx", ".mkd"), "text/markdown"),
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".json": "application/json",
    ".geojson": "application/geo+json",
    **dict.fromkeys((".jsonl", ".ndjson"), "application/x-ndjson"),
    ".ipynb": "application/x-ipynb+json",
    ".xml": "application/xml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".toml": "application/toml",
    ".pdf": "application/pdf",
    **dict.fromkeys((".docx", ".docm", ".dotx"), f"{_OFFICE}wordprocessingml.document"),
    **dict.fromkeys((".pptx", ".pptm", ".ppsx", ".potx"), f"{_OFFICE}presentationml.presentation"),
    **dict.fromkeys((".xlsx", ".xlsm", ".xltx"), f"{_OFFICE}spreadsheetml.sheet"),
}
"""Suffixes of the files that Pharos reads, and their kinds."""

_READ: Final = frozenset(OF_SUFFIX.values()) | {
    "application/javascript",
    "application/x-javascript",
    "application/ecmascript",
    "application/typescript",
    "application/x-yaml",
    "application/ndjson",
    "application/jsonl",
    "application/csv",
    "application/sql",
    "application/graphql",
    "application/x-sh",
    "application/x-python",
    "application/x-python-code",
    "application/x-httpd-php",
    "application/x-tex",
    "application/x-latex",
    "application/x-pdf",
}
# Kinds that the server is believed to know better than the name: a page may be called `/wiki/Node.js`.
_SUFFIX_OF: Final = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "application/pdf": ".pdf",
    f"{_OFFICE}wordprocessingml.document": ".docx",
    f"{_OFFICE}presentationml.presentation": ".pptx",
    f"{_OFFICE}spreadsheetml.sheet": ".xlsx",
}
_ARCHIVES: Final = frozenset({"application/zip", "application/x-zip-compressed"})
# Some servers know no more of a file than that it is one, or that an office document is an archive.
_SAYS_NOTHING: Final = _ARCHIVES | frozenset(
    {
        "",
        "application/octet-stream",
        "binary/octet-stream",
        "application/binary",
        "application/download",
        "application/x-download",
        "application/force-download",
        "application/unknown",
    }
)


class Unreadable(ValueError):
    """Pharos does not read this; `reason` is a clause."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class WebContent:
    """`media_type` is in lower case, without parameters; `name` is a file name, empty where there is none.

    The suffix of the name agrees with the kind: `page.php` that is served as HTML is called `page.php.html`.
    """

    media_type: str
    charset: str | None
    name: str


def content_of(content_type: str, disposition: str, path: str) -> WebContent:
    """What the headers Content-Type and Content-Disposition say of a file at *path*, percent-encoded.

    Raises `Unreadable`.
    """
    name = _name_in(disposition) or file_name(unquote(path))
    match = _MEDIA_TYPE.match(content_type)
    charset = _CHARSET.search(content_type)
    kind = _kind("" if match is None else match["kind"].lower(), name)
    return WebContent(
        media_type=kind,
        charset=None if charset is None else charset["charset"].lower(),
        name=_agreeing(name, kind),
    )


def file_name(text: str) -> str:
    """*text* as the name of a file: one part of a path, nothing unseen in it, at most 255 characters."""
    part = re.split(r"[/\\]", text)[-1]
    seen = "".join(each for each in part if unicodedata.category(each) not in _UNSEEN).strip()
    return "" if seen in {".", ".."} else seen[-NAME_LENGTH_MAX:]


def _kind(said: str, name: str) -> str:
    """The kind of content, by what the server *said* and by the *name*."""
    by_name = OF_SUFFIX.get(PurePosixPath(name).suffix.lower())
    if said in _SAYS_NOTHING:
        if by_name is None and said in _ARCHIVES:
            raise Unreadable("it serves an archive")
        if by_name is None:
            raise Unreadable("the server does not say what it is, and neither does its name")
        return by_name
    if said == "text/plain" and by_name is not None and _is_text(by_name):
        return by_name
    if said in _READ or _is_text(said):
        return said
    raise Unreadable(f"it serves {said}")


def _agreeing(name: str, kind: str) -> str:
    suffix = _SUFFIX_OF.get(kind)
    if not name or suffix is None or OF_SUFFIX.get(PurePosixPath(name).suffix.lower()) == kind:
        return name
    return name[: NAME_LENGTH_MAX - len(suffix)] + suffix


def _is_text(kind: str) -> bool:
    main, _, rest = kind.partition("/")
    return main == "text" or (
        main == "application" and (kind in _TEXTUAL or rest.endswith(("+json", "+xml")))
    )


_TEXTUAL: Final = _READ - {kind for kind in _READ if kind.startswith(_OFFICE) or kind.endswith("pdf")}


def _name_in(disposition: str) -> str:
    encoded = _FILE_NAME_UTF8.search(disposition)
    if encoded is not None:
        return file_name(unquote(encoded["encoded"]))
    plain = _FILE_NAME.search(disposition)
    return "" if plain is None else file_name(plain["quoted"] or plain["bare"])
