"""`.gitignore` and `.gitattributes` of a tree, asked about one path at a time.

The patterns are `pathspec`'s. They become regular expressions that backtrack, and the repository is a
stranger's, so a pattern with more wildcards than anyone writes by hand is not honoured, and the number of
patterns is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from pathspec import GitIgnoreSpec
from pathspec.patterns.gitignore import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

PATTERN_FILE_BYTES_MAX: Final = 256 * 1024
_PATTERNS_MAX: Final = 2_000
_PATTERN_CHARS_MAX: Final = 500
_WILDCARDS_MAX: Final = 6
_WILDCARDS_SEGMENT_MAX: Final = 3
_GROUP_NAME: Final = re.compile(r"\(\?P<\w+>")
_STARS: Final = re.compile(r"\*+")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"\s+(.*)')


class IgnoreRules:
    """The `.gitignore` files met so far: each is added before anything in its folder is asked about."""

    def __init__(self) -> None:
        self._specs: dict[str, tuple[re.Pattern[str], GitIgnoreSpec]] = {}

    def add(self, folder: str, text: str) -> None:
        """The `.gitignore` *text* of *folder* ("" is the root)."""
        patterns = list(_patterns(text.splitlines()))
        if patterns:
            self._specs[folder] = _any_of(patterns), GitIgnoreSpec(patterns)

    def ignores(self, path: str, *, is_folder: bool) -> bool:
        """Whether *path* itself is ignored; the deepest file that says anything decides.

        A folder that is ignored must not be entered: git lets nothing below it back in.
        """
        asked = f"{path}/" if is_folder else path
        folder = path.rpartition("/")[0]
        while True:
            known = self._specs.get(folder)
            if known is not None:
                inner = asked[len(folder) + 1 :] if folder else asked
                any_of, spec = known
                if any_of.search(inner) is not None:  # nearly every path is of no pattern: one search for all
                    verdict = spec.check_file(inner).include
                    if verdict is not None:
                        return verdict
            if not folder:
                return False
            folder = folder.rpartition("/")[0]


class AttributeRules:
    """The `.gitattributes` files met so far."""

    def __init__(self) -> None:
        self._rules: dict[str, list[tuple[GitIgnoreSpecPattern, bool, dict[str, str]]]] = {}
        self.overrides_vendored = False

    def add(self, folder: str, text: str) -> None:
        """The `.gitattributes` *text* of *folder* ("" is the root)."""
        rules: list[tuple[GitIgnoreSpecPattern, bool, dict[str, str]]] = []
        for line in text.splitlines()[:_PATTERNS_MAX]:
            pattern_text, words = _attribute_line(line)
            if not words or pattern_text.startswith(("[attr]", "!")):
                continue
            values = _attribute_values(words)
            self.overrides_vendored |= values.get("linguist-vendored") == "false"
            rules.extend(
                (pattern, pattern_text.endswith("/**"), values) for pattern in _patterns([pattern_text])
            )
        if rules:
            self._rules[folder] = rules

    def of(self, path: str) -> dict[str, str]:
        """Attribute → `true`, `false` or its value; a deeper file wins, and in one file the last line."""
        made: dict[str, str] = {}
        folders = [""]
        parts = path.split("/")[:-1]
        folders.extend("/".join(parts[: count + 1]) for count in range(len(parts)))
        for folder in folders:
            for pattern, below, values in self._rules.get(folder, ()):
                found = pattern.match_file(path[len(folder) + 1 :] if folder else path)
                # A pattern that names a folder says nothing of the files in it, unlike in .gitignore.
                if found is not None and (below or found.match.groupdict().get("ps_d") is None):
                    made.update(values)
        return made


def _any_of(patterns: Sequence[GitIgnoreSpecPattern]) -> re.Pattern[str]:
    """What finds something in a path where any of *patterns* does."""
    expressions = (pattern.regex.pattern for pattern in patterns if pattern.regex is not None)
    return re.compile("|".join(f"(?:{_GROUP_NAME.sub('(?:', each)})" for each in expressions))


def _patterns(lines: list[str]) -> Iterator[GitIgnoreSpecPattern]:
    for line in lines[:_PATTERNS_MAX]:
        stars = len(_STARS.findall(line))
        crowded = any(len(_STARS.findall(segment)) > _WILDCARDS_SEGMENT_MAX for segment in line.split("/"))
        if len(line) > _PATTERN_CHARS_MAX or stars > _WILDCARDS_MAX or crowded:
            continue
        try:
            pattern = GitIgnoreSpecPattern(line)
        except (GitIgnorePatternError, ValueError, re.error):
            continue  # git passes over a pattern that it cannot read, too
        if pattern.regex is not None:
            yield pattern


def _attribute_line(line: str) -> tuple[str, list[str]]:
    line = line.strip()
    if not line or line.startswith("#"):
        return "", []
    if (quoted := _QUOTED.match(line)) is not None:
        return quoted[1].replace('\\"', '"'), quoted[2].split()
    pattern, *words = line.split()
    return pattern, words


def _attribute_values(words: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for word in words:
        name, assigned, value = word.partition("=")
        if assigned:
            values[name] = value.lower()
        elif word == "binary":
            values["binary"] = "true"
            values["text"] = "false"
        elif word.startswith("-"):
            values[word[1:]] = "false"
        elif not word.startswith("!"):
            values[word] = "true"
    return values
