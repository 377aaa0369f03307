"""What is found in a file of each language that links by names: definitions, uses, imports, documentation."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from pharos_embedder.discovery import SourceFile
from pharos_embedder.languages import language_of
from pharos_embedder.linking import link
from pharos_embedder.packed_files import PackedFile
from pharos_embedder.parse_pool import ParsePool
from pharos_embedder.parsing import parse
from pharos_embedder.syntax import Definition, ParsedFile


class Sample(NamedTuple):
    source: str
    package: str
    definitions: str
    references: str
    imports: str
    docstrings: dict[str, str]


CSHARP = """\
using System;
using static System.Math;
using Alias = Shop.Base.Thing;
global using Shop.Models;

namespace Shop.Orders;

/// <summary>
/// Places an <see cref="Order"/>.
/// </summary>
/// <param name="repo">Where they are kept.</param>
[Serializable]
public partial class OrderService<T> : BaseService<T>, IService where T : Entity
{
    private readonly int _count = 3, _limit;
    public const int Max = 5;

    /// <summary>The name.</summary>
    [JsonIgnore]
    public string Name { get; set; } = "x";

    public int Total => Compute();
    public event EventHandler Changed;
    public delegate void Handler(object sender);

    public OrderService(Repo repo) : base(repo) { }

    public static int operator +(OrderService<T> a, int b) => 1;
    public int this[int index] => index;

    // Places it.
    // Then tells.
    public async Task<List<Order>> Place<U>(Order order,
        int retries = 3)
    {
        var widget = new Widget(1);
        await repo.Save<Receipt>(widget);
        Helper.Run(typeof(Kind));
        int Local(int a) => a;
        return order?.Notify() as Outcome;
    }

    void IService.Run() => Go();

    enum Mode { A, B }
    struct Point { }
    record Row(int A);
    interface INested { void Method(); }
}

public static class Extensions
{
    public static int Len(this string text) => text.Length;
}
"""

RUBY = """\
#!/usr/bin/env ruby
# frozen_string_literal: true

require 'set'
require_relative "../lib/prices"
load "tasks.rb"
autoload :Foo, "foo/bar"
require "#{root}/dynamic"

module Shop
  module Util
    def self.round(x) = x
    def helper; end
  end

  # A cart.
  #
  # Of things.
  class Cart < Base::Thing
    # not its documentation
    include Comparable
    LIMIT = 3
    Mixed = Set.new
    attr_accessor :name, :size

    def initialize(items) = @items = items

    # The sum.
    def total(items,
              tax: 0) # of all
      items.sum { |item| Price.new(item).value } + helper(1)
    end

    def self.build; new; end

    class << self
      def inner; end
    end

    alias_method :sum, :total
    alias older total
    define_method(:dynamic) { }
    private def hidden; end
    def <=>(other); end
    def name=(value); end
  end

  Point = Struct.new(:x) do
    def norm; end
  end
end

class Shop::Cart::Item
  def price; end
end

module A::B; end

def top(argument); end
"""

PHP = """\
<?php
declare(strict_types=1);

namespace App\\Models;

use App\\Base\\Model;
use App\\Base\\{One, Two as Second};
use function App\\helper;
use const App\\LIMIT;
use Foo\\Bar as Baz, Foo\\Qux;

require_once __DIR__ . '/bootstrap.php';
include 'lib/legacy.php';
require $dynamic;

/**
 * A user.
 */
#[Entity]
final class User extends Model implements HasName
{
    use Timestamps;

    # At most.
    const MAX = 3, MIN = 1;
    private ?string $name = null;

    public function __construct(private Repo $repo) {}

    // Makes one.
    public static function make(int $a, Foo|Bar $b): ?static
    {
        $found = $this->repo->find(Helper::run(Kind::A)) ?? new Widget();
        if ($found instanceof Special) { return $found?->wrap(); }
        try { return new \\Lib\\Deep\\Thing(); } catch (AppError | OtherError $e) {}
    }

    abstract protected function go();
}

interface HasName { public function name(): string; }
trait Timestamps { function touch() {} }
enum Suit: string { case Hearts = 'H'; public function label() {} }

function helper(array $items): Result { return count_all($items) + \\Foo\\bar(); }

define('GLOBAL_LIMIT', 1);
const TOP = 1;
"""

KOTLIN = """\
@file:JvmName("Carts")
package org.acme.shop

