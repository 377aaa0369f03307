"""Definitions, references and imports of every parsed language, and what becomes of broken files."""

from __future__ import annotations

import pytest

from pharos_embedder.languages import PARSED_LANGUAGES, grammar_of
from pharos_embedder.parsing import NotText, parse
from pharos_embedder.syntax import ParsedFile, ParseOptions

PYTHON = '''\
"""Module."""
from __future__ import annotations
import os.path, json as j
from ..core.base import Base as B, helper
from . import sibling
from .star import *

LIMIT = 10
names: list[str] = []
type Pair = tuple[int, int]


@decorate
class Outer(B):
    """Doc of Outer."""

    class Inner:
        def method(self, x: Widget) -> int:
            """Doc of
            method.
            """
            return helper(x) + helper(1)

    async def run(self):
        def local():
            pass
        self.go(local)
'''

JAVASCRIPT = """\
import def, { a as b, c } from './x.js';
import * as all from 'pkg';
import './side-effect';
export { q as r } from './q';
export * from './star';
const { v } = require('./common');
const lazy = import('./lazy');

/**
 * Says hello.
 */
export async function hello(name) { return greet(name); }
export const arrow = (x) => x + 1, LIMIT = 5;
export default class Shop extends Base {
  #secret() { return new Thing(); }
  open = () => 1;
  static close() {}
}
module.exports.late = function () {};
const table = { handler: () => 2 };
function* gen() {}
"""

TYPESCRIPT = """\
import type { A } from './a';
import fs = require('fs');
export interface Shape { area(): number; }
export type Id = string | Other;
export enum Color { Red }
namespace Space { export function inner(x: Box<Item>): Result {} }
abstract class Q<T> extends P implements I { abstract z(): void; f = () => 1; }
declare function ext(): void;
"""

TSX = """\
import { Button } from './button';
export const App = () => { return <Layout><Button kind="x" /></Layout>; };
"""

GO = """\
package server

import (
\tf "fmt"
\t. "a/b"
\t_ "c"
)
import "d"

// Server serves.
// For ever.
type Server[T any] struct{ inner *Store }
type Runner interface { Run(int) error }
type Alias = string
type Kind int

const Limit = 3
var table = pkg.Make()

// Run runs.
func (s *Server[T]) Run(x int) error { return s.inner.Load(x) }
func main() { start(Config{}) }
"""

JAVA = """\
package org.example.app;

import static org.example.Util.*;
import static org.example.Util.max;
import org.example.model.User;
import java.util.*;

/** Doc of App. */
@Service
public class App extends Base<User> implements Runner {
  static final int LIMIT = 3;
  public App(User u) { Helper.go(u); }
  @Override public void run() { new Engine().start(); }
  enum Mode { ON }
  record Point(int x) {}
  interface Cb { void call(); }
}
"""

RUST = """\
use crate::a::{self, b::C as D, e::*};
use super::f;
pub use self::g;
extern crate outer as o;
mod child;

/// A point.
#[derive(Debug)]
pub struct Point { x: Num }
pub enum Kind { A }
pub trait Shape { fn area(&self) -> f64; }
impl<T> Shape for geo::Point<T> { fn area(&self) -> f64 { crate::math::square(1) } }
pub const LIMIT: usize = 3;
macro_rules! m { () => {}; }
mod inner { fn hidden() { vec![1]; x.touch(); } }
type Alias = Point;
pub fn main() -> Result<()> { Point::new(); build::<u8>(); }
"""

