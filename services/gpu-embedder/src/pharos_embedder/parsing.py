"""One file: bytes in, definitions, references, imports and chunks out. Pure, and iterative all the way down.

Parsing holds the interpreter lock and can take for ever on hostile input, so call it through `parse_pool`.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

from tree_sitter import Node, QueryCursor

from pharos_embedder.chunking import split
from pharos_embedder.cpp_macros import without_macros
from pharos_embedder.declarators import declared
from pharos_embedder.doc_comments import comment_above
from pharos_embedder.import_statements import (
    first_child,
    imports_of,
    rust_path,
    with_candidates,
    with_distinct_paths,
)
from pharos_embedder.languages import PARSED_LANGUAGES, grammar_of
from pharos_embedder.syntax import DECLARATION, Definition, Import, ParsedFile, ParseOptions, Reference
from pharos_embedder.text_encoding import decode

_DEFINITIONS_MAX: Final = 10_000
_MACROS_MAX: Final = 1_000
"""What has more is a map of registers, made by a program; some repositories have a thousand such headers."""
_REFERENCES_MAX: Final = 5_000
_IMPORTS_MAX: Final = 2_000
_DOCSTRING_CHARS_MAX: Final = 1_000
_SYMBOL_CHARS_MAX: Final = 300

_WRAPPERS: Final = frozenset({"decorated_definition", "export_statement", "template_declaration"})
"""Nodes that belong to the one definition in them."""

_SINGLE_WRAPPERS: Final = frozenset(
    {
        "lexical_declaration",
        "variable_declaration",
        "type_declaration",
        "const_declaration",
        "var_declaration",
        "expression_statement",
        "ambient_declaration",
    }
)
"""Nodes that belong to a definition if it is the only one in them."""

_TYPE_KINDS: Final = frozenset({"class", "interface", "struct", "union", "enum", "trait", "object", "scope"})
_PREPROCESSED: Final = frozenset({"c", "cpp"})
"""Languages in which a macro that only the preprocessor knows reads as an error: a few are nobody's fault."""
_BROKEN_SHARE_MIN: Final = 0.1

_PARTS: Final = frozenset({"name", "receiver"})
"""Captures that are a part of a definition; the one beside them is its kind."""

_PATH_KINDS: Final = frozenset({"scope", "namespace"})
"""Parts of symbols that are no definitions: an `impl` makes its functions methods, a namespace does not."""

_NAMESPACES_ARE_PACKAGES: Final = frozenset({"csharp", "php", "scala"})
"""Languages in which one namespace around a whole file is only an older way to write its package clause."""

_RAW: Final = "r#"
"""Before a name of Rust that is a word of the language too: no part of the name."""

_PATH_SEPARATOR: Final = re.compile(r"\s*(?:::|\\)\s*")
_RECEIVER_TYPE: Final = re.compile(r"(\w+)\s*(?:\[[^\]]*\]|<.*>)?\s*[)?]?\s*$", re.DOTALL)
_NAME_MATTER: Final = re.compile(r"[<\[].*", re.DOTALL)


class NotText(ValueError):
    """The bytes are not text in any encoding that is read here."""


def parse(path: str, language: str, source: bytes, options: ParseOptions | None = None) -> ParsedFile:
    """The file at *path*, parsed by the grammar of *language* where there is one, and cut into chunks.

    Broken syntax is a warning, and what could be read of it is kept. Raises NotText for binary content.
    """
    options = options or ParseOptions()
    text = decode(source)
    if text is None:
        raise NotText(path)
    facts = _Facts()
    root: Node | None = None
    warning: str | None = None
    if language in PARSED_LANGUAGES and not options.plain:
        root, facts = _read_tree(language, text)
        if root.has_error and (
            language not in _PREPROCESSED or facts.broken_bytes >= _BROKEN_SHARE_MIN * len(source)
        ):
            warning = "The syntax is broken in places: what could be read of it was indexed."
    return ParsedFile(
        path=path,
        language=language,
        size=len(source),
        line_count=text.count("\n") + (not text.endswith("\n") and bool(text)),
        content_hash=hashlib.blake2b(source, digest_size=16).hexdigest(),
        package=facts.package,
        definitions=facts.definitions,
        references=facts.references,
        imports=facts.imports,
        chunks=split(
            text,
            path=path,
            language=language,
            root=root,
            definitions=facts.definitions,
            size_chars=options.size_chars,
            overlap_chars=options.overlap_chars,
        ),
        has_errors=root is not None and root.has_error,
        warning=warning,
    )


