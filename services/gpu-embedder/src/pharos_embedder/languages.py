"""Which language a file is in, and the grammars of those that are parsed."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import PurePosixPath
from typing import Final, NamedTuple

import tree_sitter

TEXT: Final = "text"

DATA_LANGUAGES: Final = frozenset(
    {"csv", "geojson", "json", "jsonl", "jupyter", "log", "svg", "tsv", "xml", "po"}
)
"""Languages whose large files are data rather than something a person wrote; they get a lower size limit."""

_BY_EXTENSION: Final[Mapping[str, str]] = {
    extension: language
    for language, extensions in {
        "python": "py pyi pyw",
        "javascript": "js jsx mjs cjs",
        "typescript": "ts mts cts",
        "tsx": "tsx",
        "go": "go",
        "java": "java",
        "rust": "rs",
        "ada": "ada adb ads",
        "asciidoc": "adoc asciidoc",
        "assembly": "asm s",
        "astro": "astro",
        "batch": "bat cmd",
        "bazel": "bzl",
        "c": "c h",
        "clojure": "clj cljs cljc edn",
        "cmake": "cmake",
        "cpp": "cc cpp cppm cxx c++ ixx hh hpp hxx h++ ipp inl tpp cu cuh",
        "csharp": "cs csx",
        "css": "css",
        "csv": "csv",
        "cython": "pyx pxd",
        "d": "d",
        "dart": "dart",
        "diff": "diff patch",
        "elixir": "ex exs",
        "elm": "elm",
        "erlang": "erl hrl",
        "fish": "fish",
        "fortran": "f90 f95 f03 f for",
        "fsharp": "fs fsi fsx",
        "geojson": "geojson",
        "gettext": "pot",
        "glsl": "glsl vert frag comp",
        "graphql": "graphql gql",
        "groovy": "groovy gradle",
        "haskell": "hs lhs",
        "hcl": "tf tfvars hcl",
        "html": "html htm xhtml",
        "ini": "ini cfg conf properties editorconfig",
        "jinja": "j2 jinja jinja2",
        "json": "json jsonc json5",
        "jsonl": "jsonl ndjson",
        "julia": "jl",
        "jupyter": "ipynb",
        "kotlin": "kt kts",
        "latex": "tex sty cls bib",
        "less": "less",
        "lisp": "lisp el scm rkt",
        "log": "log",
        "lua": "lua",
        "make": "mk mak",
        "markdown": "md markdown mdx mkd",
        "matlab": "m",
        "nim": "nim",
        "nix": "nix",
        "objective-c": "mm",
        "ocaml": "ml mli",
        "pascal": "pas pp",
        "perl": "pl pm t",
        "php": "php phtml",
        "po": "po",
        "powershell": "ps1 psm1 psd1",
        "prisma": "prisma",
        "protobuf": "proto",
        "r": "r rmd",
        "rst": "rst",
        "ruby": "rb rake gemspec erb",
        "sass": "sass",
        "scala": "scala sc sbt",
        "scss": "scss",
        "shell": "sh bash ksh",
        "solidity": "sol",
        "sql": "sql",
        "starlark": "star",
        "svelte": "svelte",
        "svg": "svg",
        "swift": "swift",
        "tcl": "tcl",
        "thrift": "thrift",
        "toml": "toml",
        "tsv": "tsv",
        "verilog": "v sv svh",
        "vhdl": "vhd vhdl",
        "vim": "vim",
        "vue": "vue",
        "wasm-text": "wat",
        "xml": "xml xsd xsl xslt plist csproj vbproj props targets",
        "yaml": "yaml yml",
        "zig": "zig",
        "zsh": "zsh",
    }.items()
    for extension in extensions.split()
}

_BY_NAME: Final[Mapping[str, str]] = {
    "BUILD": "bazel",
    "BUILD.bazel": "bazel",
    "CMakeLists.txt": "cmake",
    "Containerfile": "dockerfile",
    "Dockerfile": "dockerfile",
    "GNUmakefile": "make",
    "Gemfile": "ruby",
    "Jenkinsfile": "groovy",
    "Justfile": "make",
    "Makefile": "make",
    "Pipfile": "toml",
    "Rakefile": "ruby",
    "SConstruct": "python",
    "SConscript": "python",
    "Tiltfile": "starlark",
    "Vagrantfile": "ruby",
    "WORKSPACE": "bazel",
    "go.mod": "go-mod",
    "go.work": "go-mod",
    "makefile": "make",
    "wscript": "python",
    ".bashrc": "shell",
    ".profile": "shell",
    ".zshrc": "zsh",
    ".babelrc": "json",
    ".eslintrc": "json",
}

_BY_INTERPRETER: Final[Mapping[str, str]] = {
    "python": "python",
    "pypy": "python",
    "node": "javascript",
    "nodejs": "javascript",
    "deno": "typescript",
    "bun": "typescript",
    "ts-node": "typescript",
    "tsx": "tsx",
    "sh": "shell",
    "bash": "shell",
    "dash": "shell",
    "zsh": "zsh",
    "ksh": "shell",
    "fish": "fish",
    "ruby": "ruby",
    "perl": "perl",
    "php": "php",
    "lua": "lua",
    "Rscript": "r",
    "awk": "awk",
    "tclsh": "tcl",
    "make": "make",
}

_BY_MODE: Final[Mapping[str, str]] = {
    "c++": "cpp",
    "c": "c",
    "python": "python",
    "ruby": "ruby",
    "perl": "perl",
}
_MODE_LINE: Final = re.compile(
    r"[^\n]{0,80}?-\*-[ \t]*(?:mode:[ \t]*)?([\w+]+)[^\n]{0,80}-\*-", re.IGNORECASE
)

_SHEBANG: Final = re.compile(r"#!\s*(\S+)(?:[ \t]+([^\r\n]{0,200}))?")


def language_of(path: str, head: str = "") -> str:
    """The language of the file at *path*, by its name, else by the first line of *head* (`#!`, or an
    editor's mode), else `text`.
    """
    name = PurePosixPath(path).name
    if (named := _BY_NAME.get(name)) is not None:
        return named
    if name.startswith(("Dockerfile.", "Containerfile.")):
        return "dockerfile"
    _, dot, extension = name.rpartition(".")
    if dot and extension == "C":  # as compilers take it
        return "cpp"
    if dot and (language := _BY_EXTENSION.get(extension.lower())) is not None:
        return language
    return _by_shebang(head) or _by_mode_line(head) or TEXT


def _by_mode_line(head: str) -> str | None:
    """What an editor is told in the first line, as headers without an extension do (`-*- C++ -*-`)."""
    found = _MODE_LINE.match(head)
    return None if found is None else _BY_MODE.get(found[1].lower())


def _by_shebang(head: str) -> str | None:
    found = _SHEBANG.match(head)
    if found is None:
        return None
    program = found[1].rsplit("/", 1)[-1]
    if program == "env":
        words = [word for word in (found[2] or "").split() if not word.startswith("-") and "=" not in word]
        program = words[0].rsplit("/", 1)[-1] if words else ""
    return _BY_INTERPRETER.get(program) or _BY_INTERPRETER.get(program.rstrip("0123456789.") or program)


class Grammar(NamedTuple):
    """A loaded grammar: its parser, and the one query that finds definitions, references and imports."""

    parser: tree_sitter.Parser
    query: tree_sitter.Query


_GRAMMARS: Final[Mapping[str, tuple[str, str, tuple[str, ...]]]] = {
    "python": ("tree_sitter_python", "language", ("python",)),
    "javascript": ("tree_sitter_javascript", "language", ("ecmascript", "javascript")),
    "typescript": ("tree_sitter_typescript", "language_typescript", ("ecmascript", "typescript")),
    "tsx": ("tree_sitter_typescript", "language_tsx", ("ecmascript", "typescript", "jsx")),
    "go": ("tree_sitter_go", "language", ("go",)),
    "java": ("tree_sitter_java", "language", ("java",)),
    "rust": ("tree_sitter_rust", "language", ("rust",)),
    "c": ("tree_sitter_c", "language", ("c",)),
    "cpp": ("tree_sitter_cpp", "language", ("c", "cpp")),
    "csharp": ("tree_sitter_c_sharp", "language", ("csharp",)),
    "ruby": ("tree_sitter_ruby", "language", ("ruby",)),
    "php": ("tree_sitter_php", "language_php", ("php",)),
    "kotlin": ("tree_sitter_kotlin", "language", ("kotlin",)),
    "scala": ("tree_sitter_scala", "language", ("scala",)),
    "shell": ("tree_sitter_bash", "language", ("shell",)),
}
"""Language → wheel, its function, and the query files that together make its query."""

PARSED_LANGUAGES: Final = frozenset(_GRAMMARS)
"""The languages that have a syntax tree; every other one is cut by lines."""


@cache
def grammar_of(language: str) -> Grammar:
    """The grammar of one of PARSED_LANGUAGES, loaded once a process (5 to 40 ms)."""
    module, function, query_names = _GRAMMARS[language]
    loaded = tree_sitter.Language(getattr(importlib.import_module(module), function)())
    folder = resources.files("pharos_embedder") / "queries"
    text = "\n".join((folder / f"{name}.scm").read_text(encoding="utf-8") for name in query_names)
    return Grammar(parser=tree_sitter.Parser(loaded), query=tree_sitter.Query(loaded, text))
