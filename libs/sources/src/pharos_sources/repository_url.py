"""What a user typed as a repository, made into one address or refused with a reason. Pure: no look-ups.

The rules, each of which is a row of the table in the tests:

- Percent-encoding is decoded exactly once. A percent sign that is left is refused, so nothing hides behind a
  second decoding. Everything below applies to the decoded text.
- `https://` may be missing, and a proxy may have collapsed it to `https:/`. Other schemes and `git@host:…`
  are refused, and so is `http://` unless the list of allowed hosts has the host with `http://`.
- A query string or a fragment is refused, not dropped: `?ref=…` ignored would index the wrong thing.
- `/tree/<branch>` (GitLab: `/-/tree/<branch>`) names a branch, which may contain slashes.
- A trailing slash and one `.git` are not part of what a repository is called.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from pharos_sources.hosts import (
    DEFAULT_PORTS,
    AllowedHosts,
    InvalidHost,
    is_ip_literal,
    may_be_public,
    split_authority,
)

__all__ = [
    "AllowedHosts",
    "InvalidRef",
    "InvalidRepositoryUrl",
    "RepositoryAddress",
    "parse_ref",
    "parse_repository_url",
    "parse_sha",
]

URL_LENGTH_MAX: Final = 2_048
REF_LENGTH_MAX: Final = 255
SEGMENTS_MAX: Final = 20  # GitLab nests groups up to 20 deep

_SCHEME: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):/{1,2}")
_SCP_FORM: Final = re.compile(r"[^/@:]+@[^/:]+:")
_NAME: Final = re.compile(r"[A-Za-z0-9._~+-]+")
_FULL_SHA: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)")
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

# On these hosts a repository is exactly owner/name, and upper and lower case name the same one.
_TWO_SEGMENT_HOSTS: Final = frozenset({"github.com", "bitbucket.org", "codeberg.org"})
_CASELESS_HOSTS: Final = _TWO_SEGMENT_HOSTS | {"gitlab.com"}

_ONLY_HTTPS: Final = "only https URLs are accepted"


class InvalidRepositoryUrl(ValueError):
    """The text is not the address of a repository that may be fetched; `reason` is a clause that says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class InvalidRef(ValueError):
    """The text is not the name of a branch, a tag or a commit; `reason` is a clause that says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryAddress:
    """Where a repository is. `path` has no outer slashes, no `.git`; `port` is None for the default one."""

    scheme: str
    host: str
    port: int | None
    path: str
    branch: str | None
    private_allowed: bool

    @property
    def authority(self) -> str:
        """`host`, `host:port`, `[v6]` or `[v6]:port`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def connect_port(self) -> int:
        """The TCP port to connect to."""
        return self.port if self.port is not None else DEFAULT_PORTS[self.scheme]

    @property
    def identity(self) -> str:
        """`host/owner/name`: what the repository is called in histories and datasets; parses back to it."""
        return f"{self.authority}/{self.path}"

    @property
    def key(self) -> str:
        """`identity`, in lower case where the host ignores case: one key for every spelling."""
        return self.identity.lower() if self.host in _CASELESS_HOSTS else self.identity

    @property
    def clone_url(self) -> str:
        """What git is given, without `.git`; a fetch tries `.git` for servers that know only that name."""
        return f"{self.scheme}://{self.authority}/{self.path}"

    @property
    def is_ip_literal(self) -> bool:
        """True when the host is an address, which needs no look-up."""
        return is_ip_literal(self.host)

    def dataset_name(self, branch: str) -> str:
        """The dataset that a repository gets when nobody named one: `<host>/<owner>/<name>@<branch>`."""
        return f"{self.identity}@{branch}"

    def web_url(self, commit: str, path: str, start: int | None = None, end: int | None = None) -> str:
        """A link to lines *start* to *end* (from 1) of a file at *commit*; unknown hosts: GitHub's form."""
        blob, first, last = _browse_form(self.host)
        link = f"{self.clone_url}/{blob.format(commit=quote(commit, safe=''))}/{quote(path, safe='/')}"
        if start is None:
            return link
        anchor = first.format(line=start)
        return link + (anchor if end is None or end == start else anchor + last.format(line=end))


def _browse_form(host: str) -> tuple[str, str, str]:
    if host == "gitlab.com" or host.startswith("gitlab."):
        return "-/blob/{commit}", "#L{line}", "-{line}"
    if host == "bitbucket.org":
        return "src/{commit}", "#lines-{line}", ":{line}"
    if host == "codeberg.org" or host.startswith(("gitea.", "forgejo.")):
        return "src/commit/{commit}", "#L{line}", "-L{line}"
    return "blob/{commit}", "#L{line}", "-L{line}"


def parse_repository_url(raw: str, *, allowed_hosts: AllowedHosts) -> RepositoryAddress:
    """The address that *raw* means: a URL, or the rest of a request path, raw or percent-encoded.

    Raises `InvalidRepositoryUrl`. Whether the host resolves to a public address is for `guard` to find out.
    """
    text = _decoded(raw)
    scheme, rest = _split_scheme(text)
    authority, _, path = rest.partition("/")
    try:
        host, port = split_authority(authority)
    except InvalidHost as invalid:
        raise InvalidRepositoryUrl(invalid.reason) from None
    admission = allowed_hosts.admit(scheme, host, port)
    if not (admission is not None and admission.private_allowed) and not may_be_public(host):
        raise InvalidRepositoryUrl(_not_public_reason(host))
    if admission is None:
        raise InvalidRepositoryUrl(
            _ONLY_HTTPS if scheme == "http" else "this host is not among the allowed hosts"
        )
    segments, branch = _split_path(path, host)
    return RepositoryAddress(
        scheme=admission.scheme,
        host=host,
        port=None if port == DEFAULT_PORTS[admission.scheme] else port,
        path="/".join(segments),
        branch=branch,
        private_allowed=admission.private_allowed,
    )