class _Facts(NamedTuple):
    definitions: tuple[Definition, ...] = ()
    references: tuple[Reference, ...] = ()
    imports: tuple[Import, ...] = ()
    package: str = ""
    broken_bytes: int = 0


class _Found(NamedTuple):
    """A definition as matched: `node` is its range with decorators and `export`, `core` without.

    `owner` is what the definition itself says it belongs to (the receiver of a Go method, the class of a C++
    method that is defined outside of it); what does not `hold` others may still lie around them.
    """

    start: int
    end: int
    pattern: int
    kind: str
    name: str
    core: Node
    node: Node
    owner: str
    holds: bool


class _Open(NamedTuple):
    """A definition that others may lie in."""

    start: int
    end: int
    symbol: str
    kind: str


def _read_tree(language: str, text: str) -> tuple[Node, _Facts]:
    source = text.encode("utf-8")
    grammar = grammar_of(language)
    grammar.parser.reset()
    readable = without_macros(text).encode("utf-8") if language == "cpp" else source
    root = grammar.parser.parse(readable).root_node
    found: dict[int, _Found] = {}
    used: dict[bytes, _Uses] = {}
    imports: list[Import] = []
    package = ""
    broken_bytes = broken_end = macros = 0
    foreign: Counter[str] = Counter()
    for pattern, captures in QueryCursor(grammar.query).matches(root):
        if (nodes := captures.get("reference")) is not None:  # three of four matches
            byte = nodes[0].start_byte
            word = source[byte : nodes[0].end_byte]
            if (known := used.get(word)) is None:
                used[word] = _Uses(nodes[0], byte)
            else:
                known.add(nodes[0], byte)
        elif "name" in captures:
            macros += "macro" in captures
            if "macro" in captures and macros > _MACROS_MAX:
                continue
            _keep(found, captures["name"][0], _definition(pattern, captures))
        elif "declarator" in captures:
            if (one := declared(captures["declarator"][0])) is not None:
                holds = one.kind not in {DECLARATION, "variable"}
                _keep(found, one.name_node, _found(pattern, one.kind, one.name, one.core, one.owner, holds))
        elif "import" in captures:
            imports.extend(imports_of(language, captures["import"][0]))
        elif "path" in captures:
            imports.extend(rust_path(captures["path"][0]))
        elif "package" in captures:
            clause = "".join(_text(captures["package"][0]).split())
            package = f"{package}.{clause}" if package else clause  # Scala may take it in several steps
        elif "foreign" in captures:
            foreign[_text(captures["foreign"][0])] += 1
        elif "error" in captures:
            start, end = captures["error"][0].byte_range
            broken_bytes += max(0, end - max(start, broken_end))
            broken_end = max(end, broken_end)
    if not package and language in _NAMESPACES_ARE_PACKAGES:
        package = _take_package(root, found)
    counts = {word.decode("utf-8", "replace").removeprefix(_RAW): uses for word, uses in used.items()}
    if language == "java":
        imports = with_candidates(imports, counts)
    elif language == "rust":
        imports = with_distinct_paths(imports)
    for name, times in foreign.items():
        if name in counts:
            counts[name].count -= times
    facts = _Facts(
        definitions=_qualified(language, found, text),
        references=_references(counts),
        imports=tuple(sorted(imports, key=lambda one: one.line)[:_IMPORTS_MAX]),
        package=package,
        broken_bytes=broken_bytes,
    )
    return root, facts


def _text(node: Node | None) -> str:
    return "" if node is None or node.text is None else node.text.decode("utf-8", "replace")


class _Uses:
    """Where a name is used first, and how often."""

    __slots__ = ("byte", "count", "node")

    def __init__(self, node: Node, byte: int) -> None:
        self.node = node
        self.byte = byte
        self.count = 1

    def add(self, node: Node, byte: int) -> None:
        self.count += 1
        if byte < self.byte:
            self.byte, self.node = byte, node


def _references(counts: Mapping[str, _Uses]) -> tuple[Reference, ...]:
    """In the order of the lines of their first uses."""
    placed = [
        (uses.node.start_point[0] + 1, name, uses.count) for name, uses in counts.items() if uses.count > 0
    ]
    placed.sort()
    return tuple(
        [Reference(name=name, line=line, count=count) for line, name, count in placed[:_REFERENCES_MAX]]
    )


