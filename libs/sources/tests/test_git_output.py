"""What git's words mean, row by row."""

from __future__ import annotations

import pytest

from pharos_sources.git_errors import (
    FetchError,
    FetchFailed,
    HostUnreachable,
    RefNotFound,
    RepositoryNotFound,
    RepositoryTooLarge,
)
from pharos_sources.git_output import (
    PATH_BYTES_MAX,
    Progress,
    Redirected,
    StderrLines,
    TreeCount,
    explain,
    in_words,
    parse_progress,
    parse_refs,
    parse_version,
    scrubbed,
)
from pharos_sources.redirects import target_in

URL = "https://github.com/o/r"


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        ("remote: Counting objects:  45% (9/20)", Progress("counting", 9, 20)),
        ("remote: Compressing objects: 100% (7/7), done.", Progress("compressing", 7, 7)),
        ("Receiving objects:  50% (10/20), 1.20 MiB | 2.10 MiB/s", Progress("receiving", 10, 20)),
        ("Resolving deltas:   0% (0/3)", Progress("resolving", 0, 3)),
        ("Updating files:  12% (120/1000)", Progress("checking out", 120, 1000)),
        ("remote: Enumerating objects: 20, done.", None),
        ("remote: Total 20 (delta 3), reused 20 (delta 3), pack-reused 0", None),
        ("Inventing objects:  45% (9/20)", None),
        ("fatal: Receiving objects:  50% (10/20)", None),
        ("", None),
    ],
)
def test_a_line_of_progress_is_read(line: str, progress: Progress | None) -> None:
    assert parse_progress(line) == progress


EXPLAINED: list[tuple[str, type[FetchError], bool]] = [
    ("fatal: repository 'https://github.com/o/r/' not found", RepositoryNotFound, False),
    ("fatal: unable to access 'x': The requested URL returned error: 404", RepositoryNotFound, False),
    ("fatal: unable to access 'x': The requested URL returned error: 403", RepositoryNotFound, False),
    ("fatal: could not read Username for 'x': terminal prompts disabled", RepositoryNotFound, False),
    ("fatal: Authentication failed for 'https://github.com/o/r/'", RepositoryNotFound, False),
    ("fatal: https://x/y/info/refs not valid: is this a git repository?", RepositoryNotFound, False),
    ("fatal: unable to access 'x': The requested URL returned error: 301", Redirected, False),
    ("fatal: unable to access 'x': The requested URL returned error: 503", FetchFailed, True),
    ("error: RPC failed; HTTP 502 curl 22 The requested URL returned error: 502", FetchFailed, True),
    ("fatal: unable to access 'x': The requested URL returned error: 429", FetchFailed, True),
    ("fatal: unable to access 'x': The requested URL returned error: 418", FetchFailed, False),
    ("fatal: couldn't find remote ref refs/heads/x", RefNotFound, False),
    ("fatal: remote error: upload-pack: not our ref 1111", RefNotFound, False),
    ("error: Server does not allow request for unadvertised object 1111", RefNotFound, False),
    ("fatal: unable to access 'x': Could not resolve host: x", HostUnreachable, True),
    ("fatal: unable to access 'x': Failed to connect to x port 443", HostUnreachable, True),
    ("fatal: unable to access 'x': SSL certificate problem: self-signed", HostUnreachable, False),
    (
        "fatal: unable to access 'x': server certificate verification failed. CAfile: y",
        HostUnreachable,
        False,
    ),
    ("fatal: unable to access 'x': GnuTLS recv error (-110): The TLS connection…", FetchFailed, True),
    ("error: RPC failed; curl 18 transfer closed with outstanding read data", FetchFailed, True),
    ("fatal: early EOF", FetchFailed, True),
    ("fatal: write error: No space left on device", FetchFailed, True),
    ("fatal: something new", FetchFailed, False),
    # a server cannot choose what its failure is called
    ("remote: fatal: repository 'x' not found", FetchFailed, False),
    ("remote: The requested URL returned error: 301", FetchFailed, False),
]


@pytest.mark.parametrize(("line", "kind", "transient"), EXPLAINED)
def test_a_complaint_has_one_meaning(line: str, kind: type[FetchError], transient: bool) -> None:
    error = explain(["warning: x", line], url=URL, host="github.com", ref="main")
    assert type(error) is kind
    assert error.transient is transient
    assert str(error).count("\n") == 0


