"""C and C++: what is found in a file, which of the two a header is, and what an `#include` means."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from pharos_embedder.headers import cpp_headers
from pharos_embedder.languages import language_of
from pharos_embedder.linking import FileGraph, link
from pharos_embedder.parsing import parse
from pharos_embedder.repository_configs import RepositoryConfigs
from pharos_embedder.syntax import Definition, ParsedFile

HEADER = """\
/* SPDX-License-Identifier: MIT */
#ifndef RING_H
#define RING_H

#include <stddef.h>
#include "ring/config.h"
#include RING_PLATFORM_HEADER

#define RING_SIZE 64
#define RING_MASK(n) ((n) & \\
                      (RING_SIZE - 1))

struct ring_ops;

/**
 * struct ring - a ring of bytes
 * @head: where the next byte goes
 */
struct ring {
\tsize_t head;
\tunion ring_slot { int byte; struct ring *next; } slots[RING_SIZE];
\tint (*on_full)(struct ring *ring);
};

typedef struct { int code; } ring_error_t;
typedef struct ring_node { struct ring_node *next; } ring_node_t, *ring_node_p;
typedef int (*ring_callback_t)(struct ring *ring, void *data);
typedef unsigned char ring_byte_t;
enum ring_state { RING_EMPTY, RING_FULL = 2 };
typedef enum { RING_LEFT } ring_side_t;

extern int ring_count;

/* Puts one byte in. */
int ring_put(struct ring *ring,
\t     unsigned char byte);
struct ring *ring_new(void), *ring_copy(const struct ring *ring);

#ifdef RING_TRACE
void ring_trace(const struct ring *ring);
#endif

static inline int ring_is_full(const struct ring *ring)
{
\treturn ring->head == RING_SIZE;
}

#endif
"""

SOURCE = """\
#include "ring.h"
#include <string.h>

static const struct ring_ops default_ops = {
\t.full = handle_full,
};
int ring_count = 0, ring_total;
char *names[] = { "a", "b" };

// Nobody else
// calls this.
static int __init ring_setup(void)
{
\tint inner = 1;
\textern int local_only;
\tint nested_prototype(int);
\treturn check(inner) ? RING_MASK(3) : ring->ops->open(ring);
}

struct ring **ring_all(int count)
{
\tring_byte_t *bytes = memset(0, 0, sizeof(ring_node_t));
\treturn NULL;
}

void (*ring_signal(int number, void (*handler)(int)))(int) { return handler; }

int old_style(a, b) int a; char *b; { return a; }

EXPORT_SYMBOL(ring_all);
"""

CPP_HEADER = """\
#pragma once
#include <vector>
#include "shape.h"

namespace shop::model {
namespace {
int hidden = 3;
}

/// A box of things.
///
/// It owns them.
template <typename T, class Policy = Default>
class Box final : public Base<T>, private ns::Other {
 public:
  Box() : size_(1) {}
  explicit Box(int size);
  virtual ~Box() = default;
  //! Gets one.
  [[nodiscard]] virtual int get() const = 0;
  bool operator==(const Box& other) const { return size_ == other.size_; }
  operator bool() const;
  static constexpr int kMax = 3;
  T* data() const noexcept override { return storage_->raw(); }
  template <class Q> void put(Q&& item,
                              int count);
  struct Inner { void deep(); };
  enum class Mode : int { On };
  using Items = std::vector<T>;
  friend void swap(Box& left, Box& right);
#ifdef DEBUG
  void dump();
#endif
 private:
  int size_;
};

template <class T> concept Small = sizeof(T) < 8;
using Names = std::vector<std::string>;
}  // namespace shop::model

template <> struct hash<Point> { size_t operator()(const Point& point) const; };
class SHOP_EXPORT Gadget { void turn(); int size() { return 1; } };
extern "C" { int c_entry(int); }
"""

CPP_SOURCE = """\
#include "box.hpp"
using namespace shop;

template <typename T>
int model::Box<T>::get() const { return util::run(1) + std::make_unique<Widget>(2)->go(); }