EXPECTED: dict[str, tuple[str, list[str], set[str], list[str]]] = {
    "python": (
        PYTHON,
        [
            "constant LIMIT 8-8",
            "variable names 9-9",
            "type Pair 10-10",
            "class Outer 13-27",
            "class Outer.Inner 17-22",
            "method Outer.Inner.method 18-22",
            "method Outer.run 24-27",
            "function Outer.run.local 25-26",
        ],
        {"B", "Pair", "Widget", "decorate", "go", "helper", "int", "list", "str", "tuple"},
        [
            "3 import os.path",
            "3 import json as j",
            "4 import ..core.base: Base as B, helper",
            "5 import .: sibling",
            "6 import .star: *",
        ],
    ),
    "javascript": (
        JAVASCRIPT,
        [
            "constant lazy 7-7",
            "function hello 12-12",
            "function arrow 13-13",
            "constant LIMIT 13-13",
            "class Shop 14-18",
            "method Shop.#secret 15-15",
            "method Shop.open 16-16",
            "method Shop.close 17-17",
            "function late 19-19",
            "constant table 20-20",
            "method table.handler 20-20",
            "function gen 21-21",
        ],
        {"Base", "Thing", "greet", "require"},
        [
            "1 import ./x.js: default as def, a as b, c",
            "2 import pkg as all",
            "3 import ./side-effect",
            "4 export ./q: q as r",
            "5 export ./star: *",
            "6 require ./common: v",
            "7 require ./lazy as lazy",
        ],
    ),
    "typescript": (
        TYPESCRIPT,
        [
            "interface Shape 3-3",
            "method Shape.area 3-3",
            "type Id 4-4",
            "enum Color 5-5",
            "module Space 6-6",
            "function Space.inner 6-6",
            "class Q 7-7",
            "method Q.z 7-7",
            "method Q.f 7-7",
            "function ext 8-8",
        ],
        {"Box", "I", "Id", "Item", "Other", "P", "Q", "Result", "Shape", "T"},
        ["1 import ./a: A", "2 import fs as fs"],
    ),
    "tsx": (
        TSX,
        ["function App 2-2"],
        {"Button", "Layout"},
        ["1 import ./button: Button"],
    ),
    "go": (
        GO,
        [
            "struct Server 12-12",
            "interface Runner 13-13",
            "method Runner.Run 13-13",
            "type Alias 14-14",
            "type Kind 15-15",
            "constant Limit 17-17",
            "variable table 18-18",
            "method Server.Run 21-21",
            "function main 22-22",
        ],
        {
            "Config", "Load", "Make", "Server", "Runner", "Alias", "Kind", "Store", "T", "any", "error",
            "int", "start", "string",
        },
        ["4 import fmt as f", "5 import a/b as .", "6 import c as _", "8 import d"],
    ),
    "java": (
        JAVA,
        [
            "class App 9-17",
            "field App.LIMIT 11-11",
            "method App.App 12-12",
            "method App.run 13-13",
            "enum App.Mode 14-14",
            "class App.Point 15-15",
            "interface App.Cb 16-16",
            "method App.Cb.call 16-16",
        ],
        {"Base", "Engine", "Helper", "Override", "Runner", "Service", "User", "go", "start"},
        [
            "3 static org.example.Util: *",
            "4 static org.example.Util: max",
            "5 import org.example.model: User",
            "6 import java.util: *, Base, Engine, Helper, Override, Runner, Service",
        ],
    ),
    "rust": (
        RUST,
        [
            "struct Point 9-9",
            "enum Kind 10-10",
            "trait Shape 11-11",
            "method Shape.area 11-11",
            "method Point.area 12-12",
            "constant LIMIT 13-13",
            "macro m 14-14",
            "module inner 15-15",
            "function inner.hidden 15-15",
            "type Alias 16-16",
            "function main 17-17",
        ],
        {"Kind", "Alias", "Num", "Point", "Result", "Shape", "T", "build", "new", "square", "touch", "vec"},
        [
            "1 import crate::a",
            "1 import crate::a::b::C as D",
            "1 import crate::a::e: *",
            "2 import super::f",
            "3 import self::g",
            "4 import outer as o",
            "5 module child",
            "12 path geo::Point",
            "12 path crate::math::square",
        ],
    ),
}  # fmt: skip


OPENINGS = {"php": "<?php\n"}
"""Without it, a file of PHP is plain text."""


def shown_imports(parsed: ParsedFile) -> list[str]:
    shown = []
    for one in parsed.imports:
        names = ", ".join(f"{n.name} as {n.alias}" if n.alias else n.name for n in one.names)
        line = f"{one.line} {one.kind} {'.' * one.level}{one.module}"
        line += f" as {one.alias}" if one.alias else ""
        shown.append(f"{line}: {names}" if names else line)
    return shown


def test_every_parsed_language_is_in_the_table() -> None:
    elsewhere = {"c", "cpp", "csharp", "ruby", "php", "kotlin", "scala", "shell"}  # have tests of their own
    assert set(EXPECTED) | elsewhere == PARSED_LANGUAGES
    for language in PARSED_LANGUAGES:
        assert grammar_of(language) is grammar_of(language)


@pytest.mark.parametrize("language", sorted(EXPECTED))
def test_definitions_references_and_imports_of(language: str) -> None:
    source, definitions, references, imports = EXPECTED[language]
    parsed = parse("f", language, source.encode())
    assert parsed.warning is None and not parsed.has_errors
    assert [
        f"{one.kind} {one.symbol} {one.start_line}-{one.end_line}" for one in parsed.definitions
    ] == definitions
    assert {one.name for one in parsed.references} == references
    assert shown_imports(parsed) == imports


def test_byte_ranges_are_those_of_the_text() -> None:
    source = "# é\ndef f():\n    return 'ключ'\n"
    (one,) = parse("f.py", "python", source.encode()).definitions
    assert source.encode()[one.start_byte : one.end_byte].decode() == "def f():\n    return 'ключ'"


