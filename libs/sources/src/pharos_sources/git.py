"""Fetching one commit of a repository with the real git binary, as if the repository wished us harm.

Nothing of it is run (no hooks, filters, submodules, LFS), nothing of this machine is shown to it
(configuration, credentials, proxies, symbolic links), and it can take only so much time and disk. The host
is looked up once, checked, and tied to the addresses found, so that a second answer of its name server
changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import anyio
from anyio import to_thread

from pharos_sources.git_errors import (
    FetchError,
    FetchFailed,
    FetchTimedOut,
    GitMissing,
    HostUnreachable,
    RefNotFound,
    RepositoryEmpty,
    RepositoryNotFound,
    RepositoryTooLarge,
)
from pharos_sources.git_output import (
    REFS_BYTES_MAX,
    Redirected,
    RemoteRefs,
    TreeCount,
    explain,
    in_words,
    parse_progress,
    parse_refs,
    parse_version,
    scrubbed,
)
from pharos_sources.git_process import Finished, authorization, isolated_environment, pin, run_git
from pharos_sources.guard import (
    AddressRefused,
    HostNotFound,
    Resolver,
    resolve,
    resolve_public,
    system_resolver,
)
from pharos_sources.redirects import redirect_target
from pharos_sources.removal import remove_tree
from pharos_sources.repository_url import InvalidRef, RepositoryAddress, parse_ref, parse_sha
from pharos_sources.secret import Secret

__all__ = [
    "Checkout",
    "FetchError",
    "FetchFailed",
    "FetchLimits",
    "FetchTimedOut",
    "GitMissing",
    "HostUnreachable",
    "OnLocated",
    "OnProgress",
    "RefNotFound",
    "RepositoryEmpty",
    "RepositoryNotFound",
    "RepositoryTooLarge",
    "Secret",
    "fetch",
    "remote_head",
]

OnProgress = Callable[[str, int, int], None]
"""`(phase, done, total)`: connecting, counting, compressing, receiving, resolving, checking out."""

OnLocated = Callable[[str, str | None], Awaitable[None]]
"""`(commit, branch)`: what the remote says it has, before anything is transferred. What it raises ends the
fetch.
"""

_GIT_OLDEST: Final = (
    2,
    37,
)  # the first that obeys http.curloptResolve; an older one would look the host up again
_HOPS_MAX: Final = 4  # `.git` and a few renames
_SMALL_OUTPUT_BYTES_MAX: Final = 4096
_REMOTE_HEAD_SECONDS: Final = 30.0
# Wins over the repository's own .gitattributes: files arrive byte for byte as they were committed.
_EXAMPLES_MAX: Final = 5
_ATTRIBUTES: Final = "* -text -ident !filter !eol !working-tree-encoding\n"
_FETCHED: Final = "refs/fetched"  # what the next fetch tells the server that is here already


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """What one fetch may take. `bytes_max` bounds the pack, and again the files."""

    seconds: float = 900.0
    bytes_max: int = 2 * 1024**3
    files_max: int = 200_000
    poll_seconds: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """The files of one commit.

    `root` holds files and folders only: symbolic links are left out (`symlinks` counts them, and of a few
    `symlink_examples` has the paths), folders of submodules are empty, and git's own data is beside it.
    `branch` is None for a tag, a bare commit or a detached HEAD. `bytes` and `files` count the files.
    """

    root: Path
    commit: str
    branch: str | None
    default_branch: str | None
    bytes: int
    files: int
    symlinks: int
    submodules: int
    symlink_examples: tuple[str, ...] = ()
    depth: int = 0  # folders that lie within each other


async def fetch(
    address: RepositoryAddress,
    into: Path,
    *,
    ref: str | None = None,
    sha: str | None = None,
    limits: FetchLimits | None = None,
    token: Secret | None = None,
    on_progress: OnProgress | None = None,
    on_located: OnLocated | None = None,
    earlier: Path | None = None,
    resolver: Resolver = system_resolver,
) -> Checkout:
    """Fetch one commit and write its files to `into/tree`.

    The commit is *sha* (a full id) if given, else branch or tag *ref*, else the branch of the URL, else the
    remote's HEAD. Who pushes between *on_located* and the transfer has the newer commit fetched. *into* must
    be missing or empty; it belongs to the fetch, and is removed whole if that fails or is cancelled. *token*
    must be one that belongs to `address.host`; it is sent there and nowhere else. *earlier* is where
    a fetch of this repository was left, on the same file system: if it is there, it becomes *into*, and only
    what changed since is transferred and written. Raises the errors of `git_errors`.
    """
    limits = limits or FetchLimits()
    with anyio.CancelScope(shield=True):  # so that what was made is also what is removed
        await to_thread.run_sync(_claim, into)
    done = False
    try:
        with anyio.move_on_after(limits.seconds):
            remote = await _connect(address, token=token, git_dir=into / "git", resolver=resolver)
            report = on_progress or _silent
            report("connecting", 0, 0)
            wanted = await _wanted(remote, ref, sha)
            if on_located is not None:
                await on_located(wanted.commit, wanted.branch)
            checkout = None
            if earlier is not None and await to_thread.run_sync(_take_over, earlier, into):
                checkout = await _update(remote, into, wanted, limits=limits, report=report)
            if checkout is None:
                await _begin(remote, into, wanted)
                checkout = await _fetch(remote, into, wanted, limits=limits, report=report)
            done = True
            return checkout
        raise FetchTimedOut(address.clone_url, limits.seconds)
    finally:
        if not done:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(remove_tree, into)


async def remote_head(
    address: RepositoryAddress,
    ref: str | None = None,
    *,
    token: Secret | None = None,
    seconds: float = _REMOTE_HEAD_SECONDS,
    resolver: Resolver = system_resolver,
) -> str:
    """The commit that branch or tag *ref*, else the branch of the URL, else HEAD, has on the remote now.

    Raises the errors of `git_errors`.
    """
    with anyio.move_on_after(seconds):
        remote = await _connect(address, token=token, git_dir=None, resolver=resolver)
        return (await _wanted(remote, ref, None)).commit
    raise FetchTimedOut(address.clone_url, seconds)


@dataclass(slots=True, kw_only=True)
class _Remote:
    """One repository on a checked host: where it is now known to be, and how to run git against it."""

    address: RepositoryAddress
    url: str
    addresses: tuple[str, ...]
    token: Secret | None
    git_dir: Path | None

    async def git(
        self,
        *arguments: str,
        asked_for: str = "HEAD",
        work_tree: Path | None = None,
        on_stdout: Callable[[bytes], None] | None = None,
        on_line: Callable[[str], None] | None = None,
        watch: Callable[[], Awaitable[None]] | None = None,
        output_bytes_max: int = _SMALL_OUTPUT_BYTES_MAX,
    ) -> str:
        """What git answers; raises what its complaint means. *asked_for*: the branch, tag or commit."""
        output = bytearray()

        def keep(data: bytes) -> None:
            output.extend(data)
            if len(output) > output_bytes_max:
                raise FetchFailed("the server sent too much")

        finished = await run_git(
            arguments,
            environment=isolated_environment(
                address=self.address,
                url=self.url,
                pinned=pin(self.address, self.addresses),
                token=self.token,
                git_dir=self.git_dir,
                work_tree=work_tree,
            ),
            directory=work_tree or Path("/"),
            on_stdout=on_stdout or keep,
            on_line=on_line,
            watch=watch,
        )
        if finished.status != 0:
            raise self._explained(finished, asked_for)
        return output.decode("utf-8", "replace")

    def _explained(self, finished: Finished, asked_for: str) -> FetchError:
        hidden = [str(self.git_dir.parent)] if self.git_dir is not None else []
        if self.token:
            hidden += [self.token.reveal(), authorization(self.address, self.token)]
        diagnostic = scrubbed(finished.lines, hidden)
        if finished.status < 0:
            return FetchFailed("git was killed", transient=True, diagnostic=diagnostic)
        return explain(
            finished.lines,
            url=self.address.clone_url,
            host=self.address.authority,
            ref=asked_for,
            diagnostic=diagnostic,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What to fetch: the name or id to ask the server for, and what is known about it."""

    asked_for: str
    refspec: str
    commit: str
    branch: str | None
    default_branch: str | None


