"""What a server says of a file, and what is made of it: pure."""

from __future__ import annotations

import pytest

from pharos_sources.web_content import OF_SUFFIX, Unreadable, content_of, file_name

DOCX = OF_SUFFIX[".docx"]


@pytest.mark.parametrize(
    ("content_type", "path", "media_type", "name"),
    [
        ("text/html; charset=utf-8", "/", "text/html", ""),
        ("TEXT/HTML", "/a/index.html", "text/html", "index.html"),
        ("text/html", "/wiki/Node.js", "text/html", "Node.js.html"),
        ("text/html", "/page.php", "text/html", "page.php.html"),
        ("application/xhtml+xml", "/a", "application/xhtml+xml", "a.html"),
        ("text/plain", "/a/notes", "text/plain", "notes"),
        ("text/plain; charset=utf-8", "/README.md", "text/markdown", "README.md"),
        ("text/plain", "/a.ipynb", "application/x-ipynb+json", "a.ipynb"),
        ("text/plain", "/main.py", "text/plain", "main.py"),
        ("text/plain", "/a.pdf", "text/plain", "a.pdf"),
        ("text/x-python", "/main.py", "text/x-python", "main.py"),
        ("application/json", "/a.ipynb", "application/json", "a.ipynb"),
        ("application/vnd.api+json", "/a", "application/vnd.api+json", "a"),
        ("application/rss+xml", "/feed", "application/rss+xml", "feed"),
        ("application/pdf", "/download", "application/pdf", "download.pdf"),
        ("application/pdf", "/download?x=1", "application/pdf", "download?x=1.pdf"),
        ("application/octet-stream", "/a.docx", DOCX, "a.docx"),
        ("application/zip", "/a.docx", DOCX, "a.docx"),
        (DOCX, "/a", DOCX, "a.docx"),
        ("", "/a.csv", "text/csv", "a.csv"),
        ("no type", "/a.CSV", "text/csv", "a.CSV"),
        ("binary/octet-stream", "/main.rs", "text/plain", "main.rs"),
    ],
)
def test_what_is_served_is_read_as_what_it_is(
    content_type: str, path: str, media_type: str, name: str
) -> None:
    content = content_of(content_type, "", path)
    assert (content.media_type, content.name) == (media_type, name)


@pytest.mark.parametrize(
    ("content_type", "path", "reason"),
    [
        ("image/svg+xml", "/a.svg", "it serves image/svg+xml"),
        ("image/png", "/a.pdf", "it serves image/png"),
        ("application/x-sqlite3", "/a.txt", "it serves application/x-sqlite3"),
        ("application/zip", "/a.zip", "it serves an archive"),
        ("application/octet-stream", "/a", "the server does not say what it is, and neither does its name"),
        ("", "/a.exe", "the server does not say what it is, and neither does its name"),
        ("text", "/", "the server does not say what it is, and neither does its name"),
        ("x" * 5_000 + "/y", "/", "the server does not say what it is, and neither does its name"),
    ],
)
def test_what_is_not_read_is_refused(content_type: str, path: str, reason: str) -> None:
    with pytest.raises(Unreadable) as refusal:
        content_of(content_type, "", path)
    assert refusal.value.reason == reason


@pytest.mark.parametrize(
    ("content_type", "charset"),
    [
        ("text/html; charset=UTF-8", "utf-8"),
        ('text/html;charset="iso-8859-1"', "iso-8859-1"),
        ("text/html; boundary=x; Charset=windows-1252", "windows-1252"),
        ("text/html", None),
        ("text/html; charset=", None),
        ("text/html; charset=\x1b[2J", None),
    ],
)
def test_the_charset_is_what_the_header_says(content_type: str, charset: str | None) -> None:
    assert content_of(content_type, "", "/").charset == charset


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ("", "path.txt"),
        ("inline", "path.txt"),
        ("attachment; filename=notes.txt", "notes.txt"),
        ('attachment; filename="my notes.txt"', "my notes.txt"),
        ("attachment; filename*=UTF-8''K%C3%B6ln.txt", "Köln.txt"),
        ("attachment; filename=a.txt; filename*=utf-8'de'K%C3%B6ln.txt", "Köln.txt"),
        ('attachment; filename="../../etc/passwd.txt"', "passwd.txt"),
        ('attachment; filename="..\\\\..\\\\boot.txt"', "boot.txt"),
        ("attachment; filename*=UTF-8''%2e%2e%2fevil.txt", "evil.txt"),
        ("attachment; filename=..", "path.txt"),
        ('attachment; filename=""', "path.txt"),
    ],
)
def test_the_name_is_one_part_of_a_path(disposition: str, name: str) -> None:
    assert content_of("text/plain", disposition, "/a/path.txt").name == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("/a/b", "b"),
        ("/a/", ""),
        ("/..", ""),
        ("a\0b\x1b.txt", "ab.txt"),
        ("gpj.\u202etxt.exe", "gpj.txt.exe"),
        ("a\\b", "b"),
        ("x" * 300 + ".txt", "x" * 251 + ".txt"),
    ],
)
def test_a_name_shows_what_it_is(text: str, name: str) -> None:
    assert file_name(text) == name