def test_docstrings() -> None:
    python = {one.symbol: one for one in parse("f", "python", PYTHON.encode()).definitions}
    assert python["Outer"].docstring == "Doc of Outer."
    assert python["Outer.Inner.method"].docstring == "Doc of\nmethod."
    script = {one.symbol: one for one in parse("f", "javascript", JAVASCRIPT.encode()).definitions}
    assert script["hello"].docstring == "Says hello."
    go = {one.symbol: one for one in parse("f", "go", GO.encode()).definitions}
    assert go["Server"].docstring == "Server serves.\nFor ever."
    java = {one.symbol: one for one in parse("f", "java", JAVA.encode()).definitions}
    assert java["App"].docstring == "Doc of App."
    rust = {one.symbol: one for one in parse("f", "rust", RUST.encode()).definitions}
    assert rust["Point"].docstring == "A point."


def test_references_are_counted_and_have_their_first_line() -> None:
    parsed = parse("f.py", "python", b"go()\n\nstop()\ngo()\ngo()\n")
    assert [(one.name, one.line, one.count) for one in parsed.references] == [("go", 1, 3), ("stop", 3, 1)]


@pytest.mark.parametrize("language", sorted(PARSED_LANGUAGES))
def test_broken_syntax_is_a_warning_and_everything_is_still_chunked(language: str) -> None:
    source = OPENINGS.get(language, "") + "((( class def {{{ ]]] 'unclosed\nfunc x( -> <<<\n" * 30
    parsed = parse("f", language, source.encode())
    assert parsed.has_errors and parsed.warning is not None and "broken" in parsed.warning
    assert "".join(one.text for one in parsed.chunks) == source


@pytest.mark.parametrize("language", sorted(PARSED_LANGUAGES))
@pytest.mark.parametrize(
    "source", ["(" * 5_000, "[\n" * 5_000, "a.b(" * 5_000, "{" * 4_000 + "}" * 4_000, "x=\n" * 4_000]
)
def test_nesting_without_end_ends(language: str, source: str) -> None:
    source = OPENINGS.get(language, "") + source
    parsed = parse("f", language, source.encode())
    assert "".join(one.text for one in parsed.chunks) == source


def test_nested_functions_without_end_keep_short_symbols() -> None:
    source = "".join(" " * depth + f"def f{depth}():\n" for depth in range(300)) + " " * 300 + "pass\n"
    parsed = parse("f.py", "python", source.encode())
    assert max(len(one.symbol) for one in parsed.definitions) <= 300


@pytest.mark.parametrize(
    ("source", "line_count", "start"),
    [
        (b"\xef\xbb\xbfdef f(): pass\n", 1, 0),
        ("def f(): pass\n".encode("utf-16"), 1, 0),
        (b"# caf\xe9, a comment in Latin-1 that is long enough\r\ndef f(): pass\r\n", 2, 51),
        (b"def f(): pass", 1, 0),
        (b"", 0, None),
    ],
)
def test_encodings_and_line_ends(source: bytes, line_count: int, start: int | None) -> None:
    parsed = parse("f.py", "python", source)
    assert parsed.line_count == line_count
    assert parsed.size == len(source)
    assert [one.start_byte for one in parsed.definitions] == ([] if start is None else [start])


@pytest.mark.parametrize("mark", [b"\xef", b"\xef\xbb", b"\xef\xbb\xbf"])
def test_a_mark_of_utf_8_and_no_more_is_no_text(mark: bytes) -> None:
    assert parse("a.txt", "text", mark).chunks == ()
    assert parse("a.txt", "text", b"\xef\xbb\xbfa").chunks[0].text == "a"


def test_binary_content_is_refused() -> None:
    with pytest.raises(NotText):
        parse("f.py", "python", b"\x00\x01\x02")


def test_plain_leaves_the_tree_out() -> None:
    parsed = parse("f.py", "python", PYTHON.encode(), ParseOptions(plain=True))
    assert (parsed.definitions, parsed.references, parsed.imports) == ((), (), ())
    assert "".join(one.text for one in parsed.chunks) == PYTHON


def test_the_blob_hash_is_of_the_bytes() -> None:
    one, other = parse("a.py", "python", b"x = 1\n"), parse("b.py", "python", b"x = 1\n")
    assert one.content_hash == other.content_hash != parse("a.py", "python", b"x = 1\r\n").content_hash


@pytest.mark.parametrize(
    ("code", "paths"),
    [
        ("fn f() { cc::Build::new().file(1); }", ["cc::Build"]),
        ("fn f(t: ::tools::Tool) -> u8 { ::tools::find(1) }", ["::tools::Tool", "::tools::find"]),
        ("fn f() { ::std::mem::drop(1); Kind::Big::new(); Vec::<u8>::new(); }", []),
        ("fn f() { m!(<T>::a::b, x => ::foo::x, $crate::q::w, foo::Bar::baz()); }", ["::foo::x", "foo::Bar"]),
    ],
)
def test_a_path_of_rust_in_place_is_read_up_to_the_first_name_that_is_no_module(
    code: str, paths: list[str]
) -> None:
    assert [one.module for one in parse("a.rs", "rust", code.encode()).imports] == paths
