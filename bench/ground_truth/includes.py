"""C++: what clang's preprocessor finds for each `#include`, asked through libclang.

Each file is read alone: its includes are looked up but not entered, so that one whose header was there
already is told too, and both branches of a condition on an unknown macro are read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ENDINGS = frozenset({".c", ".cc", ".cpp", ".cxx", ".h", ".hh", ".hpp", ".hxx", ".ipp", ".tcc"})
SINGLE_FILE = 0x400  # CXTranslationUnit_SingleFileParse, which clang.cindex has no name for


def edges(clang: Path, root: Path, folders: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The includes of every file below *root*, with *folders* as include folders; *clang* holds libclang's
    package.
    """
    sys.path.insert(0, str(clang))
    from clang.cindex import Config, CursorKind, Index, TranslationUnit  # type: ignore[import-not-found]

    Config.set_library_path(str(clang / "clang/native"))
    index = Index.create()
    flags = ["-x", "c++", "-std=c++17", "-nostdinc", "-nostdinc++", *(f"-I{root / one}" for one in folders)]
    how = TranslationUnit.PARSE_DETAILED_PROCESSING_RECORD | TranslationUnit.PARSE_SKIP_FUNCTION_BODIES
    for file in sorted(one for one in root.rglob("*") if one.suffix in ENDINGS and one.is_file()):
        read = index.parse(str(file), args=flags, options=how | SINGLE_FILE)
        for cursor in read.cursor.get_children():
            if cursor.kind != CursorKind.INCLUSION_DIRECTIVE:
                continue
            try:
                found = cursor.get_included_file()
            except AssertionError:  # its word for a file that was not found
                continue
            if found is not None:
                target = Path(found.name).resolve()
                if target.is_relative_to(root):
                    yield file.relative_to(root).as_posix(), target.relative_to(root).as_posix()


if __name__ == "__main__":
    for source, target in edges(Path(sys.argv[1]), Path(sys.argv[2]).resolve(), sys.argv[3:]):
        sys.stdout.write(f"{source}\t{target}\n")
