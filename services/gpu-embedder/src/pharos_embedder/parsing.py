"""One file: bytes in, definitions, references, imports and chunks out. Pure, and iterative all the way down.

Parsing holds the interpreter lock and can take for ever on hostile input, so call it through `parse_pool`.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from tree_sitter import Node, QueryCursor

from pharos_embedder.chunking import split
from pharos_embedder.import_statements import (
    first_child,
    imports_of,
    rust_path,
    with_candidates,
    with_distinct_paths,
)
from pharos_embedder.languages import PARSED_LANGUAGES, grammar_of
from pharos_embedder.syntax import Definition, Import, ParsedFile, ParseOptions, Reference
from pharos_embedder.text_encoding import decode

_DEFINITIONS_MAX: Final = 10_000
_REFERENCES_MAX: Final = 5_000
_IMPORTS_MAX: Final = 2_000
_SIGNATURE_CHARS_MAX: Final = 200
_DOCSTRING_CHARS_MAX: Final = 1_000
_DOC_LINES_MAX: Final = 100
_SYMBOL_CHARS_MAX: Final = 300

_WRAPPERS: Final = frozenset({"decorated_definition", "export_statement"})
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

_TYPE_KINDS: Final = frozenset({"class", "interface", "struct", "enum", "trait", "scope"})
_RECEIVER_TYPE: Final = re.compile(rb"(\w+)\s*(?:\[[^\]]*\])?\s*\)\s*$")
_NAME_MATTER: Final = re.compile(r"<.*", re.DOTALL)
_COMMENT_MARKS: Final = re.compile(r"^\s*(?:///?!?|/\*\*?!?|\*/|\*|#)[ \t]?|\s*\*/\s*$")


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
        if root.has_error:
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


class _Found(NamedTuple):
    """A definition as matched: `node` is its range with decorators and `export`, `core` without."""

    start: int
    end: int
    pattern: int
    kind: str
    name: str
    core: Node
    node: Node
    receiver: str


def _read_tree(language: str, text: str) -> tuple[Node, _Facts]:
    source = text.encode("utf-8")
    grammar = grammar_of(language)
    grammar.parser.reset()
    root = grammar.parser.parse(source).root_node
    found: dict[int, _Found] = {}
    counts: dict[str, list[int]] = {}
    imports: list[Import] = []
    package = ""
    for pattern, captures in QueryCursor(grammar.query).matches(root):
        if "reference" in captures:
            _count(captures["reference"][0], counts)
        elif "name" in captures:
            candidate = _definition(pattern, captures)
            key = captures["name"][0].start_byte
            if key not in found or found[key].pattern > pattern:
                found[key] = candidate
        elif "import" in captures:
            imports.extend(imports_of(language, captures["import"][0]))
        elif "path" in captures:
            imports.extend(rust_path(captures["path"][0]))
        elif "package" in captures:
            package = "".join(_text(captures["package"][0]).split())
    if language == "java":
        imports = with_candidates(imports, counts)
    elif language == "rust":
        imports = with_distinct_paths(imports)
    facts = _Facts(
        definitions=_qualified(language, found, source, text),
        references=tuple(
            Reference(name=name, line=line, count=count)
            for name, (line, count) in sorted(counts.items(), key=lambda item: (item[1][0], item[0]))
        )[:_REFERENCES_MAX],
        imports=tuple(sorted(imports, key=lambda one: one.line)[:_IMPORTS_MAX]),
        package=package,
    )
    return root, facts


def _text(node: Node) -> str:
    return "" if node.text is None else node.text.decode("utf-8", "replace")


def _count(node: Node, counts: dict[str, list[int]]) -> None:
    name, line = _text(node), node.start_point[0] + 1
    known = counts.get(name)
    if known is None:
        counts[name] = [line, 1]
    else:
        known[0] = min(known[0], line)
        known[1] += 1


def _definition(pattern: int, captures: Mapping[str, list[Node]]) -> _Found:
    kind, core = next(
        (kind, nodes[0]) for kind, nodes in captures.items() if kind not in {"name", "receiver"}
    )
    name = _NAME_MATTER.sub("", _text(captures["name"][0])).strip("'\"& ").rsplit("::", 1)[-1]
    receiver = ""
    if "receiver" in captures:
        typed = _RECEIVER_TYPE.search(captures["receiver"][0].text or b"")
        receiver = typed[1].decode("utf-8", "replace") if typed else ""
    if kind == "constant" and core.type == "assignment" and not name.isupper():
        kind = "variable"
    node = core
    while (parent := node.parent) is not None and (
        parent.type in _WRAPPERS or (parent.type in _SINGLE_WRAPPERS and parent.named_child_count == 1)
    ):
        node = parent
    return _Found(node.start_byte, node.end_byte, pattern, kind, name, core, node, receiver)


def _qualified(
    language: str, found: Mapping[int, _Found], source: bytes, text: str
) -> tuple[Definition, ...]:
    """The definitions in the order of the source, each under the path of those around it."""
    lines = text.split("\n") if found else []
    around: list[tuple[int, str, str]] = []  # (end byte, symbol, kind) of what is open
    made: list[Definition] = []
    for one in sorted(found.values(), key=lambda item: (item.start, -item.end, item.pattern)):
        while around and around[-1][0] <= one.start:
            around.pop()
        parent, parent_kind = around[-1][1:] if around else (one.receiver, "")
        symbol = f"{parent}.{one.name}" if parent else one.name
        if len(symbol) > _SYMBOL_CHARS_MAX:
            symbol = one.name[:_SYMBOL_CHARS_MAX]
        around.append((one.end, symbol, one.kind))
        if one.kind == "scope" or not one.name or len(made) >= _DEFINITIONS_MAX:
            continue
        start_line, end_line = _line_range(one.node)
        kind = "method" if one.kind == "function" and parent_kind in _TYPE_KINDS else one.kind
        docstring = _python_docstring(one.core) if language == "python" else _comment_above(lines, start_line)
        made.append(
            Definition(
                name=one.name[:_SYMBOL_CHARS_MAX],
                symbol=symbol,
                kind=kind,
                start_line=start_line,
                end_line=end_line,
                start_byte=one.start,
                end_byte=one.end,
                signature=_signature(one.core, source),
                docstring=docstring[:_DOCSTRING_CHARS_MAX],
            )
        )
    return tuple(made)


def _line_range(node: Node) -> tuple[int, int]:
    """1-based inclusive lines; a node that ends at the start of a line does not reach into it."""
    end_row, end_column = node.end_point
    start_row = node.start_point[0]
    return start_row + 1, max(end_row + (end_column > 0), start_row + 1)


def _signature(core: Node, source: bytes) -> str:
    body = core.child_by_field_name("body")
    if body is None and (value := core.child_by_field_name("value")) is not None:
        body = value.child_by_field_name("body")
    if body is None and (inner := core.child_by_field_name("type")) is not None and inner.named_child_count:
        body = inner.named_child(inner.named_child_count - 1) if core.type == "type_spec" else None
    end = body.start_byte if body is not None and body.start_byte > core.start_byte else core.end_byte
    head = source[core.start_byte : min(end, core.start_byte + 4 * _SIGNATURE_CHARS_MAX)]
    words = head.decode("utf-8", "ignore")
    if body is None:
        return " ".join(words.partition("\n")[0].split())[:_SIGNATURE_CHARS_MAX]
    return " ".join(words.split()).rstrip(" {:=>(")[:_SIGNATURE_CHARS_MAX]


def _python_docstring(core: Node) -> str:
    first = first_child(core.child_by_field_name("body"))
    if first is None or first.type != "expression_statement" or first.named_child_count != 1:
        return ""
    string = first_child(first)
    if string is None or string.type != "string":
        return ""
    content = next((child for child in string.named_children if child.type == "string_content"), None)
    return inspect.cleandoc(_text(content)) if content is not None else ""


def _comment_above(lines: list[str], start_line: int) -> str:
    """The comment that ends just before *start_line*; attributes and annotations between do not count."""
    at = start_line - 2
    floor = max(0, at - _DOC_LINES_MAX)
    while at >= floor and lines[at].lstrip().startswith(("#[", "@")):
        at -= 1
    last = at
    if at >= floor and lines[at].rstrip().endswith("*/"):
        while at >= floor and "/*" not in lines[at]:
            at -= 1
        if at < floor or not lines[at].lstrip().startswith("/*"):
            return ""
        first = at
    else:
        while at >= floor and lines[at].lstrip().startswith("//"):
            at -= 1
        first = at + 1
    cleaned = (_COMMENT_MARKS.sub("", line.rstrip()).rstrip() for line in lines[first : last + 1])
    return "\n".join(cleaned).strip()