def parse_ref(raw: str) -> str:
    """*raw* if it can name a branch or a tag, by the rules of `git check-ref-format`. Raises `InvalidRef`."""
    if not raw:
        raise InvalidRef("the name of a branch is missing")
    if len(raw) > REF_LENGTH_MAX:
        raise InvalidRef("the name of the branch is too long")
    forbidden = (
        raw.startswith(("-", "/", "."))
        or raw.endswith(("/", "."))
        or raw == "@"
        or _REF_FORBIDDEN.search(raw) is not None
        or any(unicodedata.category(character) in _INVISIBLE for character in raw)
    )
    if forbidden:
        raise InvalidRef("the name of the branch is not valid")
    return raw


def parse_sha(raw: str) -> str:
    """A full commit id, in lower case: servers know no short ones. Raises `InvalidRef`."""
    sha = raw.lower()
    if not _FULL_SHA.fullmatch(sha):
        raise InvalidRef("a commit must be given by its full id, 40 or 64 hexadecimal digits")
    return sha


def _decoded(raw: str) -> str:
    if not raw:
        raise InvalidRepositoryUrl("the URL is empty")
    if len(raw) > URL_LENGTH_MAX:
        raise InvalidRepositoryUrl(f"the URL is longer than {URL_LENGTH_MAX} characters")
    try:
        text = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeError:
        raise InvalidRepositoryUrl("the percent-encoding is not valid") from None
    if any(unicodedata.category(character) in _INVISIBLE for character in text):
        raise InvalidRepositoryUrl("control characters are not accepted")
    if any(unicodedata.category(character) == "Zs" for character in text):
        raise InvalidRepositoryUrl("spaces are not accepted")
    if "\\" in text:
        raise InvalidRepositoryUrl("backslashes are not accepted")
    if "%" in text:
        raise InvalidRepositoryUrl("the percent-encoding is not valid")
    if text.startswith("-"):
        raise InvalidRepositoryUrl("a URL may not start with a dash")
    if ".." in text:
        raise InvalidRepositoryUrl("'..' is not accepted")
    return text


def _split_scheme(text: str) -> tuple[str | None, str]:
    """(`https`, `http` or None, the rest from the host on); anything else is refused."""
    match = _SCHEME.match(text)
    if match is None:
        authority = text.partition("/")[0]
        if _SCP_FORM.match(text):
            raise InvalidRepositoryUrl(f"{_ONLY_HTTPS}, not git@host:owner/name")
        if "@" in authority:
            raise InvalidRepositoryUrl("credentials in a URL are not accepted")
        if re.match(r"[^\[\]/:]*:(?![0-9]+$)", authority):
            raise InvalidRepositoryUrl(_ONLY_HTTPS)  # file:, ext::, host:owner/name
        return None, text
    scheme, rest = match["scheme"].lower(), text[match.end() :]
    if scheme not in DEFAULT_PORTS:
        raise InvalidRepositoryUrl(_ONLY_HTTPS)
    if "@" in re.split(r"[/?#]", rest, maxsplit=1)[0]:
        raise InvalidRepositoryUrl("credentials in a URL are not accepted")
    return scheme, rest


def _not_public_reason(host: str) -> str:
    if is_ip_literal(host):
        return "the address is not public"
    if "." not in host and host != "localhost":
        return "the host is not a full domain name"
    return "the host is not public"


def _split_path(path: str, host: str) -> tuple[list[str], str | None]:
    """(owner, …, name; branch or None)."""
    if "?" in path:
        raise InvalidRepositoryUrl("a query string is not accepted")
    if "#" in path:
        raise InvalidRepositoryUrl("a fragment is not accepted")
    segments = path.rstrip("/").split("/")
    branch: str | None = None
    for position, segment in enumerate(segments):
        if position >= 2 and segment in {"tree", "-"}:
            branch = _branch(segments[position:])
            segments = segments[:position]
            break
    if len(segments) < 2:
        raise InvalidRepositoryUrl("an owner and a name are needed, as in github.com/owner/name")
    if len(segments) > SEGMENTS_MAX or (host in _TWO_SEGMENT_HOSTS and len(segments) > 2):
        raise InvalidRepositoryUrl("this is not the address of a repository, as in github.com/owner/name")
    segments[-1] = segments[-1].removesuffix(".git")
    for segment in segments:
        _check_segment(segment)
    if segments[-1].endswith(".git"):
        raise InvalidRepositoryUrl("the name of a repository may not end in .git")
    return segments, branch


def _branch(segments: list[str]) -> str:
    """The branch in `tree/<branch>` or `-/tree/<branch>`."""
    if segments[0] == "-":
        segments = segments[1:]
    if not segments or segments[0] != "tree":
        raise InvalidRepositoryUrl("this is not the address of a repository, as in github.com/owner/name")
    try:
        return parse_ref("/".join(segments[1:]))
    except InvalidRef as invalid:
        raise InvalidRepositoryUrl(invalid.reason) from None


def _check_segment(segment: str) -> None:
    if not segment:
        raise InvalidRepositoryUrl("a part of the path is empty")
    if segment.startswith("-"):
        raise InvalidRepositoryUrl("no part of the path may start with a dash")
    if segment == "." or not _NAME.fullmatch(segment):
        raise InvalidRepositoryUrl(
            "only letters, digits and . _ ~ + - are accepted in the path of a repository"
        )