def _take_package(root: Node, found: dict[int, _Found]) -> str:
    """The one namespace around a whole file, out of *found*: it is said once, not in each symbol."""
    outermost = [key for key, one in found.items() if one.kind == "namespace" and one.core.parent == root]
    if len(outermost) != 1:
        return ""
    return "".join(_text(found.pop(outermost[0]).core.child_by_field_name("name")).split())


def _keep(found: dict[int, _Found], name: Node, candidate: _Found) -> None:
    """Of several patterns that match one name, the first in the query counts."""
    known = found.get(name.start_byte)
    if known is None or known.pattern > candidate.pattern:
        found[name.start_byte] = candidate


def _definition(pattern: int, captures: Mapping[str, list[Node]]) -> _Found:
    kind = next(kind for kind in captures if kind not in _PARTS and kind[0] != "_")
    core = captures[kind][0]
    name = " ".join(_text(captures["name"][0]).split()).strip("'\"&: ").removeprefix(_RAW)
    owner = ""
    if kind in _PATH_KINDS:
        name = _NAME_MATTER.sub("", name).rstrip("? ")
    if kind == "namespace":
        name = _PATH_SEPARATOR.sub(".", name)
    elif "::" in name:
        owner, _, name = name.rpartition("::")
        owner = "" if kind == "scope" else owner.strip(":").replace("::", ".")
    if "receiver" in captures:
        typed = _RECEIVER_TYPE.search(_text(captures["receiver"][0])[-_SYMBOL_CHARS_MAX:])
        owner = typed[1] if typed else ""
    if kind == "constant" and core.parent and core.parent.type == "expression_statement":  # of Python
        kind = "constant" if name.isupper() else "variable"
    return _found(pattern, kind, name, core, owner, core.type != "type_definition")


def _found(pattern: int, kind: str, name: str, core: Node, owner: str, holds: bool) -> _Found:
    node = core
    while (parent := node.parent) is not None and (
        parent.type in _WRAPPERS or (parent.type in _SINGLE_WRAPPERS and parent.named_child_count == 1)
    ):
        node = parent
    return _Found(node.start_byte, node.end_byte, pattern, kind, name, core, node, owner, holds)


def _qualified(language: str, found: Mapping[int, _Found], text: str) -> tuple[Definition, ...]:
    """The definitions in the order of the source, each under the path of those around it."""
    lines = text.split("\n") if found and language != "python" else []
    around: list[_Open] = []
    made: list[Definition] = []
    for one in sorted(found.values(), key=lambda item: (item.start, -item.end, item.pattern)):
        # Names of one range, as in `int a, b;`, stand side by side.
        while around and (around[-1].end <= one.start or around[-1][:2] == (one.start, one.end)):
            around.pop()
        outer, parent_kind = around[-1][2:] if around else ("", "")
        symbol = ".".join(part for part in (outer, one.owner, one.name) if part)
        if len(symbol) > _SYMBOL_CHARS_MAX:
            symbol = one.name[:_SYMBOL_CHARS_MAX]
        if one.holds:
            around.append(_Open(one.start, one.end, symbol, one.kind))
        if one.kind in _PATH_KINDS or not one.name or len(made) >= _DEFINITIONS_MAX:
            continue
        start_line, end_line = _line_range(one.node)
        kind = "method" if one.kind == "function" and parent_kind in _TYPE_KINDS else one.kind
        docstring = (
            _python_docstring(one.core)
            if language == "python"
            else comment_above(lines, start_line, language)
        )
        made.append(
            Definition(
                name=one.name[:_SYMBOL_CHARS_MAX],
                symbol=symbol,
                kind=kind,
                start_line=start_line,
                end_line=end_line,
                start_byte=one.start,
                end_byte=one.end,
                docstring=docstring[:_DOCSTRING_CHARS_MAX],
            )
        )
    return tuple(made)


def _line_range(node: Node) -> tuple[int, int]:
    """1-based inclusive lines; a node that ends at the start of a line does not reach into it."""
    end_row, end_column = node.end_point
    start_row = node.start_point[0]
    return start_row + 1, max(end_row + (end_column > 0), start_row + 1)


def _python_docstring(core: Node) -> str:
    first = first_child(core.child_by_field_name("body"))
    if first is None or first.type != "expression_statement" or first.named_child_count != 1:
        return ""
    string = first_child(first)
    if string is None or string.type != "string":
        return ""
    if {"f", "b"} & set(_text(string.child(0)).lower()):  # neither documents anything
        return ""
    content = next((child for child in string.named_children if child.type == "string_content"), None)
    return inspect.cleandoc(_text(content).replace("\r\n", "\n")).strip() if content is not None else ""
