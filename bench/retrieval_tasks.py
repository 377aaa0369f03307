"""Questions with known answers, made of public history and of documentation; no network, no judges.

Two kinds. *Commits*: the message of a commit is the question, and the files that it changed are the answer,
asked of the tree as it was before all of those commits. *Docstrings*: the documentation of a function is the
question, and its chunk is the answer, in files from which all documentation of functions was taken
(Husain et al., "CodeSearchNet Challenge", 2019).
"""

from __future__ import annotations

import ast
import io
import random
import re
import subprocess
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from bench.signatures import Signatures
from pharos_embedder.discovery import DiscoveryLimits, discover
from pharos_embedder.languages import PARSED_LANGUAGES, language_of
from pharos_embedder.parsing import parse
from pharos_embedder.syntax import Chunk, Definition, ParsedFile, ParseOptions
from pharos_embedder.text_encoding import decode

COMMITS_BACK: Final = 400
FILES_CHANGED_MAX: Final = 10
FILE_BYTES_MAX: Final = 30_000
QUESTION_CHARACTERS_MAX: Final = 500
DOCSTRING_CHARACTERS_MAX: Final = 300
DOCSTRING_CHARACTERS_MIN: Final = 30

_NO_QUESTION: Final = re.compile(
    r"(?i)^(bump|build\(deps|chore\(deps|release|version|prep|merge|revert|v?\d|update (dep|pre-commit))"
)
_NOISE: Final = re.compile(r"(?im)^(co-authored-by|signed-off-by|reviewed-by|ref:|https?://).*$|\(?#\d+\)?")
_DIARY: Final = re.compile(r"(?i)(^|/)(change|history|news|release)[^/]*$|(^|/)(package-lock|go\.sum)")
_COMMENT: Final = re.compile(r"\s*(///?|/\*|\*|\*/)")
_BETWEEN: Final = re.compile(r"\s*(#\[|@)")


class Passage(NamedTuple):
    """A chunk and what may be put before its text."""

    chunk: Chunk
    overlap: str  # the end of the chunk before, where the cut went through something
    signature: str  # of the definition around it, after the path of names down to that


class Question(NamedTuple):
    """*answers* are paths; for a docstring, also the place of the chunk in the pool, else -1."""

    text: str
    answers: frozenset[str]
    passage: int


class Task(NamedTuple):
    name: str
    passages: list[Passage]
    questions: list[Question]


def commit_task(
    name: str, repository: Path, *, questions_max: int, passages_max: int, draw: random.Random
) -> Task:
    """The files that change most, until there are *passages_max* chunks, and the commits that changed only
    those.

    So a given number of chunks, each of which has to be encoded several times, answers the most questions.
    """
    commits = _git(repository, "rev-list", "--no-merges", f"-n{COMMITS_BACK}", "HEAD").split()
    files = _tree(repository, commits[-1])
    asked: list[tuple[str, frozenset[str]]] = []
    for commit in commits[:-1]:
        message = _git(repository, "log", "-1", "--format=%B", commit)
        text = " ".join(_NOISE.sub("", message).split())[:QUESTION_CHARACTERS_MAX]
        changed = _git(repository, "show", "--format=", "--name-only", "--no-renames", commit).split("\n")
        answers = frozenset(path for path in changed if path in files)
        if 1 <= len(answers) <= FILES_CHANGED_MAX and len(text.split()) >= 4 and not _NO_QUESTION.match(text):
            asked.append((text, answers))
    changes = Counter(path for _, answers in asked for path in answers)
    passages: list[Passage] = []
    pool: set[str] = set()
    for path in sorted(files, key=lambda path: (-changes[path], path)):
        added = passages_of(path, files[path])
        if len(passages) + len(added) <= passages_max:
            passages += added
            pool.add(path)
    questions = [Question(text, answers, -1) for text, answers in asked if answers <= pool]
    draw.shuffle(questions)
    return Task(f"commits: {name}", passages, questions[:questions_max])