def test_lines_are_cut_and_bounded() -> None:
    lines = StderrLines()
    assert lines.feed(b"a\rb\nc") == ["a", "b"]
    assert lines.feed(b"d\r\n") == ["cd"]
    assert lines.feed(b"x" * 10_000_000) == []
    assert [len(line) for line in lines.feed(b"\n")] == [2_000]
    for number in range(1_000):
        lines.feed(b"line %d\nReceiving objects:  50%% (10/20)\n" % number)
    kept = lines.finish()
    assert len(kept) == 40
    assert kept[-1] == "line 999"


def test_references_are_read_and_a_head_that_is_no_branch_is_not_believed() -> None:
    refs = parse_refs(f"ref: refs/heads/a/b\tHEAD\n{'1' * 40}\tHEAD\n{'2' * 40}\trefs/tags/v1^{{}}\n")
    assert refs.head_branch == "a/b"
    assert refs.ids == {"HEAD": "1" * 40, "refs/tags/v1^{}": "2" * 40}
    for target in ("refs/heads/x:refs/heads/y", "refs/heads/--x", "refs/pull/1", "refs/heads/", "x"):
        assert parse_refs(f"ref: {target}\tHEAD\n").head_branch is None


def tree_count(**limits: int) -> TreeCount:
    return TreeCount(url=URL, bytes_max=limits.get("bytes_max", 100), files_max=limits.get("files_max", 10))


def test_a_tree_is_counted_however_it_is_cut() -> None:
    listing = (
        b"100644 blob %s       7\ta\tb\n.py\0" % (b"1" * 40)
        + b"120000 blob %s      11\tl\0" % (b"2" * 40)
        + b"160000 commit %s       -\tm\0" % (b"3" * 40)
    )
    for size in (1, 7, len(listing)):
        count = tree_count()
        for start in range(0, len(listing), size):
            count.feed(listing[start : start + size])
        assert (count.files, count.size_bytes, count.submodules, count.symlinks) == (2, 18, 1, [b"l"])


def test_a_tree_beyond_a_limit_is_refused() -> None:
    record = b"100644 blob %s       7\ta\0" % (b"1" * 40)
    with pytest.raises(RepositoryTooLarge, match="1 files"):
        tree_count(files_max=1).feed(record * 2)
    with pytest.raises(RepositoryTooLarge, match="13 bytes"):
        tree_count(bytes_max=13).feed(record * 2)
    tree_count(bytes_max=14).feed(record * 2)
    with pytest.raises(FetchFailed, match="path that is too long"):
        tree_count().feed(b"1" * (PATH_BYTES_MAX + 1))


def test_sizes_are_said_in_words() -> None:
    sizes = (0, 1023, 1024, 1_000_000, 2 * 1024**3, 5 * 1024**4, 5 * 1024**5)
    assert [in_words(size) for size in sizes] == [
        "0 bytes", "1023 bytes", "1 KiB", "976.6 KiB", "2 GiB", "5 TiB", "5120 TiB",
    ]  # fmt: skip


def test_the_version_of_git_is_read() -> None:
    assert parse_version("git version 2.39.5 (Apple Git-154)\n") == (2, 39)
    assert parse_version("git version 2.50.windows.1") == (2, 50)
    assert parse_version("gti") is None


def test_what_must_stay_hidden_is_taken_out() -> None:
    assert scrubbed(["a token b", "/tmp/x/git: no"], ["token", "/tmp/x", ""]) == "a … b\n…/git: no"
    assert len(scrubbed(["x" * 5_000], [])) == 2_000


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://github.com/new/r/info/refs?service=git-upload-pack", "https://github.com/new/r"),
        ("https://GitHub.com:443/new/r.git/info/refs", "https://github.com/new/r.git"),
        ("/new/r.git/info/refs?service=git-upload-pack", "https://github.com/new/r.git"),
    ],
)
def test_a_redirect_on_the_same_host_is_followed(location: str, target: str) -> None:
    assert target_in(location, URL) == target


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.example/o/r/info/refs",
        "http://github.com/o/r/info/refs",
        "https://github.com:8443/o/r/info/refs",
        "https://user@github.com/o/r/info/refs",
        "https://github.com@evil.example/o/r/info/refs",
        "//evil.example/o/r/info/refs",
        "/login",
        "/login/info/refs",
        "/a/../b/info/refs",
        "/a/--b/info/refs",
        "/a/b%2e/info/refs",
        "file:///etc/info/refs",
        "",
        "https://github.com/" + "a" * 3_000 + "/r/info/refs",
        "https://[x/o/r/info/refs",
    ],
)
def test_any_other_redirect_is_refused(location: str) -> None:
    with pytest.raises(FetchFailed):
        target_in(location, URL)


def test_an_answer_without_a_location_is_refused() -> None:
    with pytest.raises(FetchFailed, match="nowhere"):
        target_in(None, URL)