async def _connect(
    address: RepositoryAddress, *, token: Secret | None, git_dir: Path | None, resolver: Resolver
) -> _Remote:
    """Check the host and the git binary."""
    look_up = resolve if address.private_allowed else resolve_public
    try:
        addresses = await look_up(address.host, address.connect_port, resolver=resolver)
    except HostNotFound as unknown:
        raise HostUnreachable(address.authority, transient=unknown.transient) from None
    except AddressRefused:
        raise FetchFailed("the host does not have a public address") from None
    remote = _Remote(
        address=address, url=address.clone_url, addresses=addresses, token=token, git_dir=git_dir
    )
    if (parse_version(await remote.git("version")) or (0, 0)) < _GIT_OLDEST:
        raise GitMissing
    return remote


async def _ls_remote(remote: _Remote, *patterns: str) -> RemoteRefs:
    """References of the remote; finds out on the way under which URL it is served."""
    for _ in range(_HOPS_MAX):
        try:
            text = await remote.git(
                "ls-remote", "--symref", remote.url, *patterns, output_bytes_max=REFS_BYTES_MAX
            )
            return parse_refs(text)
        except Redirected:
            remote.url = await redirect_target(
                remote.address, remote.url, addresses=remote.addresses, token=remote.token
            )
        except RepositoryNotFound as missing:
            if missing.denied or remote.url.endswith(".git"):
                raise
            remote.url += ".git"
    raise FetchFailed("the server redirects in circles")