def docstring_task(
    name: str, repository: Path, *, questions_max: int, passages_max: int, draw: random.Random
) -> Task:
    """Functions of the same tree, one in three of those that are documented, and the files they are in."""
    commits = _git(repository, "rev-list", "--no-merges", f"-n{COMMITS_BACK}", "HEAD").split()
    files = _tree(repository, commits[-1])
    paths = sorted(files)
    draw.shuffle(paths)
    passages: list[Passage] = []
    questions: list[Question] = []
    for path in paths:
        if len(passages) >= passages_max or len(questions) >= questions_max:
            break
        parsed = _parsed(path, files[path])
        asked = [one for one in _documented(parsed) if draw.random() < 1 / 3]
        if not asked:
            continue
        bare = _without_docstrings(files[path], parsed)
        first = len(passages)
        passages += passages_of(path, bare)
        lines = {one.symbol: one.start_line for one in _parsed(path, bare).definitions}
        for one in asked:
            place = next(
                (
                    number
                    for number in range(first, len(passages))
                    if passages[number].chunk.start_line
                    <= lines.get(one.symbol, 0)
                    <= passages[number].chunk.end_line
                ),
                None,
            )
            if place is not None:
                text = " ".join(one.docstring.split("\n\n")[0].split())[:DOCSTRING_CHARACTERS_MAX]
                questions.append(Question(text, frozenset({path}), place))
    return Task(f"docstrings: {name}", passages, questions[:questions_max])


def passages_of(path: str, text: str) -> list[Passage]:
    """The chunks of a file. What the overlap is shows in the same cut without one."""
    parsed = _parsed(path, text)
    bare = _parsed(path, text, overlap_chars=0)
    signatures = Signatures(parsed.language, text)
    made: list[Passage] = []
    for chunk, without in zip(parsed.chunks, bare.chunks, strict=True):
        overlap = chunk.context[len(without.context) :].lstrip("\n")
        around = _around(chunk, parsed.definitions)
        signature = ""
        if around is not None:
            outer = around.symbol.rpartition(".")[0]
            signature = f"{outer} {signatures.of(around)}".lstrip()[:120]
        made.append(Passage(chunk, overlap, signature))
    return made


def _parsed(path: str, text: str, overlap_chars: int = 100) -> ParsedFile:
    return parse(path, language_of(path), text.encode(), ParseOptions(overlap_chars=overlap_chars))


def _around(chunk: Chunk, definitions: Sequence[Definition]) -> Definition | None:
    """The innermost definition that begins before *chunk* and reaches to its end."""
    text = chunk.text
    start = chunk.start_line + text[: len(text) - len(text.lstrip())].count("\n")
    end = start + text.strip().count("\n")
    around = [one for one in definitions if one.start_line < start and one.end_line >= end]
    return max(around, key=lambda one: one.start_byte, default=None)


def _tree(repository: Path, commit: str) -> dict[str, str]:
    """The texts of *commit* by path, as they would be indexed; not logs of changes, which name everything."""
    archive = subprocess.run(
        ["git", "-C", str(repository), "archive", commit], capture_output=True, check=True
    ).stdout
    files: dict[str, str] = {}
    with TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
        for file in discover(Path(folder), DiscoveryLimits(file_bytes_max=FILE_BYTES_MAX)).files:
            text = decode((Path(folder) / file.path).read_bytes())
            if text is not None and not _DIARY.search(file.path):
                files[file.path] = text
    return files


def _git(repository: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(repository), *arguments],
        capture_output=True,
        check=True,
        text=True,
        errors="replace",
    ).stdout


# ---- functions without their documentation


def _documented(parsed: ParsedFile) -> list[Definition]:
    if parsed.language not in PARSED_LANGUAGES or parsed.has_errors:
        return []
    seen = Counter(one.symbol for one in parsed.definitions)
    return [
        one
        for one in parsed.definitions
        if one.kind in {"function", "method"}
        and seen[one.symbol] == 1
        and len(one.docstring) >= DOCSTRING_CHARACTERS_MIN
        and one.docstring.isascii()
    ]


def _without_docstrings(text: str, parsed: ParsedFile) -> str:
    lines = text.split("\n")
    gone = _python_docstrings(text) if parsed.language == "python" else _comments_above(lines, parsed)
    return "\n".join(line for number, line in enumerate(lines) if number not in gone)


def _python_docstrings(text: str) -> set[int]:
    """0-based lines of docstrings, but for those that are all of a body."""
    gone: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and len(node.body) > 1:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                gone.update(range(first.lineno - 1, first.end_lineno or first.lineno))
    return gone


def _comments_above(lines: Sequence[str], parsed: ParsedFile) -> set[int]:
    gone: set[int] = set()
    for one in parsed.definitions:
        at = one.start_line - 2
        while at >= 0 and _BETWEEN.match(lines[at]):
            at -= 1
        while at >= 0 and _COMMENT.match(lines[at]):
            gone.add(at)
            at -= 1
    return gone
