"""The signature of a definition: what stands before its body, on one line.

It was once encoded with each chunk; `bench_context` measures what that was worth.
"""

from __future__ import annotations

import re
from typing import Final

from tree_sitter import Node

from pharos_embedder.languages import PARSED_LANGUAGES, grammar_of
from pharos_embedder.syntax import Definition

_CHARS_MAX: Final = 200
_END: Final = " {:=(;"  # and `=>`

_AROUND: Final = frozenset(
    {
        "decorated_definition",
        "export_statement",
        "template_declaration",
        "lexical_declaration",
        "variable_declaration",
        "type_declaration",
        "const_declaration",
        "var_declaration",
        "expression_statement",
        "ambient_declaration",
    }
)
"""Nodes that belong to the definition in them."""

_BODILESS: Final = frozenset({"declaration", "field_declaration"})
"""Nodes that are a signature from end to end, over several lines too."""

_HASH_COMMENTED: Final = frozenset({"class", "module", "method", "singleton_method"})
"""Nodes of Ruby, in which a comment may stand between the signature and the body."""
_HASH_COMMENT: Final = re.compile(r"(?:^|(?<=\s))#(?!\{).*$", re.MULTILINE)

_BODIES: Final = frozenset({"function_body", "class_body", "enum_class_body"})
"""Last children that are bodies, in a grammar that has no field for them."""


class Signatures:
    """Of the definitions of one file; empty where its language has no grammar."""

    def __init__(self, language: str, text: str) -> None:
        self._source = text.encode()
        tree = grammar_of(language).parser.parse(self._source) if language in PARSED_LANGUAGES else None
        self._root = tree.root_node if tree is not None else None

    def of(self, definition: Definition) -> str:
        """What stands before the body of *definition*, at most 200 characters."""
        if self._root is None:
            return ""
        node = self._root.descendant_for_byte_range(definition.start_byte, definition.end_byte)
        while node is not None and node.type in _AROUND and node.named_child_count:
            inner = node.named_child(node.named_child_count - 1)
            if inner is not None and inner.type == "const_element":  # of PHP, which has several in one
                break
            node = inner
        return _signature(node, self._source) if node is not None else ""


def _signature(core: Node, source: bytes) -> str:
    form, start = core.type, core.start_byte
    body = _body(core, form)
    end = core.end_byte
    if body is not None and (inner := body.start_byte) > start:
        end = inner
    words = source[start : min(end, start + 4 * _CHARS_MAX)].decode("utf-8", "ignore")
    if form in _HASH_COMMENTED:
        words = _HASH_COMMENT.sub("", words)
    if body is None and form not in _BODILESS:
        return " ".join(words.partition("\n")[0].split())[:_CHARS_MAX]
    signature = " ".join(words.split()).rstrip(_END)
    while signature.endswith("=>"):
        signature = signature[:-2].rstrip(_END)
    return signature[:_CHARS_MAX]


def _body(core: Node, form: str) -> Node | None:
    """Where the signature of *core*, a *form*, ends, if it does before *core* itself."""
    if form.startswith("preproc_"):
        return None
    if (body := core.child_by_field_name("body")) is not None:
        return body
    if (body := core.child_by_field_name("accessors")) is not None:
        return body
    if (value := core.child_by_field_name("value")) is not None:
        return value if value.type == "arrow_expression_clause" else value.child_by_field_name("body")
    match form:
        case "type_spec":
            inner = core.child_by_field_name("type")
            count = inner.named_child_count if inner is not None else 0
            return inner.named_child(count - 1) if inner is not None and count else None
        case "declaration":  # of a variable, in C: its initializer
            declarator = core.child_by_field_name("declarator")
            value = declarator.child_by_field_name("value") if declarator is not None else None
            return value if value is not None and value.type == "initializer_list" else None
        case _:
            last = core.named_child(core.named_child_count - 1) if core.named_child_count else None
            return last if last is not None and last.type in _BODIES else None