async def _wanted(remote: _Remote, ref: str | None, sha: str | None) -> _Wanted:
    """Decide which commit is meant, by asking the remote what it has."""
    url = remote.address.clone_url
    ref = ref if ref is not None else remote.address.branch
    try:
        ref = ref and parse_ref(ref)
        sha = sha and parse_sha(sha)
    except InvalidRef:
        raise RefNotFound(url, "of that name") from None
    names = ["HEAD"]
    if ref is not None:
        names += [f"refs/heads/{ref}", f"refs/tags/{ref}", f"refs/tags/{ref}^{{}}"]
    found = await _ls_remote(remote, *names)
    if "HEAD" not in found.ids:
        found = await _without_head(remote, ref)
    return _choose(found, ref, sha, url)


async def _without_head(remote: _Remote, ref: str | None) -> RemoteRefs:
    """The references of a remote whose HEAD names a branch that does not exist (yet)."""
    found = await _ls_remote(remote)
    branches = [name.removeprefix("refs/heads/") for name in found.ids if name.startswith("refs/heads/")]
    if not branches:
        raise RepositoryEmpty(remote.address.clone_url)
    usual = next((name for name in ("main", "master") if name in branches), None)
    default = usual if usual is not None else (branches[0] if len(branches) == 1 else None)
    return RemoteRefs(ids=found.ids, head_branch=default)


def _choose(found: RemoteRefs, ref: str | None, sha: str | None, url: str) -> _Wanted:
    """Pure: *sha* before branch before tag before HEAD."""
    ids, default = found.ids, found.head_branch
    is_branch = ref is not None and f"refs/heads/{ref}" in ids
    wanted = partial(_Wanted, default_branch=default)
    if sha is None and ref is not None and not is_branch and f"refs/tags/{ref}" not in ids:
        try:
            sha = parse_sha(ref)  # …/tree/<commit> is what hosts show for a commit
        except InvalidRef:
            raise RefNotFound(url, ref) from None
    if sha is not None:
        if any(len(known) != len(sha) for known in ids.values()):
            raise RefNotFound(url, sha)  # SHA-1 and SHA-256 repositories do not mix
        return wanted(asked_for=sha, refspec=sha, commit=sha, branch=ref if is_branch else None)
    branch = default if ref is None else ref if is_branch else None
    if branch is not None:
        name = f"refs/heads/{branch}"
        commit = ids[name] if name in ids else ids["HEAD"]
        return wanted(asked_for=branch, refspec=name, commit=commit, branch=branch)
    if ref is not None:
        name = f"refs/tags/{ref}"
        return wanted(asked_for=ref, refspec=name, commit=ids.get(f"{name}^{{}}", ids[name]), branch=None)
    if "HEAD" not in ids:
        raise RefNotFound(url, "HEAD")
    return wanted(asked_for="HEAD", refspec="HEAD", commit=ids["HEAD"], branch=None)


async def _begin(remote: _Remote, into: Path, wanted: _Wanted) -> None:
    """Make an empty repository and an empty folder for files."""
    (into / "tree").mkdir()
    object_format = "sha256" if len(wanted.commit) == 64 else "sha1"
    await remote.git("init", "--quiet", "--bare", "--template=", f"--object-format={object_format}")
    await to_thread.run_sync(_write_attributes, into / "git")


