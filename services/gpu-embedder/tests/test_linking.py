"""Edges between the files of a repository in six languages, checked by hand; and the weights."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from pharos_embedder.languages import language_of
from pharos_embedder.linking import EDGES_PER_FILE_MAX, FileGraph, LinkStats, link
from pharos_embedder.manifests import ecmascript
from pharos_embedder.manifests.ecmascript import Glob, json_object
from pharos_embedder.manifests.paths import joined
from pharos_embedder.parsing import parse
from pharos_embedder.ports import Stopped
from pharos_embedder.repository_configs import RepositoryConfigs


def graph_of(files: Mapping[str, str]) -> FileGraph:
    parsed = [parse(path, language_of(path), text.encode()) for path, text in files.items()]
    random.Random(7).shuffle(parsed)
    return link(parsed, RepositoryConfigs.read(files))


def edges(graph: FileGraph, kind: str) -> set[tuple[str, str]]:
    return {(source, target) for source, target, of, _ in graph.named_edges() if of == kind}


PYTHON = {
    "py/pyproject.toml": "[project]\nname = 'shop'\n",
    "py/src/shop/__init__.py": "from .cart import Cart\n",
    "py/src/shop/cart.py": "from . import prices\nfrom .models.item import Item as Thing\nimport os, json\n"
    "class Cart:\n    def total(self): return prices.sum_up(Thing())\n",
    "py/src/shop/prices.py": "import requests\ndef sum_up(x): return x\n",
    "py/src/shop/models/item.py": "from ...nowhere import x\nfrom .. import cart\nclass Item: pass\n",
    "py/tests/test_cart.py": "from shop import Cart\nimport shop.prices as p\nfrom helpers import make\n"
    "def test(): make(Cart())\n",
    "py/tests/helpers.py": "def make(x): return x\n",
}

TYPESCRIPT = {
    "web/tsconfig.json": '{\n // comment, with "quotes"\n "compilerOptions": {"baseUrl": ".", '
    '"paths": {"@app/*": ["app/*"], "exact": ["app/exact.ts"],},},}',
    "web/app/main.ts": "import { start } from '@app/lib/start';\nimport x from 'exact';\n"
    "import './side.js';\n"
    "import { ui } from '@acme/ui';\nimport { deep } from '@acme/ui/deep';\nimport r from 'react';\n"
    "import { gone } from './gone';\nstart(ui(deep()));\n",
    "web/app/lib/start/index.ts": "export { start } from './impl';\n",
    "web/app/lib/start/impl.ts": "export function start(x: any) {}\n",
    "web/app/exact.ts": "export default 1;\n",
    "web/app/side.ts": "sideEffect();\n",
    "packages/ui/package.json": '{"name": "@acme/ui", "main": "dist/index.js"}',
    "packages/ui/src/index.tsx": "import base from 'web/app';\nexport const ui = () => <div/>;\n",
    "packages/ui/src/deep.js": "const i = require('./index');\n"
    "export function deep() { return import('../README.md'); }\n",
}

GO = {
    "go/go.mod": "module example.com/app\n\ngo 1.22\n",
    "go/main.go": 'package main\nimport (\n "fmt"\n "example.com/app/store"\n "github.com/x/y"\n)\n'
    "func main() { fmt.Println(store.Open(setup())) }\n",
    "go/setup.go": "package main\nfunc setup() int { return 1 }\n",
    "go/store/store.go": "package store\nfunc Open(x int) *Disk { return nil }\n",
    "go/store/disk.go": "package store\ntype Disk struct{}\n",
    "go/store/store_test.go": 'package store\nimport "testing"\nfunc TestOpen(t *testing.T) { Open(1) }\n',
}

JAVA = {
    "java/org/acme/App.java": "package org.acme;\nimport org.acme.model.User;\nimport org.acme.util.*;\n"
    "import static org.acme.util.Text.trim;\nimport java.util.List;\nimport org.acme.model.User.Role;\n"
    "public class App { Service s; void run() { new User(); trim(); } }\n",
    "java/org/acme/Service.java": "package org.acme;\nclass Service {}\n",
    "java/org/acme/model/User.java": "package org.acme.model;\n"
    "public class User { public enum Role { A } }\n",
    "java/org/acme/util/Text.java": "package org.acme.util;\npublic class Text { static void trim() {} }\n",
    "java/org/acme/util/Maths.java": "package org.acme.util;\npublic class Maths {}\n",
}

RUST = {
    "rs/Cargo.toml": '[workspace]\nmembers = ["core", "cli"]\n',
    "rs/core/Cargo.toml": '[package]\nname = "acme-core"\n',
    "rs/core/src/lib.rs": "pub mod config;\nmod net;\npub use config::Settings;\n",
    "rs/core/src/config.rs": "use crate::net::socket::Socket;\nuse std::fs;\nuse super::net;\n"
    "pub struct Settings;\n"
    "mod tests { use super::*; }\n",
    "rs/core/src/net/mod.rs": "pub mod socket;\nuse self::socket::Socket;\n",
    "rs/core/src/net/socket.rs": "use super::super::config::Settings;\npub struct Socket;\n"
    "fn f() { crate::config::load(); }\n",
    "rs/cli/Cargo.toml": '[package]\nname = "acme-cli"\n[dependencies]\nacme-core.path = "../core"\n',
    "rs/cli/src/main.rs": "mod args;\nuse acme_core::config::Settings;\nuse args::parse_args;\n"
    "use serde::Serialize;\n"
    "fn main() { parse_args(); }\n",
    "rs/cli/src/args.rs": "pub fn parse_args() {}\n",
}

JAVASCRIPT = {
    "js/package.json": '{"name": "site"}',
    "js/index.js": "const { go } = require('./lib');\nexport * from './lib/extra.mjs';\ngo();\n",
    "js/lib/index.jsx": "import site from 'site';\nexport function go() {}\n",
    "js/lib/extra.mjs": "export const extra = 1;\n",
}

IMPORTS = {
    "py/src/shop/__init__.py": "py/src/shop/cart.py",
    "py/src/shop/cart.py": "py/src/shop/prices.py py/src/shop/models/item.py",
    "py/src/shop/models/item.py": "py/src/shop/cart.py",
    "py/tests/test_cart.py": "py/src/shop/__init__.py py/src/shop/prices.py py/tests/helpers.py",
    "web/app/main.ts": "web/app/lib/start/index.ts web/app/exact.ts "
    "web/app/side.ts packages/ui/src/index.tsx "
    "packages/ui/src/deep.js",
    "web/app/lib/start/index.ts": "web/app/lib/start/impl.ts",
    "packages/ui/src/deep.js": "packages/ui/src/index.tsx",
    "go/main.go": "go/store/store.go go/store/disk.go",
    "java/org/acme/App.java": "java/org/acme/model/User.java java/org/acme/util/Text.java "
    "java/org/acme/util/Maths.java",
    "rs/core/src/lib.rs": "rs/core/src/config.rs rs/core/src/net/mod.rs",
    "rs/core/src/config.rs": "rs/core/src/net/socket.rs rs/core/src/net/mod.rs",
    "rs/core/src/net/mod.rs": "rs/core/src/net/socket.rs",
    "rs/core/src/net/socket.rs": "rs/core/src/config.rs",
    "rs/cli/src/main.rs": "rs/cli/src/args.rs rs/core/src/config.rs",
    "js/index.js": "js/lib/index.jsx js/lib/extra.mjs",
    "js/lib/index.jsx": "js/index.js",
}

REFERENCES = {
    "py/src/shop/cart.py": "py/src/shop/prices.py",
    "py/tests/test_cart.py": "py/tests/helpers.py py/src/shop/cart.py",
    "web/app/main.ts": "web/app/lib/start/impl.ts packages/ui/src/index.tsx packages/ui/src/deep.js",
    "go/main.go": "go/setup.go go/store/store.go",
    "go/store/store.go": "go/store/disk.go",
    "go/store/store_test.go": "go/store/store.go",
    "java/org/acme/App.java": "java/org/acme/Service.java java/org/acme/model/User.java "
    "java/org/acme/util/Text.java",
    "rs/cli/src/main.rs": "rs/cli/src/args.rs",
    "js/index.js": "js/lib/index.jsx",
}


def pairs(table: Mapping[str, str]) -> set[tuple[str, str]]:
    return {(source, target) for source, targets in table.items() for target in targets.split()}


def test_a_repository_in_six_languages_has_exactly_these_edges() -> None:
    files = {**PYTHON, **TYPESCRIPT, **GO, **JAVA, **RUST, **JAVASCRIPT}
    graph = graph_of(files)
    assert graph.paths == tuple(sorted(files))
    assert edges(graph, "imports") == pairs(IMPORTS)
    assert edges(graph, "references") == pairs(REFERENCES)


@pytest.mark.parametrize(
    ("files", "stats"),
    [
        (PYTHON, (7, 3, 1)),
        (TYPESCRIPT, (7, 2, 2)),
        (GO, (1, 3, 0)),
        (JAVA, (4, 1, 0)),
        (RUST, (13, 2, 0)),
        (JAVASCRIPT, (3, 0, 0)),
    ],
)
def test_imports_are_counted_by_how_they_fared(files: dict[str, str], stats: tuple[int, int, int]) -> None:
    resolved, external, missing = stats
    assert graph_of(files).stats == LinkStats(
        imports_resolved=resolved, imports_external=external, imports_missing=missing
    )


def test_nothing_leads_to_itself_or_out_and_weights_are_positive() -> None:
    graph = graph_of({**PYTHON, **TYPESCRIPT, **GO, **JAVA, **RUST, **JAVASCRIPT})
    keys = [(one.source, one.target, one.kind) for one in graph.edges]
    assert keys == sorted(set(keys))
    for one in graph.edges:
        assert one.source != one.target and one.weight > 0 and math.isfinite(one.weight)
        assert 0 <= one.source < len(graph.paths) and 0 <= one.target < len(graph.paths)


def test_an_ambiguous_name_that_is_not_imported_makes_no_edge() -> None:
    files = {
        "a.py": "def handle(): pass\n",
        "b.py": "def handle(): pass\n",
        "c.py": "handle()\n",
        "d.py": "from a import handle\nhandle()\n",
    }
    assert edges(graph_of(files), "references") == {("d.py", "a.py")}


def test_a_name_that_a_file_imports_from_elsewhere_is_none_of_those_here() -> None:
    files = {
        "context.js": "export function createContext() {}\n",
        "app.js": "import { createContext } from 'react';\ncreateContext();\n",
        "other.js": "createContext();\n",
    }
    assert edges(graph_of(files), "references") == {("other.js", "context.js")}


def test_a_file_that_exports_again_passes_names_on_whatever_it_is_called() -> None:
    files = {
        "main.js": "export { bake } from './oven.js';\n",
        "oven.js": "export function bake() {}\n",
        "fire.js": "export function bake() {}\n",
        "shop.js": "import { bake } from './main.js';\nbake();\n",
    }
    assert edges(graph_of(files), "references") == {("shop.js", "oven.js")}


def test_a_name_of_another_language_makes_no_edge() -> None:
    assert (
        graph_of({"a.py": "def handle(): pass\n", "b.go": "package b\nfunc f() { handle() }\n"}).edges == ()
    )


def test_more_uses_weigh_more_and_common_names_less() -> None:
    files = {
        "lib/often.py": "def often_used(): pass\n",
        "lib/seldom.py": "def seldom_used(): pass\n",
        "main.py": "often_used()\n" * 6 + "seldom_used()\n",
    }
    weights = {target: weight for _, target, _, weight in graph_of(files).named_edges()}
    assert weights["lib/often.py"] > weights["lib/seldom.py"] > 0
    files |= {f"user{number}.py": "often_used()\n" for number in range(8)}
    main = {target: w for source, target, _, w in graph_of(files).named_edges() if source == "main.py"}
    assert main["lib/often.py"] < weights["lib/often.py"] / 4
    assert main["lib/seldom.py"] == weights["lib/seldom.py"]


def test_a_hub_is_damped_and_a_name_that_everyone_uses_is_dropped() -> None:
    files = {"hub.py": "def everyone_calls(): pass\n"}
    files |= {f"user{number:02}.py": "import hub\n" for number in range(30)}
    files |= {f"other{number:02}.py": "everyone_calls()\n" for number in range(30)}
    graph = graph_of(files)
    assert edges(graph, "references") == set()
    assert [one.weight for one in graph.edges] == pytest.approx([1 / (1 + math.log(30))] * 30)


def test_of_one_file_only_the_strongest_edges_are_kept() -> None:
    files = {f"m{number:03}.py": f"def f{number:03}(): pass\n" for number in range(100)}
    files["main.py"] = (
        "".join(f"import m{number:03}\n" for number in range(100)) + "import m099\nimport m099\n"
    )
    kept = edges(graph_of(files), "imports")
    assert len(kept) == EDGES_PER_FILE_MAX
    assert ("main.py", "m099.py") in kept and ("main.py", "m064.py") not in kept


def test_a_hostile_manifest_is_as_good_as_none() -> None:
    texts = {
        "tsconfig.json": "[" * 100_000,
        "a/tsconfig.json": '{"extends": "./tsconfig.json", "compilerOptions": {"paths": {"x": 3, "y": '
        '["../../z"]}}}',
        "b/tsconfig.json": '{"compilerOptions": []}',
        "package.json": '{"name": 3}',
        "a/package.json": '{"name": "a", "exports": ' + '{".":' * 40 + '"x"' + "}" * 40 + "}",
        "Cargo.toml": "= = =",
        "a/Cargo.toml": '[package]\nname = "a"\n[lib]\npath = "../../../etc/passwd"\n[[bin]]\npath = 3\n',
        "go.mod": "/* " * 50_000,
    }
    configs = RepositoryConfigs.read(texts)
    assert configs.go_modules == ()
    assert set(configs.crates) == {"a"}
    assert configs.crates["a"].library == ""
    assert link([], configs).edges == ()


def test_tsconfigs_extend_each_other() -> None:
    configs = RepositoryConfigs.read(
        {
            "tsconfig.base.json": '{"compilerOptions": {"baseUrl": "./src", "paths": {"~*": ["x/*"]}}}',
            "app/tsconfig.json": '{"extends": "../tsconfig.base"}',
        }
    )
    (config,) = configs.ts_configs["app"]
    assert (config.base, config.paths, config.whole) == ("src", (("~*", ("src/x/*",)),), True)


def test_a_config_that_many_extend_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(text: str) -> dict[str, Any]:
        read.append(text)
        return json_object(text)

    monkeypatch.setattr(ecmascript, "json_object", counted)
    base = '{"compilerOptions": {"paths": {"~*": ["./x/*"]}, "rootDirs": [' + '"a",' * 100 + '"b"]}}'
    own = '{"extends": "../tsconfig.base", "references": [{"path": "./tsconfig.json"}]}'
    texts = {"tsconfig.base.json": base} | {f"p{number}/tsconfig.json": own for number in range(50)}
    configs = RepositoryConfigs.read(texts)
    assert read.count(base) == 1 and read.count(own) == 50
    ((first,), *others) = configs.ts_configs.values()
    assert first.paths and all(one.paths is first.paths for (one,) in others)
    assert len(first.root_dirs) <= 64


def test_patterns_that_each_config_has_of_its_own_are_bounded() -> None:
    paths = ",".join(f'"p{number}/*": ["${{configDir}}/{number}"]' for number in range(3_000))
    texts = {"tsconfig.base.json": f'{{"compilerOptions": {{"paths": {{{paths}}}}}}}'}
    texts |= {f"p{number}/tsconfig.json": '{"extends": "../tsconfig.base"}' for number in range(200)}
    found = RepositoryConfigs.read(texts).ts_configs
    assert ("p7/*", ("p0/7",)) in found["p0"][0].paths and ("p7/*", ("p1/7",)) in found["p1"][0].paths
    assert sum(len(one.paths) for (one,) in found.values()) <= 200_000


def test_a_workspace_is_asked_once_for_each_package_and_not_about_names_of_many_stars(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def counted(self: Glob, parts: Sequence[str]) -> bool:
        asked.append("/".join(parts))
        return matches(self, parts)

    matches = Glob.matches
    monkeypatch.setattr(Glob, "matches", counted)
    costly = "*a" * 40
    files = {"package.json": f'{{"workspaces": ["**/{costly}/**", "packages/*"]}}'}
    files |= {f"packages/p{number}/package.json": '{"name": "p"}' for number in range(20)}
    files |= {f"apps/a{number}/x.ts": 'import "p";' for number in range(20)}
    files |= {"packages/p3/index.ts": "export const p = 1;"}
    graph_of(files)
    assert sorted(asked) == sorted(f"packages/p{number}" for number in range(20))


def test_reading_manifests_can_be_stopped() -> None:
    def check() -> None:
        raise Stopped("now")

    with pytest.raises(Stopped):
        RepositoryConfigs.read({"package.json": "{}"}, check)


@pytest.mark.parametrize(
    ("folder", "path", "expected"),
    [
        ("a/b", "./c", "a/b/c"),
        ("a/b", "../../c", "c"),
        ("a", "..", ""),
        ("a", "../..", None),
        ("", "/etc", None),
        ("", "..x", "..x"),
    ],
)
def test_paths_are_joined_inside_the_repository(folder: str, path: str, expected: str | None) -> None:
    assert joined(folder, path) == expected


@pytest.mark.parametrize(
    ("pattern", "folder", "matches"),
    [
        ("packages/*", "packages/a", True),
        ("packages/*", "packages/a/b", False),
        ("packages/*", "packages", False),
        ("./packages/*/", "packages/a", True),
        ("packages/**", "packages/a/b", True),
        ("packages/**", "packages", False),
        ("**/test", "test", True),
        ("**/test", "a/b/test", True),
        ("**/a/**/b", "x/a/y/z/b", True),
        ("apps/web-*-*x", "apps/web-a-bx", True),
        ("apps/web-*-*x", "apps/web-ax", False),
        ("docs", "docs", True),
        ("*a" * 99 + "b", "a" * 250, False),
        ("**/" * 60 + "x", "/".join("a" * 100), False),
    ],
)
def test_a_glob_of_a_workspace_means_folders(pattern: str, folder: str, matches: bool) -> None:
    assert Glob.of(pattern).matches(folder.split("/")) is matches


def test_a_name_that_is_required_from_elsewhere_is_not_the_one_that_is_here() -> None:
    graph = graph_of(
        {
            "src/paths.js": "exports.joined = function () {};\nfunction resolved() {}\n",
            "src/a.js": "const { joined, deep: resolved } = require('some-package');\njoined(resolved());\n",
            "src/b.js": "joined();\n",
        }
    )
    assert edges(graph, "references") == {("src/b.js", "src/paths.js")}


def test_a_raw_name_of_rust_is_the_name() -> None:
    graph = graph_of(
        {
            "Cargo.toml": '[package]\nname = "app"\nedition = "2021"\n',
            "src/lib.rs": "pub mod r#type;\npub mod r#loop { mod inner; }\nuse r#type::{r#match, Kind};\n",
            "src/type.rs": "pub fn r#match() {}\npub struct Kind;\n",
            "src/loop/inner.rs": "fn f() { crate::r#type::r#match(); my_macro!(crate::r#type::Kind); }\n",
        }
    )
    assert edges(graph, "imports") == {
        ("src/lib.rs", "src/type.rs"),
        ("src/lib.rs", "src/loop/inner.rs"),
        ("src/loop/inner.rs", "src/type.rs"),
    }
    assert edges(graph, "references") == {("src/loop/inner.rs", "src/type.rs")}
    assert graph.stats.imports_missing == 0
