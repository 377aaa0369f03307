"""Import statements of each language, from syntax node to `Import`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
from tree_sitter import Node

from pharos_embedder.syntax import Import, ImportedName

_RUST_PATH: Final = re.compile(
    r"(?<![\w:$])(?:(?<!>)::)?(?!(?:std|core|alloc)::)(?:[a-z_]\w*::)+\w+"  # to the first that is no module
)
_RUST_MODULE: Final = re.compile(r"\bmod\s+(\w+)\s*;")
_RUST_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_RUST_GENERICS: Final = re.compile(r"::<.*|<.*|\s+", re.DOTALL)
_RUST_ATTRIBUTE_PATH: Final = re.compile(r'\bpath\s*=\s*"([^"]+)"')
_RUST_PATH_PARTS: Final = frozenset(
    {
        "scoped_identifier", "scoped_type_identifier", "scoped_use_list", "use_declaration", "use_list",
        "use_as_clause", "use_wildcard", "visibility_modifier", "attribute",
    }
)  # fmt: skip
"""Nodes of which a path is a part, or that are read as a whole."""
_REFERENCED_PATH: Final = re.compile(r"""\bpath\s*=\s*["']([^"']+)["']""")
_WILDCARD: Final = ImportedName(name="*")
_CANDIDATES_MAX: Final = 500
_RUST_PATHS_MAX: Final = 500
"""Names that one `use` tree may spread into."""


def imports_of(language: str, node: Node) -> Iterator[Import]:
    """What the statement *node* imports; nothing where the syntax is broken."""
    return _EXTRACTORS[language](node)


def rust_path(node: Node) -> Iterator[Import]:
    """The paths that are used in place (`crate::config::load()`), each as an import of kind `path`; *node*
    is one path, or what stands between the brackets of a macro, with the modules that are declared there.
    """
    if node.type == "token_tree":
        text = _RUST_STRING.sub('""', _rust_text(node))
        for found in _RUST_PATH.finditer(text):
            yield Import(module=found[0], line=_line(node) + text.count("\n", 0, found.start()), kind="path")
        for found in _RUST_MODULE.finditer(text):
            yield Import(
                module=found[1], line=_line(node) + text.count("\n", 0, found.start()), kind="module"
            )
    elif node.parent is None or node.parent.type not in _RUST_PATH_PARTS:
        path = _RUST_GENERICS.sub("", _rust_text(node))
        if (begin := _RUST_PATH.match(path)) is not None:
            yield Import(module=begin[0], line=_line(node), kind="path")


def with_candidates(imports: Sequence[Import], names: Iterable[str]) -> list[Import]:
    """Java's *imports*, each `p.*` with those of the *names* that the file uses and that may come from there:
    such an import means classes as they are needed.
    """
    named = {one.names[0].name for one in imports if one.names}
    wanted = sorted({name for name in names if name[:1].isupper()} - named)[:_CANDIDATES_MAX]
    candidates = (_WILDCARD, *(ImportedName(name=name) for name in wanted))
    return [
        msgspec.structs.replace(one, names=candidates)
        if one.names == (_WILDCARD,) and one.kind == "import"
        else one
        for one in imports
    ]


def with_distinct_paths(imports: Sequence[Import]) -> list[Import]:
    """Rust's *imports*, each path in place once; what one that begins with `super` means depends on where it
    is.
    """
    made: dict[tuple[str, int], Import] = {}
    for number, one in enumerate(imports):
        is_same_anywhere = one.kind == "path" and not one.module.startswith(("self::", "super::"))
        made.setdefault((one.module if is_same_anywhere else "", 0 if is_same_anywhere else number), one)
    return list(made.values())


def first_child(node: Node | None) -> Node | None:
    """The first named child of *node*, if it has any."""
    return node.named_child(0) if node is not None and node.named_child_count else None


def _text(node: Node | None) -> str:
    return "" if node is None or node.text is None else node.text.decode("utf-8", "replace")


def _line(node: Node) -> int:
    return node.start_point[0] + 1


def _python(node: Node) -> Iterator[Import]:
    if node.type == "import_statement":
        for child in node.children_by_field_name("name"):
            if child.type == "aliased_import":
                module = _text(child.child_by_field_name("name"))
                yield Import(module=module, alias=_text(child.child_by_field_name("alias")), line=_line(node))
            else:
                yield Import(module=_text(child), line=_line(node))
        return
    module = _text(node.child_by_field_name("module_name"))
    name = module.lstrip(". ")
    names = []
    for child in node.children_by_field_name("name"):
        if child.type == "aliased_import":
            alias = _text(child.child_by_field_name("alias"))
            names.append(ImportedName(name=_text(child.child_by_field_name("name")), alias=alias))
        else:
            names.append(ImportedName(name=_text(child)))
    if any(child.type == "wildcard_import" for child in node.named_children):
        names.append(ImportedName(name="*"))
    level = module[: len(module) - len(name)].count(".")
    yield Import(module=name, names=tuple(names), level=level, line=_line(node))


def _string(node: Node | None) -> str:
    return _text(node).strip("'\"`")


def _ecmascript(node: Node) -> Iterator[Import]:
    if node.type == "comment":  # /// <reference path="globals.d.ts" />
        if (found := _REFERENCED_PATH.search(_text(node))) is not None:
            path = found[1] if found[1].startswith((".", "/")) else f"./{found[1]}"
            yield Import(module=path, line=_line(node))
        return
    if node.type == "call_expression":
        first = first_child(node.child_by_field_name("arguments"))
        if first is not None and not any(one.type == "template_substitution" for one in first.named_children):
            taken, whole = _required_names(node)
            yield Import(module=_string(first), names=taken, alias=whole, line=_line(node), kind="require")
        return
    source = node.child_by_field_name("source")
    names: list[ImportedName] = []
    alias = ""
    stack = list(reversed(node.named_children))
    while stack:
        child = stack.pop()
        match child.type:
            case "import_clause" | "named_imports" | "export_clause":
                stack.extend(reversed(child.named_children))
            case "import_specifier" | "export_specifier":
                names.append(
                    ImportedName(
                        name=_string(child.child_by_field_name("name")),
                        alias=_string(child.child_by_field_name("alias")),
                    )
                )
            case "identifier":
                names.append(ImportedName(name="default", alias=_text(child)))
            case "namespace_import" | "namespace_export":
                alias = _text(first_child(child))
            case "import_require_clause":
                alias = _text(first_child(child))
                source = child.child_by_field_name("source")
    if node.type == "export_statement" and not names:
        names.append(ImportedName(name="*"))
    if source is not None:
        kind = "export" if node.type == "export_statement" else "import"
        yield Import(module=_string(source), names=tuple(names), alias=alias, line=_line(node), kind=kind)


def _required_names(node: Node) -> tuple[tuple[ImportedName, ...], str]:
    """The names that `const … = require()` takes, and what it calls the whole."""
    taken = ""
    around = node.parent
    if around is not None and around.type == "await_expression":
        around = around.parent
    if around is not None and around.type == "member_expression":  # require("x").y
        taken = _text(around.child_by_field_name("property"))
        around = around.parent
    target = around.child_by_field_name("name") if around is not None else None
    if target is None or around is None or around.type != "variable_declarator":
        return (), ""
    if target.type == "identifier":
        name = _text(target)
        return ((ImportedName(name=taken, alias=name),), "") if taken else ((), name)
    names: list[ImportedName] = []
    for one in target.named_children if target.type == "object_pattern" else ():
        key, value = one, one
        if one.type == "pair_pattern":
            key, value = one.child_by_field_name("key") or one, one.child_by_field_name("value") or one
        if value.type in {"object_assignment_pattern", "assignment_pattern"}:
            value = value.child_by_field_name("left") or value
            key = value if key is one else key
        if value.type in {"identifier", "shorthand_property_identifier_pattern"}:
            names.append(ImportedName(name=_string(key), alias=_text(value) if key is not value else ""))
    return tuple(names), ""


def _go(node: Node) -> Iterator[Import]:
    module = _string(node.child_by_field_name("path"))
    yield Import(module=module, alias=_text(node.child_by_field_name("name")), line=_line(node))


def _java(node: Node) -> Iterator[Import]:
    path = next((_text(c) for c in node.named_children if c.type in {"scoped_identifier", "identifier"}), "")
    path = "".join(path.split())
    kind = "static" if any(child.type == "static" for child in node.children) else "import"
    if any(child.type == "asterisk" for child in node.named_children):
        yield Import(module=path, names=(ImportedName(name="*"),), line=_line(node), kind=kind)
        return
    module, _, name = path.rpartition(".")
    yield Import(module=module, names=(ImportedName(name=name),), line=_line(node), kind=kind)


def _rust_text(node: Node | None) -> str:
    """A path or name, where `r#type` is the name `type`."""
    return _text(node).replace("r#", "")


def _rust(node: Node) -> Iterator[Import]:
    if node.type == "mod_item":
        module = _rust_text(node.child_by_field_name("name"))
        paths = list(_attribute_paths(node))
        for path in paths or [""]:
            yield Import(module=module, alias=path, line=_line(node), kind="module")
        return
    if node.type == "extern_crate_declaration":
        name, alias = node.child_by_field_name("name"), node.child_by_field_name("alias")
        yield Import(module=_rust_text(name), alias=_rust_text(alias), line=_line(node))
        return
    argument = node.child_by_field_name("argument")
    stack = [] if argument is None else [("", argument)]
    produced = 0
    while stack and produced < _RUST_PATHS_MAX:
        prefix, tree = stack.pop()
        match tree.type:
            case "scoped_use_list":
                path = prefix + _rust_text(tree.child_by_field_name("path")) + "::"
                items = tree.child_by_field_name("list")
                if items is not None:
                    stack.extend((path, child) for child in reversed(items.named_children))
                continue
            case "use_list":
                stack.extend((prefix, child) for child in reversed(tree.named_children))
                continue
            case "use_as_clause":
                path = prefix + _rust_text(tree.child_by_field_name("path"))
                yield Import(
                    module=path, alias=_rust_text(tree.child_by_field_name("alias")), line=_line(node)
                )
            case "use_wildcard":
                path = prefix + _rust_text(tree).removesuffix("*").removesuffix("::")
                yield Import(
                    module=path.removesuffix("::"), names=(ImportedName(name="*"),), line=_line(node)
                )
            case "self" if prefix:
                yield Import(module=prefix.removesuffix("::"), line=_line(node))
            case "line_comment" | "block_comment" | "ERROR":
                continue
            case _:
                yield Import(module=prefix + _rust_text(tree), line=_line(node))
        produced += 1


def _attribute_paths(node: Node) -> Iterator[str]:
    """The files that the attributes of a `mod` name; with "" for its usual one where only `cfg_attr` does."""
    above = node.prev_named_sibling
    while above is not None and above.type in {"attribute_item", "line_comment", "block_comment"}:
        text = _text(above) if above.type == "attribute_item" else ""
        found = _RUST_ATTRIBUTE_PATH.findall(text)
        yield from found
        if found and "cfg_attr" in text:
            yield ""
        above = above.prev_named_sibling


def _c(node: Node) -> Iterator[Import]:
    path = node.child_by_field_name("path")
    if path is not None and path.type in {"string_literal", "system_lib_string"}:
        kind = "include" if path.type == "string_literal" else "system"
        yield Import(module=_text(path).strip('"<> '), line=_line(node), kind=kind)


def _csharp(node: Node) -> Iterator[Import]:
    alias = node.child_by_field_name("name")
    target = next((child for child in reversed(node.named_children) if child != alias), None)
    kind = "static" if any(child.type == "static" for child in node.children) else "import"
    yield Import(module="".join(_text(target).split()), alias=_text(alias), line=_line(node), kind=kind)


def _ruby(node: Node) -> Iterator[Import]:
    arguments = node.child_by_field_name("arguments")
    string = next(
        (one for one in reversed(arguments.named_children if arguments else ()) if one.type == "string"), None
    )
    module = _string(string)
    if module and "#{" not in module:
        yield Import(module=module, line=_line(node), kind=_text(node.child_by_field_name("method")))


def _php(node: Node) -> Iterator[Import]:
    if node.type != "namespace_use_declaration":
        yield from _php_file(node)
        return
    prefix = next((_text(child) for child in node.named_children if child.type == "namespace_name"), "")
    group = node.child_by_field_name("body")
    kinds = {child.type for child in node.children} & {"function", "const"}
    for clause in (node if group is None else group).named_children:
        if clause.type != "namespace_use_clause":
            continue
        path = next(
            (_text(one) for one in clause.named_children if one.type in {"qualified_name", "name"}), ""
        )
        module, _, name = f"{prefix}\\{path}".strip("\\").rpartition("\\")
        alias = _text(clause.child_by_field_name("alias"))
        names = (ImportedName(name=name, alias=alias),)
        yield Import(module=module, names=names, line=_line(node), kind=next(iter(kinds), "import"))


def _php_file(node: Node) -> Iterator[Import]:
    """A file that is included, by the literal end of its path (`__DIR__ . '/x.php'`)."""
    stack = [node]
    last = ""
    while stack:
        one = stack.pop()
        if one.type in {"string", "encapsed_string"}:
            last = last or _string(one)
        elif one.type in {"binary_expression", "parenthesized_expression"}:
            stack.extend(one.named_children)
    if last:
        kind = node.parent.type.partition("_")[0] if node.parent is not None else "include"
        yield Import(module=last, line=_line(node), kind=kind)


def _kotlin(node: Node) -> Iterator[Import]:
    path = next((child for child in node.named_children if child.type == "qualified_identifier"), None)
    if path is None:
        return
    full = "".join(_text(path).split())
    if any(child.type == "*" for child in node.children):
        yield Import(module=full, names=(ImportedName(name="*"),), line=_line(node))
        return
    module, _, name = full.rpartition(".")
    alias = next((_text(child) for child in node.named_children if child.type == "identifier"), "")
    yield Import(module=module, names=(ImportedName(name=name, alias=alias),), line=_line(node))


def _scala(node: Node) -> Iterator[Import]:
    path: list[str] = []
    names: list[ImportedName] = []
    for child in (*node.children[1:], None):
        if child is None or child.type == ",":
            if path and not names:
                names.append(ImportedName(name=path.pop()))
            if names:
                yield Import(module=".".join(path), names=tuple(names), line=_line(node))
            path, names = [], []
        elif child.type in {"identifier", "operator_identifier"}:
            path.append(_text(child))
        elif child.type == "namespace_selectors":
            names.extend(one for part in child.named_children if (one := _scala_name(part)) is not None)
        elif child.is_named and (one := _scala_name(child)) is not None:
            names.append(one)


def _scala_name(node: Node) -> ImportedName | None:
    match node.type:
        case "namespace_wildcard":
            return ImportedName(name="*")
        case "arrow_renamed_identifier" | "as_renamed_identifier":
            name, alias = node.child_by_field_name("name"), node.child_by_field_name("alias")
            return ImportedName(name=_text(name), alias=_text(alias))
        case "identifier" | "operator_identifier":
            return ImportedName(name=_text(node))
    return None


def _shell(node: Node) -> Iterator[Import]:
    if node.prev_sibling is not None and node.prev_sibling.type == "command_name":  # the rest are arguments
        yield Import(module=_string(node), line=_line(node), kind="source")


_EXTRACTORS: Final[Mapping[str, Callable[[Node], Iterator[Import]]]] = {
    "python": _python,
    "javascript": _ecmascript,
    "typescript": _ecmascript,
    "tsx": _ecmascript,
    "go": _go,
    "java": _java,
    "rust": _rust,
    "c": _c,
    "cpp": _c,
    "csharp": _csharp,
    "ruby": _ruby,
    "php": _php,
    "kotlin": _kotlin,
    "scala": _scala,
    "shell": _shell,
}