async def _update(
    remote: _Remote, into: Path, wanted: _Wanted, *, limits: FetchLimits, report: OnProgress
) -> Checkout | None:
    """As `_fetch`, in what an earlier one made; None, and *into* is empty, where that is of no use.

    Whatever the reason is, a fetch from the beginning succeeds without it, or says what is wrong: that the
    earlier one was damaged, has grown, or is of a repository that was there before, under the same name.
    """
    try:
        checkout = await _fetch(remote, into, wanted, limits=limits, report=report)
        # Folders of submodules that are no more: git leaves them.
        await remote.git("clean", "--quiet", "--force", "--force", "-d", "-x", work_tree=into / "tree")
        return checkout
    except FetchError:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(_empty, into)
        return None


async def _fetch(
    remote: _Remote, into: Path, wanted: _Wanted, *, limits: FetchLimits, report: OnProgress
) -> Checkout:
    """Fetch the commit's pack, measure its tree, write its files."""
    url = remote.address.clone_url
    git_dir, root = into / "git", into / "tree"

    def on_line(line: str) -> None:
        progress = parse_progress(line)
        if progress is not None:
            report(progress.phase, progress.done, progress.total)

    async def check_size() -> None:
        if await to_thread.run_sync(bytes_in, git_dir) > limits.bytes_max:
            raise RepositoryTooLarge(url, in_words(limits.bytes_max))

    async def watch_size() -> None:
        while True:
            await anyio.sleep(limits.poll_seconds)
            await check_size()

    await remote.git(
        "fetch",
        "--progress",
        "--depth=1",
        "--no-tags",
        "--no-recurse-submodules",
        "--no-auto-maintenance",
        remote.url,
        f"+{wanted.refspec}:{_FETCHED}",
        asked_for=wanted.asked_for,
        on_line=on_line,
        watch=watch_size,
    )
    await check_size()
    commit = await _fetched_commit(remote, wanted)
    count = TreeCount(url=url, bytes_max=limits.bytes_max, files_max=limits.files_max)
    await remote.git("ls-tree", "-r", "-l", "-z", "--full-tree", commit, on_stdout=count.feed)
    await remote.git(
        "checkout", "--quiet", "--progress", "--force", "--detach", commit, work_tree=root, on_line=on_line
    )
    await to_thread.run_sync(_unlink, root, count.symlinks)
    report("checking out", count.files, count.files)
    return Checkout(
        root=root,
        commit=commit,
        branch=wanted.branch,
        default_branch=wanted.default_branch,
        bytes=count.size_bytes,
        files=count.files,
        symlinks=len(count.symlinks),
        submodules=count.submodules,
        depth=count.depth,
        symlink_examples=tuple(path.decode("utf-8", "replace") for path in count.symlinks[:_EXAMPLES_MAX]),
    )


async def _fetched_commit(remote: _Remote, wanted: _Wanted) -> str:
    """The commit that arrived, which is newer than the one seen before if somebody pushed in between."""
    try:
        return (await remote.git("rev-parse", "--verify", "--quiet", "FETCH_HEAD^{commit}")).strip()
    except FetchFailed:
        raise RefNotFound(remote.address.clone_url, wanted.asked_for) from None


def _claim(into: Path) -> None:
    into.mkdir(parents=True, exist_ok=True, mode=0o700)
    if any(into.iterdir()):
        raise FileExistsError(f"{into} is not empty")


def _take_over(earlier: Path, into: Path) -> bool:
    """Whether *earlier* was there; it is *into* then, which was empty."""
    if not earlier.exists():
        return False
    try:
        into.rmdir()
        earlier.rename(into)
    except OSError:  # somebody else has just taken it, or it is on another file system
        into.mkdir(mode=0o700, exist_ok=True)
        return False
    return True


def _empty(folder: Path) -> None:
    remove_tree(folder)
    folder.mkdir(mode=0o700)


def _silent(phase: str, done: int, total: int) -> None:
    """Nobody asked for progress."""


def _write_attributes(git_dir: Path) -> None:
    (git_dir / "info").mkdir(exist_ok=True)
    (git_dir / "info" / "attributes").write_text(_ATTRIBUTES)


def bytes_in(folder: Path) -> int:
    """Bytes of all files below *folder*; what vanishes meanwhile, or lies too deep, counts nothing."""
    total = 0
    waiting = [os.fspath(folder)]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    with suppress(OSError):
                        total += entry.stat(follow_symlinks=False).st_size
    return total


def _unlink(root: Path, paths: list[bytes]) -> None:
    """Remove what git wrote in the place of symbolic links: files that hold the target, nobody's source."""
    for path in paths:
        with suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
            (root / os.fsdecode(path)).unlink()
