"""What a declarator of C or C++ declares: the name is at the bottom of it, and its kind is above. Pure.

`char **(f)(int x)` is a chain of declarators around the name `f`; `ns::Box<T>::get` names its owner.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tree_sitter import Node

from pharos_embedder.syntax import DECLARATION

_DEPTH_MAX: Final = 64
"""Declarators in each other, and scopes of a name; nobody writes more."""

_NAMES: Final = frozenset(
    {
        "identifier",
        "field_identifier",
        "qualified_identifier",
        "destructor_name",
        "operator_name",
        "operator_cast",
        "template_function",
    }
)
_TRANSPARENT: Final = frozenset({"parenthesized_declarator", "attributed_declarator", "init_declarator"})
"""Declarators that do not change whether what they declare is a function."""

_HOLDERS: Final = frozenset(
    {
        "translation_unit",
        "declaration_list",
        "linkage_specification",
        "template_declaration",
        "field_declaration_list",
    }
)
"""Where a declaration is seen from outside; elsewhere it is a local variable."""

_TYPE_SPECIFIERS: Final = {
    "class_specifier": "class",
    "struct_specifier": "struct",
    "union_specifier": "union",
    "enum_specifier": "enum",
}


class Declared(NamedTuple):
    """A definition or declaration: `owner` is `A.B` for the name `A::B::f`, `core` the whole of it.

    `kind` is function, method, variable, or declaration for what is defined elsewhere.
    """

    kind: str
    name: str
    owner: str
    core: Node
    name_node: Node


def declared(declarator: Node) -> Declared | None:
    """What the outermost *declarator* of a definition or declaration declares; None for what is local."""
    core = declarator.parent
    if core is None or (core.type != "function_definition" and not _is_seen_outside(core)):
        return None
    name_node, is_function = _innermost(declarator)
    if name_node is None:
        return None
    name, owner = _qualified_name(name_node)
    if core.type == "function_definition":
        if is_function:
            name = name if owner else _macro_call(core, declarator) or name
            return Declared("method" if owner else "function", name, owner, core, name_node)
        kind = _misread_type(core)
        return Declared(kind, name, owner, core, name_node) if kind is not None else None
    whole = core if len(core.children_by_field_name("declarator")) == 1 else declarator
    if is_function or (_is_extern(core) and declarator.type != "init_declarator"):
        return Declared(DECLARATION, name, owner, whole, name_node)
    return Declared("variable", name, owner, whole, name_node) if core.type == "declaration" else None


def _is_seen_outside(core: Node) -> bool:
    holder = core.parent
    while holder is not None and holder.type.startswith("preproc_"):
        holder = holder.parent
    if holder is None:
        return False
    if holder.type == "compound_statement":
        return holder.parent is not None and _misread_type(holder.parent) is not None
    return holder.type in _HOLDERS


def _misread_type(core: Node) -> str | None:
    """The kind of a type in `class EXPORT Name { … }`, which reads as a function while EXPORT is unknown."""
    if core.type != "function_definition":
        return None
    specifier, name = core.child_by_field_name("type"), core.child_by_field_name("declarator")
    if specifier is None or name is None or name.type != "identifier":
        return None
    return _TYPE_SPECIFIERS.get(specifier.type)


def _macro_call(core: Node, declarator: Node) -> str | None:
    """`TEST(Suite, Case)`, where what looks like a function without a type is a macro that makes one: its
    first word alone would name hundreds.
    """
    if core.child_by_field_name("type") is not None or declarator.type != "function_declarator":
        return None
    parameters = declarator.child_by_field_name("parameters")
    if core.parent is None or core.parent.type == "field_declaration_list" or parameters is None:
        return None
    given = parameters.named_children
    if not given or not all(
        one.type == "parameter_declaration" and [part.type for part in one.children] == ["type_identifier"]
        for one in given
    ):
        return None
    return _plain(declarator)


def _is_extern(core: Node) -> bool:
    return any(child.type == "storage_class_specifier" and child.text == b"extern" for child in core.children)


def _innermost(declarator: Node) -> tuple[Node | None, bool]:
    """The node of the name, and whether it is a function's: what stands next to the name decides."""
    node, is_function = declarator, False
    for _ in range(_DEPTH_MAX):
        if node.type in _NAMES:
            return node, is_function or _is_cast(node)
        if node.type not in _TRANSPARENT:
            is_function = node.type == "function_declarator"
        inner = node.child_by_field_name("declarator")
        if inner is None:
            inner = next(
                (
                    one
                    for one in node.named_children
                    if one.type in _NAMES or one.type.endswith("_declarator")
                ),
                None,
            )
        if inner is None:
            return None, False
        node = inner
    return None, False


def _is_cast(node: Node) -> bool:
    """Whether *node* is `operator bool()`, which holds its parameters itself."""
    for _ in range(_DEPTH_MAX):
        if node.type != "qualified_identifier" or (name := node.child_by_field_name("name")) is None:
            break
        node = name
    return node.type == "operator_cast"


def _qualified_name(node: Node) -> tuple[str, str]:
    """The last part of a name, and the parts before it joined by dots, template arguments left out."""
    owners: list[str] = []
    for _ in range(_DEPTH_MAX):
        name = node.child_by_field_name("name")
        if node.type != "qualified_identifier" or name is None:
            break
        if (scope := node.child_by_field_name("scope")) is not None:
            owners.append(_plain(scope))
        node = name
    return _plain(node), ".".join(owners)


def _plain(node: Node) -> str:
    if node.type in {"template_type", "template_function"}:
        node = node.child_by_field_name("name") or node
    text = "" if node.text is None else node.text.decode("utf-8", "replace")
    if node.type == "operator_cast":
        text = text.partition("(")[0]
    return " ".join(text.split())
