"""What real code has and samples seldom do: definitions, uses and documentation in unusual places."""

from __future__ import annotations

import pytest

from pharos_embedder.cpp_macros import without_macros
from pharos_embedder.parsing import parse
from pharos_embedder.syntax import ParsedFile


def parsed(language: str, source: str) -> ParsedFile:
    return parse(f"file.{language}", language, source.encode())


def documentation(language: str, source: str) -> dict[str, str]:
    return {one.symbol: one.docstring for one in parsed(language, source).definitions}


@pytest.mark.parametrize(
    ("language", "source", "found"),
    [
        ("python", "A, B = 1, 2\n(c, d) = f()\n", "constant A, constant B, variable c, variable d"),
        ("python", "type Plain = int\ntype Pair[T] = tuple[T, T]\n", "type Plain, type Pair"),
        (
            "go",
            "package a\nconst (\n\tA, B = iota, 2\n\tC, D\n)\n",
            "constant A, constant B, constant C, constant D",
        ),
        ("go", "package a\nvar _ I = (*T)(nil)\nconst _ = 1\nvar x, _ = f()\n", "variable x"),
        (
            "typescript",
            "declare const A: number;\nexport declare const B: string;\n",
            "constant A, constant B",
        ),
        (
            "scala",
            "class A {\n  val x, y = 1\n  var z = 2\n}\n",
            "class A, property A.x, property A.y, property A.z",
        ),
        ("scala", "val a, b = 1\nvar c = 2\n", "variable a, variable b, variable c"),
        ("csharp", "class A { ~A() { } }\n", "class A, method A.A"),
    ],
)
def test_every_name_of_a_statement_is_defined(language: str, source: str, found: str) -> None:
    assert ", ".join(f"{one.kind} {one.symbol}" for one in parsed(language, source).definitions) == found


@pytest.mark.parametrize(
    ("language", "source", "names"),
    [
        ("python", "try:\n    pass\nexcept (A, B) as e:\n    raise C from e\n", "A B C"),
        ("python", "try:\n    pass\nexcept D as e:\n    raise\n", "D"),
        ("python", "match p:\n    case shapes.Point(x=1):\n        pass\n", "Point"),
        ("typescript", "const x = y as A;\ntype Z = B & C;\n", "A Z B C"),
        ("typescript", "function f<T extends A>(x: unknown): x is B { return x satisfies C; }\n", "A T B C"),
        ("tsx", "type F = (x: A) => readonly [B, C[]];\n", "F A B C"),
    ],
)
def test_a_type_is_used_wherever_it_stands(language: str, source: str, names: str) -> None:
    assert {one.name for one in parsed(language, source).references} == set(names.split())


@pytest.mark.parametrize(
    ("language", "source", "symbol", "docstring"),
    [
        ("rust", "/// Doc.\n#[derive(\n    Debug,\n    Clone,\n)]\n#[repr(C)]\nstruct A;\n", "A", "Doc."),
        ("rust", "/// Of a.\nstatic a: [u8; 2] = [\n    1, 2\n];\nfn b() {}\n", "b", ""),
        ("tsx", "class A {\n  /** Doc. */\n  @In({\n    a: f(1),\n  })\n  @B\n  b() {}\n}\n", "A.b", "Doc."),
        ("typescript", "class A {\n  /** Of x. */\n  @In() x = f(\n    1\n  )\n  b() {}\n}\n", "A.b", ""),
        ("ruby", "=begin\nOne.\n\nTwo.\n=end\ndef a\nend\n", "a", "One.\n\nTwo."),
        ("ruby", "def b\nend\n=end\ndef a\nend\n", "a", ""),
        ("python", 'def a():\n    """One.\r\n\r\n    Two.\r\n    """\r\n', "a", "One.\n\nTwo."),
        ("python", 'def a():\n    f"""No {b}."""\n', "a", ""),
        ("python", 'def a():\n    b"""No."""\n', "a", ""),
        ("python", 'def a():\n    r"""\\d."""\n', "a", "\\d."),
    ],
)  # fmt: skip
def test_documentation_is_found_above_what_stands_between_and_is_what_the_language_says(
    language: str, source: str, symbol: str, docstring: str
) -> None:
    assert documentation(language, source)[symbol] == docstring


@pytest.mark.parametrize(
    ("source", "names", "alias"),
    [
        ("const { a, b: c, d = 1, ...e } = require('m');", {"a": "", "b": "c", "d": ""}, ""),
        ("const all = require('m');", {}, "all"),
        ("const a = require('m').b;", {"b": "a"}, ""),
        ("const { a } = await import('m');", {"a": ""}, ""),
        ("const a = await import(`m`);", {}, "a"),
        ("require('m');", {}, ""),
    ],
)
def test_what_is_required_has_the_names_that_it_is_given(
    source: str, names: dict[str, str], alias: str
) -> None:
    (one,) = parsed("javascript", source).imports
    assert (one.module, one.kind, one.alias) == ("m", "require", alias)
    assert {name.name: name.alias for name in one.names} == names


def test_a_module_whose_name_is_computed_is_none() -> None:
    assert parsed("javascript", "import(`./${name}.js`); require(`${x}`); import(x);").imports == ()


CPP = """\
class API Shape final : public Base<int> {
public:
    void draw();
    int area() { return 1; }
};
class Window : public QObject {
    Q_OBJECT
    Q_PROPERTY(int width READ width NOTIFY resized)
public:
    explicit Window(QObject *parent = nullptr);
public slots:
    void close();
protected Q_SLOTS:
    void hide();
signals:
    void resized(int width);
};
struct POINT origin{};
"""


def test_macros_hide_no_classes_of_cpp_nor_what_is_in_them() -> None:
    found = parsed("cpp", CPP)
    assert found.warning is None
    assert {(one.symbol, one.start_line, one.end_line) for one in found.definitions} == {
        ("Shape", 1, 5),
        ("Shape.draw", 3, 3),
        ("Shape.area", 4, 4),
        ("Window", 6, 17),
        ("Window.Window", 10, 10),
        ("Window.close", 12, 12),
        ("Window.hide", 14, 14),
        ("Window.resized", 16, 16),
        ("origin", 18, 18),
    }
    assert "".join(chunk.text for chunk in found.chunks) == CPP


def test_what_is_blanked_is_as_long_as_it_was_and_hostile_text_ends() -> None:
    for text in (CPP, "é class API Ä : B {};\nclass ÄPI B : C {};\n", "class A" * 50_000, "signals" * 50_000):
        blanked = without_macros(text)
        assert len(blanked) == len(text)
        assert all(new in {old, " "} for old, new in zip(text, blanked, strict=True))
    assert without_macros("class " + "A" * 200_000 + " B : C {};") == "class " + "A" * 200_000 + " B : C {};"