import org.acme.model.User
import org.acme.util.*
import org.acme.x.Y as Z

/**
 * A cart.
 */
@Service
data class Cart<T : Item>(val name: String, private val repo: Repo) : Base(name), Runner {
    companion object {
        const val MAX = 3
        fun create(): Cart = Cart("a")
    }

    constructor(x: Int) : this("b")

    // Runs.
    override fun run(a: Int, b: List<Foo>): Result<Bar> {
        return Helper.go(a)?.apply { other(::later) }
    }

    val total: Int get() = items.sumOf { it.price }
    lateinit var widget: Widget

    inner class Deep
    enum class Mode { A, B }

    companion object Named {
        val inside = 1
    }
}

interface Runner {
    fun run()
}

object Registry {
    fun find(x: Int) = 1
}

enum class Color(val code: Int) {
    RED(1),
    BLUE(2);

    fun hex() = ""
}

fun String.shout(): String = uppercase()
fun <T> List<T>.second(): T = this[1]
fun Order?.orEmpty() = 1
typealias Names = List<String>
const val LIMIT = 3
val lazyThing by lazy { 1 }
var Foo.ext: Int
    get() = 1

fun interface Callback {
    fun call()
}
"""

SCALA = """\
package org.acme
package shop

import org.acme.model.User, lib.Config
import org.acme.util.{One, Two => Second, _}
import org.acme.x.given
import a.b as c
import z.*

/** A cart. */
@deprecated
case class Cart[T <: Item](name: String) extends Base(name) with Runner {
  val max = 3
  private lazy val zed: Zed = make()
  // Runs.
  def run(a: Int): Either[Foo, Bar] = {
    Helper.go(a)
    new Widget(1)
    other[Int](2)
    left merge right
  }
  override def toString = "x"
  type Alias = List[Int]
  object Inner {
    def deep() = 1
  }
}

object Cart {
  def apply(): Cart = ???
  implicit class Ops(s: String) {
    def shout = s
  }
}

trait Runner {
  def run(a: Int): Unit
  val speed: Int
}

package object util {
  def f = 1
}

enum Color {
  case Red, Green
  def hex = 1
}

given ordering: Ordering[Cart] with {
  def compare(a: Cart, b: Cart) = 1
}

extension (s: String) def whisper: String = s.toLowerCase
extension [A](items: List[A]) {
  def second: A = items(1)
}

def top(x: Int)(using y: Int): Int = x match {
  case Point(a) => a
}

val limit = 3
opaque type Id = Int
"""

SHELL = """\
#!/bin/bash
# Deploys things.
source ./lib.sh "$1"
. "$ROOT/common.sh"

readonly LIMIT=3
export PATH_X=1 OTHER=2
declare -r CONST=1
NAME=value

# Says hello.
# Loudly.
greet() {
  local inner=1
  helper "$1" | grep x
  answer=$(other a)
}

function build {
  make all
}

function deploy() (
  greet
)