shop::model::Box::Box(int size) : size_(size) { Local local(1); Vexing vexing(); new Thing(1); }
Box::~Box() {}
Box::operator bool() const { return helper<int>(1); }
std::ostream& operator<<(std::ostream& out, const Box& box) { return out; }
void Box::Inner::deep() {}
int Box::count = 0;
int ::global() { return Registry::instance().size(); }
TEST(BoxTest, Empty) { EXPECT_TRUE(Box().get()); }
"""

EXPECTED: dict[str, tuple[str, str, list[str], set[str], list[str]]] = {
    "a C header": (
        "c",
        HEADER,
        [
            "macro RING_SIZE 9-9",
            "macro RING_MASK 10-11",
            "struct ring 19-23",
            "union ring.ring_slot 21-21",
            "struct ring_error_t 25-25",
            "type ring_node_t 26-26",
            "type ring_node_p 26-26",
            "struct ring_node 26-26",
            "type ring_callback_t 27-27",
            "type ring_byte_t 28-28",
            "enum ring_state 29-29",
            "enum ring_side_t 30-30",
            "declaration ring_count 32-32",
            "declaration ring_put 35-36",
            "declaration ring_new 37-37",
            "declaration ring_copy 37-37",
            "declaration ring_trace 40-40",
            "function ring_is_full 43-46",
        ],
        {
            "ring", "ring_byte_t", "ring_callback_t", "ring_error_t", "ring_node", "ring_node_p",
            "ring_node_t", "ring_ops", "ring_side_t", "ring_slot", "ring_state",
        },
        ["5 system stddef.h", "6 include ring/config.h"],
    ),
    "a C source": (
        "c",
        SOURCE,
        [
            "variable default_ops 4-6",
            "variable ring_count 7-7",
            "variable ring_total 7-7",
            "variable names 8-8",
            "function ring_setup 12-18",
            "function ring_all 20-24",
            "function ring_signal 26-26",
            "function old_style 28-28",
        ],
        {
            "EXPORT_SYMBOL", "RING_MASK", "check", "handle_full", "memset", "ring", "ring_byte_t",
            "ring_node_t", "ring_ops",
        },
        ["1 include ring.h", "2 system string.h"],
    ),
    "a C++ header": (
        "cpp",
        CPP_HEADER,
        [
            "variable shop.model.hidden 7-7",
            "class shop.model.Box 13-36",
            "method shop.model.Box.Box 16-16",
            "declaration shop.model.Box.Box 17-17",
            "method shop.model.Box.~Box 18-18",
            "declaration shop.model.Box.get 20-20",
            "method shop.model.Box.operator== 21-21",
            "declaration shop.model.Box.operator bool 22-22",
            "method shop.model.Box.data 24-24",
            "declaration shop.model.Box.put 25-26",
            "struct shop.model.Box.Inner 27-27",
            "declaration shop.model.Box.Inner.deep 27-27",
            "enum shop.model.Box.Mode 28-28",
            "type shop.model.Box.Items 29-29",
            "declaration shop.model.Box.dump 32-32",
            "type shop.model.Small 38-38",
            "type shop.model.Names 39-39",
            "struct hash 42-42",
            "declaration hash.operator() 42-42",
            "class Gadget 43-43",
            "declaration Gadget.turn 43-43",
            "method Gadget.size 43-43",
            "declaration c_entry 44-44",
        ],
        {
            "Base", "Box", "Default", "Inner", "Items", "Mode", "Names", "Other", "Point", "Policy", "Q",
            "SHOP_EXPORT", "T", "hash", "ns", "raw", "std",
        },
        ["2 system vector", "3 include shape.h"],
    ),
    "a C++ source": (
        "cpp",
        CPP_SOURCE,
        [
            "method model.Box.get 4-5",
            "method shop.model.Box.Box 7-7",
            "method Box.~Box 8-8",
            "method Box.operator bool 9-9",
            "function operator<< 10-10",
            "method Box.Inner.deep 11-11",
            "variable Box.count 12-12",
            "function global 13-13",
            "function TEST(BoxTest, Empty) 14-14",
        ],
        {
            "Box", "BoxTest", "EXPECT_TRUE", "Empty", "Inner", "Local", "Registry", "T", "Thing", "Vexing",
            "Widget", "count", "deep", "get", "global", "go", "helper", "instance", "model", "run",
            "shop", "size", "std", "util",
        },
        ["1 include box.hpp"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_definitions_references_and_includes_of(name: str) -> None:
    language, source, definitions, references, includes = EXPECTED[name]
    parsed = parse("f", language, source.encode())
    assert parsed.warning is None
    assert [
        f"{one.kind} {one.symbol} {one.start_line}-{one.end_line}" for one in parsed.definitions
    ] == definitions
    assert {one.name for one in parsed.references} == references
    assert [f"{one.line} {one.kind} {one.module}" for one in parsed.imports] == includes


def definitions_of(language: str, source: str) -> dict[str, Definition]:
    return {one.symbol: one for one in parse("f", language, source.encode()).definitions}


def test_names_of_the_standard_library_are_no_references() -> None:
    source = (
        "std::string name(std::vector<Own> items) {\n"
        "  find(1); std::find(items); std::move(2); std::make_unique<Widget>(3);\n"
        "  std::chrono::seconds s; std::filesystem::exists(p); ours::find(4);\n}\n"
    )
    references = {one.name: one.count for one in parse("f", "cpp", source.encode()).references}
    assert references.pop("std") > 1
    assert references == {"Own": 1, "find": 2, "Widget": 1, "chrono": 1, "filesystem": 1, "ours": 1}


def test_comments_in_every_style_document() -> None:
    header = definitions_of("c", HEADER)
    assert header["ring"].docstring == "struct ring - a ring of bytes\n@head: where the next byte goes"
    assert header["ring_put"].docstring == "Puts one byte in."
    assert header["ring_error_t"].docstring == ""
    source = definitions_of("c", SOURCE)
    assert source["ring_setup"].docstring == "Nobody else\ncalls this."
    box = definitions_of("cpp", CPP_HEADER)
    assert box["shop.model.Box"].docstring == "A box of things.\n\nIt owns them."
    assert box["shop.model.Box.get"].docstring == "Gets one."


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("int (f)(int x) { return x; }", "function f"),
        ("int (*f)(int x);", "variable f"),
        ("int (*f)(int x) = 0;", "variable f"),
        ("int (*(*f)(int))(void);", "variable f"),
        ("int (*f(int x))(void);", "declaration f"),
        ("int f[3];", "variable f"),
        ("extern int f;", "declaration f"),
    ],
)
def test_what_stands_next_to_a_name_says_what_it_is(source: str, found: str) -> None:
    (one,) = parse("f.c", "c", source.encode()).definitions
    assert f"{one.kind} {one.symbol}" == found


def test_a_macro_that_only_the_preprocessor_knows_is_no_warning_but_garbage_is() -> None:
    parsed = parse("f.c", "c", SOURCE.encode())
    assert parsed.has_errors and parsed.warning is None
    assert parse("f.c", "c", b"int f( { ]]] ((( struct 'x\n" * 20).warning is not None


def test_of_a_map_of_registers_a_thousand_macros_are_kept_and_all_else() -> None:
    source = "".join(f"#define REG_{number} {number}\n" for number in range(3_000)) + "int after(void);\n"
    found = [one.name for one in parse("f.h", "c", source.encode()).definitions]
    assert found == [*(f"REG_{number}" for number in range(1_000)), "after"]


@pytest.mark.parametrize("language", ["c", "cpp"])
@pytest.mark.parametrize(
    "source",
    [
        "int " + "(" * 3_000 + "f" + ")" * 3_000 + "(void) {}",
        "int " + "*" * 3_000 + "f(void) {}",
        "int " + "a::" * 3_000 + "f() {}",
        "#if X\n" * 2_000 + "int f(void);\n" + "#endif\n" * 2_000,
        "#define A(x) x \\\n" * 3_000,
        "template <class T> " * 2_000 + "int f();",
        "namespace a { " * 2_000 + "int f();" + "}" * 2_000,
    ],
    ids=["parentheses", "pointers", "scopes", "conditions", "continued", "templates", "namespaces"],
)
def test_declarators_without_end_end(language: str, source: str) -> None:
    parsed = parse("f", language, source.encode())
    assert "".join(one.text for one in parsed.chunks) == source
    assert all(len(one.symbol) <= 300 for one in parsed.definitions)


@pytest.mark.parametrize(
    ("paths", "cpp"),
    [
        ("a.h", ""),
        ("src/a.c src/a.h src/b.cpp src/b.h", "src/b.h"),
        ("src/a.c src/a.cpp src/a.h", ""),
        ("src/a.c src/b.cpp include/x.h", "include/x.h"),
        ("src/a.c src/b.c src/c.cpp include/x.h", ""),
        ("lib/a.c tests/a.cc tests/b.cc tests/help.h lib/priv/deep.h", "tests/help.h"),
        ("app/a.py app/a.h lib/b.hpp", "app/a.h"),
        ("a.py a.h", ""),
    ],
)
def test_a_header_is_in_the_language_of_its_neighbours(paths: str, cpp: str) -> None:
    assert cpp_headers({path: language_of(path) for path in paths.split()}) == frozenset(cpp.split())


# ---- includes


def graph_of(files: Mapping[str, str]) -> FileGraph:
    languages = {path: language_of(path) for path in files}
    headers = cpp_headers(languages)
    parsed: list[ParsedFile] = [
        parse(path, "cpp" if path in headers else languages[path], text.encode())
        for path, text in files.items()
    ]
    random.Random(7).shuffle(parsed)
    return link(parsed, RepositoryConfigs.read(files))


def edges(graph: FileGraph, kind: str) -> set[str]:
    return {f"{source} -> {target}" for source, target, of, _ in graph.named_edges() if of == kind}


C_PROJECT = {
    "CMakeLists.txt": "project(ring C)\ninclude_directories(compat) # include_directories(nowhere)\n"
    "add_subdirectory(app)\n",
    "app/CMakeLists.txt": "add_executable(app main.c)\ntarget_include_directories(app SYSTEM PRIVATE\n"
    '  "${PROJECT_SOURCE_DIR}/plugins/api" ${ZLIB_DIRS}\n    $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/gen>)\n',
    "compile_commands.json": '[{"directory": "/home/me/ring/build", "file": "../app/main.c",'
    ' "command": "cc -I../third -isystem /usr/lib/x -c ../app/main.c"}]',
    "include/ring/ring.h": "#include <stddef.h>\n#include <ring/config.h>\nint ring_put(int byte);\n"
    "struct ring { int head; };\n",
    "include/ring/config.h": "#define RING_SIZE 64\n",
    "include/time.h": "struct own_time { int x; };\n",
    "src/ring.c": '#include <ring/ring.h>\n#include "util.h"\n#include <time.h>\n'
    "int ring_put(int byte) { return clamp(byte); }\n",
    "src/util.h": "int clamp(int x);\n",
    "src/util.c": '#include "util.h"\nint clamp(int x) { return x; }\n',
    "src/time.h": "",
    "compat/endian_compat.h": "#define SWAP(x) (x)\n",
    "plugins/api/plugin.h": "int plugin_load(void);\n",
    "plugins/one/plugin.c": "#include <plugin.h>\nint plugin_load(void) { return 1; }\n",
    "plugins/one/io.h": "",
    "plugins/two/io.h": "",
    "gen/version.h": "#define VERSION 1\n",
    "third/tiny.h": "int tiny(void);\n",
    "app/main.c": "#include <stdio.h>\n#include <time.h>\n#include <ring/ring.h>\n#include <plugin.h>\n"
    '#include "endian_compat.h"\n#include <version.h>\n#include <tiny.h>\n#include "../src/util.h"\n'
    '#include "../../out.h"\n#include "stdlib.h"\n#include "gone.h"\n'
    '#include <openssl/ssl.h>\n#include <io.h>\n#include "io.h"\n'
    "int main(void) { struct ring r; return ring_put(SWAP(clamp(plugin_load()))); }\n",
    "app/plugins/one/x.c": '#include "one/io.h"\n#include <deep/only.h>\n',
    "deps/libdeep/public/deep/only.h": "int only(void);\n",
}


def test_includes_are_looked_up_as_compilers_do() -> None:
    graph = graph_of(C_PROJECT)
    assert edges(graph, "imports") == {
        "include/ring/ring.h -> include/ring/config.h",
        "src/ring.c -> include/ring/ring.h",
        "src/ring.c -> src/util.h",
        "src/ring.c -> include/time.h",
        "src/util.c -> src/util.h",
        "plugins/one/plugin.c -> plugins/api/plugin.h",
        "app/main.c -> include/time.h",
        "app/main.c -> include/ring/ring.h",
        "app/main.c -> plugins/api/plugin.h",
        "app/main.c -> compat/endian_compat.h",
        "app/main.c -> gen/version.h",
        "app/main.c -> third/tiny.h",
        "app/main.c -> src/util.h",
        "app/plugins/one/x.c -> plugins/one/io.h",
        "app/plugins/one/x.c -> deps/libdeep/public/deep/only.h",
    }


def test_a_use_leads_to_the_source_that_defines_it_and_to_a_prototype_only_where_none_does() -> None:
    graph = graph_of(C_PROJECT | {"app/uses.c": "#include <tiny.h>\nint f(void) { return tiny(); }\n"})
    assert edges(graph, "references") == {
        "app/main.c -> src/ring.c",
        "app/main.c -> src/util.c",
        "app/main.c -> plugins/one/plugin.c",
        "app/main.c -> include/ring/ring.h",
        "app/main.c -> compat/endian_compat.h",
        "app/uses.c -> third/tiny.h",
        "src/ring.c -> src/util.c",
    }


def test_includes_that_lead_nowhere_are_missing_only_where_quotes_say_that_they_are_here() -> None:
    stats = graph_of(C_PROJECT).stats
    # Missing: gone.h, ../../out.h, and io.h twice, of which there are two. External: stdlib.h, openssl …
    assert (stats.imports_resolved, stats.imports_missing, stats.imports_external) == (15, 4, 4)


def test_of_several_that_define_a_name_the_one_is_meant_whose_header_is_included() -> None:
    files = {
        "a/clamp.h": "int clamp(int x);\n",
        "a/clamp.c": "int clamp(int x) { return x; }\n",
        "b/other.c": "int clamp(int x) { return 1; }\n",
        "main.c": '#include "a/clamp.h"\nint main(void) { return clamp(1); }\n',
    }
    assert edges(graph_of(files), "references") == {"main.c -> a/clamp.c"}


def test_build_files_name_include_folders() -> None:
    assert RepositoryConfigs.read(C_PROJECT).include_folders == {
        "": ("compat", "/home/me/ring/third", "/usr/lib/x"),
        "app": ("plugins/api", "gen"),
    }


def test_of_several_that_fit_the_nearest_is_included_and_none_of_two_as_near() -> None:
    files = {
        "arch/arm/asm/io.h": "int arm;\n",
        "arch/x86/asm/io.h": "int x86;\n",
        "arch/x86/kernel/setup.c": "#include <asm/io.h>\n",
        "drivers/net.c": "#include <asm/io.h>\n#include <linux/types.h>\n",
        "headers/uapi/linux/types.h": "int types;\n",
        "tools/headers/uapi/linux/types.h": "int other;\n",
    }
    assert edges(graph_of(files), "imports") == {
        "arch/x86/kernel/setup.c -> arch/x86/asm/io.h",
        "drivers/net.c -> headers/uapi/linux/types.h",
    }


def test_names_of_c_are_used_from_cpp() -> None:
    files = {
        "codec.c": "int codec_decode(void) { return 1; }\n",
        "codec.h": "int codec_decode(void);\n",
        "player.cpp": '#include "codec.h"\nint Player::play() { return codec_decode(); }\n',
    }
    assert edges(graph_of(files), "references") == {"player.cpp -> codec.c"}


def test_hostile_build_files_name_no_folders() -> None:
    configs = RepositoryConfigs.read(
        {
            "CMakeLists.txt": "include_directories(" * 5_000,
            "a/CMakeLists.txt": "include_directories(../../.. /etc ${X}/y $<A:${B}>)",
            "compile_commands.json": '[{"command": 3}]',
            "b/compile_commands.json": "[" * 100_000,
            "c/compile_commands.json": '[{"directory": "..", "command": "cc -I../.. -I"}]',
            "d/CMakeLists.txt": "include_directories(" + " ".join(f"i{n}" for n in range(700)) + ")",
        }
    )
    assert set(configs.include_folders) == {"d"}
    assert len(configs.include_folders["d"]) == 200