cat <<EOF
not_a_command
EOF
if greet; then build; fi
"""

EXPECTED: dict[str, Sample] = {
    "csharp": Sample(
        source=CSHARP,
        package="Shop.Orders",
        definitions="""
            class OrderService 12-49
            field OrderService._count 15-15
            field OrderService._limit 15-15
            field OrderService.Max 16-16
            property OrderService.Name 19-20
            property OrderService.Total 22-22
            field OrderService.Changed 23-23
            type OrderService.Handler 24-24
            method OrderService.OrderService 26-26
            method OrderService.+ 28-28
            method OrderService.this 29-29
            method OrderService.Place 33-41
            function OrderService.Place.Local 39-39
            method OrderService.Run 43-43
            enum OrderService.Mode 45-45
            struct OrderService.Point 46-46
            class OrderService.Row 47-47
            interface OrderService.INested 48-48
            method OrderService.INested.Method 48-48
            class Extensions 51-54
            method Extensions.Len 53-53
        """,
        references="""
            Base BaseService Compute Entity EventHandler Go Helper IService JsonIgnore Kind List Math
            Models Notify Order OrderService Orders Outcome Receipt Repo Run Save Serializable T Task
            Thing Widget repo text
        """,
        imports=r"""
            1 import System
            2 static System.Math
            3 import Shop.Base.Thing as Alias
            4 import Shop.Models
        """,
        docstrings={
            "OrderService": "Places an Order.\n\nWhere they are kept.",
            "OrderService.Name": "The name.",
            "OrderService.Place": "Places it.\nThen tells.",
            "OrderService.Max": "",
        },
    ),
    "ruby": Sample(
        source=RUBY,
        package="",
        definitions="""
            module Shop 10-51
            module Shop.Util 11-14
            method Shop.Util.round 12-12
            method Shop.Util.helper 13-13
            class Shop.Cart 19-46
            constant Shop.Cart.LIMIT 22-22
            constant Shop.Cart.Mixed 23-23
            property Shop.Cart.name 24-24
            property Shop.Cart.size 24-24
            method Shop.Cart.initialize 26-26
            method Shop.Cart.total 29-32
            method Shop.Cart.build 34-34
            method Shop.Cart.inner 37-37
            method Shop.Cart.sum 40-40
            method Shop.Cart.older 41-41
            method Shop.Cart.dynamic 42-42
            method Shop.Cart.hidden 43-43
            method Shop.Cart.<=> 44-44
            method Shop.Cart.name= 45-45
            class Shop.Point 48-50
            method Shop.Point.norm 49-49
            class Shop.Cart.Item 53-55
            method Shop.Cart.Item.price 54-54
            module A.B 57-57
            function top 59-59
        """,
        references="""
            A B Base Cart Comparable Item LIMIT Mixed Point Price Set Shop Struct Thing Util
            alias_method attr_accessor autoload define_method helper include load new private require
            require_relative sum value
        """,
        imports=r"""
            4 require set
            5 require_relative ../lib/prices
            6 load tasks.rb
            7 autoload foo/bar
        """,
        docstrings={
            "Shop": "",
            "Shop.Cart": "A cart.\n\nOf things.",
            "Shop.Cart.total": "The sum.",
            "Shop.Cart.build": "",
        },
    ),
    "php": Sample(
        source=PHP,
        package="App\\Models",
        definitions="""
            class User 19-39
            constant User.MAX 25-25
            constant User.MIN 25-25
            property User.name 26-26
            method User.__construct 28-28
            method User.make 31-36
            method User.go 38-38
            interface HasName 41-41
            method HasName.name 41-41
            trait Timestamps 42-42
            method Timestamps.touch 42-42
            enum Suit 43-43
            method Suit.label 43-43
            function helper 45-45
            constant GLOBAL_LIMIT 47-47
            constant TOP 48-48
        """,
        references="""
            AppError Bar Entity Foo HasName Helper Kind LIMIT Model One OtherError Qux Repo Result
            Special Thing Timestamps Two Widget bar count_all define find helper run static wrap
        """,
        imports=r"""
            6 import App\Base: Model
            7 import App\Base: One
            7 import App\Base: Two as Second
            8 import App: helper
            9 import App: LIMIT
            10 import Foo: Bar as Baz
            10 import Foo: Qux
            12 require /bootstrap.php
            13 include lib/legacy.php
        """,
        docstrings={
            "User": "A user.",
            "User.MAX": "At most.",
            "User.make": "Makes one.",
            "User.go": "",
        },
    ),
    "kotlin": Sample(
        source=KOTLIN,
        package="org.acme.shop",
        definitions="""
            class Cart 11-34
            constant Cart.MAX 14-14
            method Cart.create 15-15
            method Cart.constructor 18-18
            method Cart.run 21-23
            property Cart.total 25-25
            property Cart.widget 26-26
            class Cart.Deep 28-28
            enum Cart.Mode 29-29
            object Cart.Named 31-33
            property Cart.Named.inside 32-32
            interface Runner 36-38
            method Runner.run 37-37
            object Registry 40-42
            method Registry.find 41-41
            enum Color 44-49
            method Color.hex 48-48
            function String.shout 51-51
            function List.second 52-52
            function Order.orEmpty 53-53
            type Names 54-54
            constant LIMIT 55-55
            variable lazyThing 56-56
            variable Foo.ext 57-58
            interface Callback 60-62
            method Callback.call 61-61
        """,
        references="""
            Bar Base Cart Foo Helper Int Item JvmName List Order Repo Result Runner Service String T
            Widget apply go it items later lazy other price sumOf uppercase
        """,
        imports=r"""
            4 import org.acme.model: User
            5 import org.acme.util: *
            6 import org.acme.x: Y as Z
        """,
        docstrings={
            "Cart": "A cart.",
            "Cart.run": "Runs.",
            "Runner": "",
        },
    ),
    "scala": Sample(
        source=SCALA,
        package="org.acme.shop",
        definitions="""
            class Cart 11-27
            property Cart.max 13-13
            property Cart.zed 14-14
            method Cart.run 16-21
            method Cart.toString 22-22
            type Cart.Alias 23-23
            object Cart.Inner 24-26
            method Cart.Inner.deep 25-25
            object Cart 29-34
            method Cart.apply 30-30
            class Cart.Ops 31-33
            method Cart.Ops.shout 32-32
            trait Runner 36-39
            method Runner.run 37-37
            property Runner.speed 38-38
            object util 41-43
            method util.f 42-42
            enum Color 45-48
            method Color.hex 47-47
            object ordering 50-52
            method ordering.compare 51-51
            function String.whisper 54-54
            function List.second 56-56
            function top 59-61
            variable limit 63-63
            type Id 64-64
        """,
        references="""
            A Alias Bar Base Cart Either Foo Helper Id Int Item List Ordering Point Runner String Unit
            Widget Zed deprecated go items make merge other s
        """,
        imports=r"""
            4 import org.acme.model: User
            4 import lib: Config
            5 import org.acme.util: One, Two as Second, *
            6 import org.acme.x: *
            7 import a: b as c
            8 import z: *
        """,
        docstrings={
            "Cart": "A cart.",
            "Cart.run": "Runs.",
            "Runner": "",
        },
    ),
    "shell": Sample(
        source=SHELL,
        package="",
        definitions="""
            constant LIMIT 6-6
            variable PATH_X 7-7
            variable OTHER 7-7
            variable CONST 8-8
            variable NAME 9-9
            function greet 13-17
            function build 19-21
            function deploy 23-25
        """,
        references="""
            . build cat greet grep helper make other source
        """,
        imports=r"""
            3 source ./lib.sh
            4 source $ROOT/common.sh
        """,
        docstrings={
            "greet": "Says hello.\nLoudly.",
            "build": "",
            "LIMIT": "",
        },
    ),
}


def shown_imports(parsed: ParsedFile) -> list[str]:
    shown = []
    for one in parsed.imports:
        names = ", ".join(f"{n.name} as {n.alias}" if n.alias else n.name for n in one.names)
        line = f"{one.line} {one.kind} {one.module}" + (f" as {one.alias}" if one.alias else "")
        shown.append(f"{line}: {names}" if names else line)
    return shown


def lines_of(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


@pytest.mark.parametrize("language", sorted(EXPECTED))
def test_what_is_found_in_a_file_of(language: str) -> None:
    sample = EXPECTED[language]
    parsed = parse("f", language, sample.source.encode())
    assert parsed.warning is None and not parsed.has_errors
    assert parsed.package == sample.package
    assert [
        f"{one.kind} {one.symbol} {one.start_line}-{one.end_line}" for one in parsed.definitions
    ] == lines_of(sample.definitions)
    assert {one.name for one in parsed.references} == set(sample.references.split())
    assert shown_imports(parsed) == lines_of(sample.imports)


@pytest.mark.parametrize("language", sorted(EXPECTED))
def test_documentation_of(language: str) -> None:
    sample = EXPECTED[language]
    found: dict[str, Definition] = {}
    for one in parse("f", language, sample.source.encode()).definitions:
        found.setdefault(one.symbol, one)
    assert {symbol: found[symbol].docstring for symbol in sample.docstrings} == sample.docstrings


@pytest.mark.parametrize(
    ("language", "source", "package", "symbols"),
    [
        ("csharp", "namespace A.B { class C { } namespace D { class E { } } }", "A.B", ["C", "D.E"]),
        ("csharp", "namespace A { class C { } } namespace B { class C { } }", "", ["A.C", "B.C"]),
        ("php", "<?php\nnamespace A\\B { class C { } }", "A\\B", ["C"]),
        ("php", "<?php\nnamespace A\\B { class C { } } namespace D { class C { } }", "", ["A.B.C", "D.C"]),
        ("scala", "package a.b {\n  class C\n}\n", "a.b", ["C"]),
        ("scala", "package a {\n  class C\n}\npackage b {\n  class C\n}\n", "", ["a.C", "b.C"]),
        ("cpp", "namespace a::b { class C { }; }", "", ["a.b.C"]),
    ],
)
def test_a_namespace_around_a_whole_file_is_its_package_and_others_are_in_the_path(
    language: str, source: str, package: str, symbols: list[str]
) -> None:
    parsed = parse("f", language, source.encode())
    assert (parsed.package, [one.symbol for one in parsed.definitions]) == (package, symbols)


@pytest.mark.parametrize(
    ("language", "source", "symbols"),
    [
        ("java", "class A { int a, b; }", ["A", "A.a", "A.b"]),
        ("csharp", "class A { int a, b; }", ["A", "A.a", "A.b"]),
        ("php", "<?php\nclass A { private $a, $b; }", ["A", "A.a", "A.b"]),
        ("c", "int a, *b = 0, c[3];", ["a", "b", "c"]),
        ("ruby", "class A\n  attr_reader :a, :b\nend", ["A", "A.a", "A.b"]),
        ("shell", "export A=1 B=2", ["A", "B"]),
    ],
)
def test_names_of_one_declaration_stand_side_by_side(language: str, source: str, symbols: list[str]) -> None:
    assert [one.symbol for one in parse("f", language, source.encode()).definitions] == symbols


def test_names_are_used_across_the_languages_of_the_jvm() -> None:
    files = {
        "a/Ledger.java": "package a;\npublic class Ledger { public static void settle() {} }\n",
        "b/Invoice.kt": "package b\n\nimport a.Ledger\n\nclass Invoice {\n    val ledger = Ledger()\n}\n",
        "c/Report.scala": "package c\n\nimport b.Invoice\n\nobject Report {\n  new Invoice()\n}\n",
        "d/Ledger.cs": "namespace D;\nclass Ledger { }\n",
    }
    graph = link([parse(path, language_of(path), text.encode()) for path, text in files.items()])
    assert {edge[:2] for edge in graph.named_edges() if edge[2] == "references"} == {
        ("b/Invoice.kt", "a/Ledger.java"),
        ("c/Report.scala", "b/Invoice.kt"),
    }


@pytest.mark.parametrize(
    ("language", "source", "docstring"),
    [
        ("shell", "#!/bin/sh\n# Says hello.\nf() { :; }\n", "Says hello."),
        ("shell", "## Says\n##   hello.\nf() { :; }\n", "Says\n  hello."),
        ("ruby", "# Says hello.\n\ndef f; end\n", ""),
        ("php", "<?php\n/** Says hello. */\n#[Pure]\nfunction f() {}\n", "Says hello."),
        ("kotlin", "/**\n * Says hello.\n */\n@Pure\nfun f() {}\n", "Says hello."),
        ("csharp", "/// <returns>A <c>word</c> &amp; <see cref=\"T:A.B\"/>.</returns>\nclass F { }\n",
         "A word & A.B."),
        ("scala", "/* no */ val x = 1\ndef f = 1\n", ""),
    ],
)  # fmt: skip
def test_documentation_stands_right_above(language: str, source: str, docstring: str) -> None:
    assert parse("f", language, source.encode()).definitions[-1].docstring == docstring


def test_shells_that_bash_does_not_read_have_words_of_their_own() -> None:
    assert [language_of(name) for name in ("a.sh", "a.bash", "a.ksh", ".bashrc")] == ["shell"] * 4
    assert [language_of(name) for name in ("a.zsh", ".zshrc", "a.fish")] == ["zsh", "zsh", "fish"]
    assert [language_of("run", f"#!/usr/bin/env {name}") for name in ("dash", "zsh", "fish")] == [
        "shell", "zsh", "fish",
    ]  # fmt: skip


def test_a_file_on_which_a_grammar_does_not_end_is_cut_by_lines(tmp_path: Path) -> None:
    source = "object A { }\n" + ";" * 150_000  # quadratic in the grammar of Scala
    (tmp_path / "a.scala").write_text(source)
    (tmp_path / "b.scala").write_text("object B { }\n")
    files = [
        SourceFile(path=name, size=(tmp_path / name).stat().st_size, language="scala")
        for name in ("a.scala", "b.scala")
    ]
    with ParsePool(1, timeout_seconds=1.0) as pool:
        hostile, after = pool.parse_files(tmp_path, files)
    assert isinstance(hostile, PackedFile) and isinstance(after, PackedFile)
    assert hostile.warning == "Split by lines: parsing took longer than 1 s."
    assert "".join(one.text for one in hostile.chunks()) == source
    assert [one.symbol for one in after.parsed().definitions] == ["B"]
