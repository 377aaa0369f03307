"""Every rule about repository URLs, as one table of what is accepted and one of what is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pharos_sources.hosts import InvalidAllowedHost
from pharos_sources.repository_url import (
    AllowedHosts,
    InvalidRef,
    InvalidRepositoryUrl,
    RepositoryAddress,
    parse_ref,
    parse_repository_url,
    parse_sha,
)

PUBLIC = AllowedHosts()
LOCAL = AllowedHosts.parse("http://127.0.0.1:9418, github.com, git.example.org:8443, http://gitlab.corp")


def parse(raw: str, allowed: AllowedHosts = PUBLIC) -> RepositoryAddress:
    return parse_repository_url(raw, allowed_hosts=allowed)


GITHUB = ("github.com/user/repo", "https://github.com/user/repo", None)

ACCEPTED = [
    # spellings of one repository
    ("https://github.com/user/repo", *GITHUB),
    ("https://github.com/user/repo/", *GITHUB),
    ("https://github.com/user/repo///", *GITHUB),
    ("https://github.com/user/repo.git", *GITHUB),
    ("https://github.com/user/repo.git/", *GITHUB),
    ("github.com/user/repo", *GITHUB),
    ("github.com/user/repo.git", *GITHUB),
    ("https:/github.com/user/repo", *GITHUB),
    ("https:/github.com/user/repo.git/", *GITHUB),
    ("HTTPS://GitHub.COM/user/repo", *GITHUB),
    ("https%3A%2F%2Fgithub.com%2Fuser%2Frepo", *GITHUB),
    ("https%3a%2f%2fgithub.com%2fuser%2frepo.git%2f", *GITHUB),
    ("github.com%2Fuser%2Frepo", *GITHUB),
    ("https://github.com/%75ser/repo", *GITHUB),
    ("https://github.com:443/user/repo", *GITHUB),
    ("github.com:443/user/repo", *GITHUB),
    ("https://github.com./user/repo", *GITHUB),
    ("https://github。com/user/repo", *GITHUB),
    ("https://ｇｉｔｈｕｂ．ｃｏｍ/user/repo", *GITHUB),
    ("https://ⓖithub.com/user/repo", *GITHUB),
    # the case of a path is kept, that of a host is not
    ("https://GITHUB.com/User/Repo", "github.com/User/Repo", "https://github.com/User/Repo", None),
    # branches
    ("https://github.com/user/repo/tree/main", GITHUB[0], GITHUB[1], "main"),
    ("https://github.com/user/repo/tree/main/", GITHUB[0], GITHUB[1], "main"),
    ("https://github.com/user/repo/tree/feature/a/b", GITHUB[0], GITHUB[1], "feature/a/b"),
    ("https://github.com/user/repo/tree/feature%2Fa", GITHUB[0], GITHUB[1], "feature/a"),
    ("https://github.com/user/repo.git/tree/v1.0", GITHUB[0], GITHUB[1], "v1.0"),
    ("https%3A%2F%2Fgithub.com%2Fuser%2Frepo%2Ftree%2Fdev", GITHUB[0], GITHUB[1], "dev"),
    ("github.com/user/repo/tree/tree/tree", GITHUB[0], GITHUB[1], "tree/tree"),
    ("github.com/user/repo/tree/größe", GITHUB[0], GITHUB[1], "größe"),
    ("https://gitlab.com/g/p/-/tree/main", "gitlab.com/g/p", "https://gitlab.com/g/p", "main"),
    ("https://gitlab.com/g/s/t/p/-/tree/a/b", "gitlab.com/g/s/t/p", "https://gitlab.com/g/s/t/p", "a/b"),
    # other hosts and names
    ("https://gitlab.com/g/s/p.git", "gitlab.com/g/s/p", "https://gitlab.com/g/s/p", None),
    ("https://bitbucket.org/team/repo", "bitbucket.org/team/repo", "https://bitbucket.org/team/repo", None),
    ("https://git.sr.ht/~user/repo", "git.sr.ht/~user/repo", "https://git.sr.ht/~user/repo", None),
    ("https://github.com/a/tree", "github.com/a/tree", "https://github.com/a/tree", None),
    ("https://github.com/a/.github", "github.com/a/.github", "https://github.com/a/.github", None),
    ("https://github.com/a/c++_x-1.0", "github.com/a/c++_x-1.0", "https://github.com/a/c++_x-1.0", None),
    (
        "https://git.example.org:8443/a/b",
        "git.example.org:8443/a/b",
        "https://git.example.org:8443/a/b",
        None,
    ),
    ("git.example.org:8443/a/b", "git.example.org:8443/a/b", "https://git.example.org:8443/a/b", None),
    ("https://münchen.de/a/b", "xn--mnchen-3ya.de/a/b", "https://xn--mnchen-3ya.de/a/b", None),
    ("https://xn--mnchen-3ya.de/a/b", "xn--mnchen-3ya.de/a/b", "https://xn--mnchen-3ya.de/a/b", None),
    ("https://m%C3%BCnchen.de/a/b", "xn--mnchen-3ya.de/a/b", "https://xn--mnchen-3ya.de/a/b", None),
    # looks like github.com, and is seen not to be
    ("https://gіthub.com/a/b", "xn--gthub-n2e.com/a/b", "https://xn--gthub-n2e.com/a/b", None),
    (
        "https://localhost.example.com/a/b",
        "localhost.example.com/a/b",
        "https://localhost.example.com/a/b",
        None,
    ),
    # public addresses, in their ordinary notation
    ("https://140.82.112.3/a/b", "140.82.112.3/a/b", "https://140.82.112.3/a/b", None),
    ("https://[2606:4700::6810:1]/a/b", "[2606:4700::6810:1]/a/b", "https://[2606:4700::6810:1]/a/b", None),
    ("https://[2606:4700:0::1]:8443/a/b", "[2606:4700::1]:8443/a/b", "https://[2606:4700::1]:8443/a/b", None),
]

SCHEME = "only https URLs are accepted"
CREDENTIALS = "credentials in a URL are not accepted"
NOT_PUBLIC = "the address is not public"
LOCAL_NAME = "the host is not public"
NOT_FULL = "the host is not a full domain name"
ODD_ADDRESS = "an IP address must be written in its ordinary form"
BAD_HOST = "the host name is not valid"
BAD_IPV6 = "the IPv6 address is not valid"
BAD_PORT = "the port is not valid"
DOTS = "'..' is not accepted"
CONTROL = "control characters are not accepted"
SPACES = "spaces are not accepted"
ENCODING = "the percent-encoding is not valid"
OWNER = "an owner and a name are needed, as in github.com/owner/name"
NOT_A_REPOSITORY = "this is not the address of a repository, as in github.com/owner/name"
CHARACTERS = "only letters, digits and . _ ~ + - are accepted in the path of a repository"
BAD_BRANCH = "the name of the branch is not valid"
DASH_SEGMENT = "no part of the path may start with a dash"
QUERY = "a query string is not accepted"
FRAGMENT = "a fragment is not accepted"

REFUSED = [
    ("", "the URL is empty"),
    ("https://github.com/user/" + "r" * 2048, "the URL is longer than 2048 characters"),
    # schemes
    ("http://github.com/user/repo", SCHEME),
    ("http:/github.com/user/repo", SCHEME),
    ("file:///etc/passwd", SCHEME),
    ("file:/etc/passwd", SCHEME),
    ("FILE:///etc/passwd", SCHEME),
    ("ssh://git@github.com/user/repo", SCHEME),
    ("git://github.com/user/repo", SCHEME),
    ("git:/github.com/user/repo", SCHEME),
    ("ftp://example.com/a/b", SCHEME),
    ("git+https://github.com/user/repo", SCHEME),
    ("ext::sh%20-c%20id", SPACES),
    ("ext::sh/-c/id", SCHEME),
    ("ext::https://github.com/user/repo", SCHEME),
    ("javascript:alert/1/2", SCHEME),
    ("https:github.com/user/repo", SCHEME),
    ("github.com:user/repo", SCHEME),
    ("git@github.com:user/repo.git", f"{SCHEME}, not git@host:owner/name"),
    ("git%40github.com:user/repo", f"{SCHEME}, not git@host:owner/name"),
    # credentials
    ("https://user@github.com/user/repo", CREDENTIALS),
    ("https://user:secret@github.com/user/repo", CREDENTIALS),
    ("https://:@github.com/user/repo", CREDENTIALS),
    ("https://github.com%40evil.example.com/user/repo", CREDENTIALS),
    ("user@github.com/user/repo", CREDENTIALS),
    ("https:/user:secret@github.com/user/repo", CREDENTIALS),
    # dots, characters, encodings
    ("https://github.com/../etc/passwd", DOTS),
    ("https://github.com/user/..", DOTS),
    ("https://github.com/user/%2e%2e/x", DOTS),
    ("https://github.com/user/repo/tree/a..b", DOTS),
    ("https://github.com/user/repo%00", CONTROL),
    ("https://github.com/user/repo\n", CONTROL),
    ("https://github.com/user/re%0d%0apo", CONTROL),
    ("https://github.com/user/repo\x7f", CONTROL),
    ("https://git\u200bhub.com/user/repo", CONTROL),
    ("https://github.com/user/\u202eoper", CONTROL),
    ("https://github.com/user/\ud800", ENCODING),
    (" https://github.com/user/repo", SPACES),
    ("https://github.com/user/re%20po", SPACES),
    ("https://github.com/user\u00a0/repo", SPACES),
    ("https:\\\\github.com\\user\\repo", "backslashes are not accepted"),
    ("https://github.com/user%5crepo/x", "backslashes are not accepted"),
    ("https://github.com/user/%252e%252e/x", ENCODING),
    ("https%253A%252F%252Fgithub.com%252Fuser%252Frepo", ENCODING),
    ("https://github.com/user/re%zzpo", ENCODING),
    ("https://github.com/user/re%ffpo", ENCODING),
    ("https://github.com/user/repo?ref=main", QUERY),
    ("https%3A%2F%2Fgithub.com%2Fuser%2Frepo%3Ftoken%3Dx", QUERY),
    ("https://github.com/user/repo#readme", FRAGMENT),
    ("https://github.com/user/repo%23readme", FRAGMENT),
    ("https://github.com?x/user/repo", BAD_HOST),
    # dashes
    ("-oProxyCommand=x/a/b", "a URL may not start with a dash"),
    ("--upload-pack=touch", "a URL may not start with a dash"),
    ("%2d-upload-pack", "a URL may not start with a dash"),
    ("https://-github.com/user/repo", "a host may not start with a dash"),
    ("https://github.com/-user/repo", DASH_SEGMENT),
    ("https://github.com/user/--upload-pack=x", DASH_SEGMENT),
    ("https://github.com/user/repo/tree/-x", BAD_BRANCH),
    # paths
    ("https://github.com", OWNER),
    ("https://github.com/", OWNER),
    ("https://github.com/user", OWNER),
    ("https://github.com/user/", OWNER),
    ("https://github.com/user/.git", "a part of the path is empty"),
    ("https://github.com/user//repo", NOT_A_REPOSITORY),
    ("https://gitlab.com//user/repo", "a part of the path is empty"),
    ("https://github.com/user/repo.git.git", "the name of a repository may not end in .git"),
    ("https://github.com/./repo", CHARACTERS),
    ("https://github.com/user/repo@main", CHARACTERS),
    ("https://github.com/user/re;po", CHARACTERS),
    ("https://github.com/user/$(id)", CHARACTERS),
    ("https://github.com/user/rеpo", CHARACTERS),
    ("https://github.com/user/repo/issues/1", NOT_A_REPOSITORY),
    ("https://github.com/user/repo/blob/main/x.py", NOT_A_REPOSITORY),
    ("https://gitlab.com/g/p/-/issues", NOT_A_REPOSITORY),
    ("https://git.example.org/" + "/".join("abcdefghijklmnopqrstuv"), NOT_A_REPOSITORY),
    ("https://github.com/user/repo/tree", "the name of a branch is missing"),
    ("https://github.com/user/repo/tree/", "the name of a branch is missing"),
    ("https://github.com/user/repo/tree/a.lock", BAD_BRANCH),
    ("https://github.com/user/repo/tree/a:b", BAD_BRANCH),
    ("https://github.com/user/repo/tree/" + "b" * 256, "the name of the branch is too long"),
    # hosts
    ("https:///user/repo", "the host is missing"),
    ("https://./user/repo", "the host is missing"),
    ("user/repo", NOT_FULL),
    ("https://intranet/user/repo", NOT_FULL),
    ("https://git_hub.com/user/repo", BAD_HOST),
    ("https://github.com..example/user/repo", DOTS),
    ("https://.github.com/user/repo", BAD_HOST),
    ("https://git／hub.com/user/repo", BAD_HOST),
    ("https://github.com：443/user/repo", BAD_HOST),
    ("https://xn--a/user/repo", BAD_HOST),
    ("https://" + "a" * 64 + ".com/user/repo", BAD_HOST),
    ("https://" + "a." * 130 + "com/user/repo", "the host name is too long"),
    ("https://github.com:0/user/repo", BAD_PORT),
    ("https://github.com:65536/user/repo", BAD_PORT),
    ("https://github.com:/user/repo", BAD_PORT),
    ("https://github.com:22:443/user/repo", BAD_PORT),
    ("https://github.com:４４３/user/repo", BAD_PORT),
    # names of local things
    ("https://localhost/user/repo", LOCAL_NAME),
    ("https://LOCALHOST:8443/user/repo", LOCAL_NAME),
    ("localhost/user/repo", LOCAL_NAME),
    ("https://localhost./user/repo", LOCAL_NAME),
    ("https://ｌｏｃａｌｈｏｓｔ/user/repo", LOCAL_NAME),
    ("https://git.localhost/user/repo", LOCAL_NAME),
    ("https://printer.local/user/repo", LOCAL_NAME),
    ("https://metadata.google.internal/user/repo", LOCAL_NAME),
    ("https://nats.pharos.svc.cluster.local/user/repo", LOCAL_NAME),
    ("https://router.lan/user/repo", LOCAL_NAME),
    ("https://nas.home.arpa/user/repo", LOCAL_NAME),
    # addresses that are not public, in every notation
    ("https://127.0.0.1/user/repo", NOT_PUBLIC),
    ("127.0.0.1:9418/user/repo", NOT_PUBLIC),
    ("https://127.0.0.1./user/repo", NOT_PUBLIC),
    ("https://１２７．０．０．１/user/repo", NOT_PUBLIC),
    ("https://127。0。0。1/user/repo", NOT_PUBLIC),
    ("https://0.0.0.0/user/repo", NOT_PUBLIC),
    ("https://10.1.2.3/user/repo", NOT_PUBLIC),
    ("https://172.16.0.1/user/repo", NOT_PUBLIC),
    ("https://192.168.1.1/user/repo", NOT_PUBLIC),
    ("https://169.254.169.254/user/repo", NOT_PUBLIC),
    ("https://100.64.0.1/user/repo", NOT_PUBLIC),
    ("https://100.100.100.200/user/repo", NOT_PUBLIC),
    ("https://168.63.129.16/user/repo", NOT_PUBLIC),
    ("https://224.0.0.1/user/repo", NOT_PUBLIC),
    ("https://255.255.255.255/user/repo", NOT_PUBLIC),
    ("https://2130706433/user/repo", ODD_ADDRESS),
    ("https://0177.0.0.1/user/repo", ODD_ADDRESS),
    ("https://0x7f.1/user/repo", ODD_ADDRESS),
    ("https://0x7f000001/user/repo", ODD_ADDRESS),
    ("https://0X7F.0.0.1/user/repo", ODD_ADDRESS),
    ("https://127.1/user/repo", ODD_ADDRESS),
    ("https://127.0.1/user/repo", ODD_ADDRESS),
    ("https://0/user/repo", ODD_ADDRESS),
    ("https://0x/user/repo", ODD_ADDRESS),
    ("https://127.00.0.1/user/repo", ODD_ADDRESS),
    ("https://017700000001/user/repo", ODD_ADDRESS),
    ("https://134744072/user/repo", ODD_ADDRESS),
    ("https://256.1.1.1/user/repo", BAD_HOST),
    ("https://1.2.3.4.5/user/repo", BAD_HOST),
    ("https://4294967296/user/repo", BAD_HOST),
    ("https://github.123/user/repo", BAD_HOST),
    ("https://[::1]/user/repo", NOT_PUBLIC),
    ("https://[0:0:0:0:0:0:0:1]/user/repo", NOT_PUBLIC),
    ("https://[::]/user/repo", NOT_PUBLIC),
    ("https://[fe80::1]/user/repo", NOT_PUBLIC),
    ("https://[fc00::1]/user/repo", NOT_PUBLIC),
    ("https://[fd00:ec2::254]/user/repo", NOT_PUBLIC),
    ("https://[ff02::1]/user/repo", NOT_PUBLIC),
    ("https://[::ffff:127.0.0.1]/user/repo", NOT_PUBLIC),
    ("https://[::ffff:7f00:1]/user/repo", NOT_PUBLIC),
    ("https://[::127.0.0.1]/user/repo", NOT_PUBLIC),
    ("https://[64:ff9b::7f00:1]/user/repo", NOT_PUBLIC),
    ("https://[64:ff9b::8.8.8.8]/user/repo", NOT_PUBLIC),
    ("https://[64:ff9b:1::808:808]/user/repo", NOT_PUBLIC),
    ("https://[2002:7f00:1::]/user/repo", NOT_PUBLIC),
    ("https://[2001::1]/user/repo", NOT_PUBLIC),
    ("https://[2001:db8::1]/user/repo", NOT_PUBLIC),
    ("https://[fe80::1%25eth0]/user/repo", ENCODING),
    ("https://[::1/user/repo", BAD_IPV6),
    ("https://[github.com]/user/repo", BAD_IPV6),
    ("https://[::1]x/user/repo", BAD_IPV6),
]


@pytest.mark.parametrize(("raw", "identity", "clone_url", "branch"), ACCEPTED)
def test_an_accepted_url_has_one_identity(
    raw: str, identity: str, clone_url: str, branch: str | None
) -> None:
    address = parse(raw)
    assert (address.identity, address.clone_url, address.branch) == (identity, clone_url, branch)
    assert not address.private_allowed


@pytest.mark.parametrize("raw", [row[0] for row in ACCEPTED])
def test_what_was_accepted_parses_back_to_itself(raw: str) -> None:
    address = parse(raw)
    for spelling in (address.identity, address.clone_url, address.clone_url + ".git"):
        again = parse(spelling)
        assert (again.identity, again.clone_url) == (address.identity, address.clone_url)


@pytest.mark.parametrize(("raw", "reason"), REFUSED)
def test_a_refused_url_says_why(raw: str, reason: str) -> None:
    with pytest.raises(InvalidRepositoryUrl) as refusal:
        parse(raw)
    assert refusal.value.reason == reason


def test_the_tables_have_no_row_twice() -> None:
    rows = [row[0] for row in ACCEPTED] + [row[0] for row in REFUSED]
    assert len(rows) == len(set(rows))
    assert len(rows) >= 90


@pytest.mark.parametrize(
    ("raw", "clone_url", "private"),
    [
        ("http://127.0.0.1:9418/a/b", "http://127.0.0.1:9418/a/b", True),
        ("127.0.0.1:9418/a/b.git", "http://127.0.0.1:9418/a/b", True),
        ("http:/127.0.0.1:9418/a/b", "http://127.0.0.1:9418/a/b", True),
        ("https://127.0.0.1:9418/a/b", "https://127.0.0.1:9418/a/b", True),
        ("https://github.com/a/b", "https://github.com/a/b", False),
        ("github.com/a/b", "https://github.com/a/b", False),
        ("git.example.org:8443/a/b", "https://git.example.org:8443/a/b", False),
        ("http://gitlab.corp/a/b", "http://gitlab.corp/a/b", True),
        ("http://gitlab.corp:80/a/b", "http://gitlab.corp/a/b", True),
        ("https://gitlab.corp/a/b", "https://gitlab.corp/a/b", True),
        ("gitlab.corp/a/b", "http://gitlab.corp/a/b", True),
    ],
)
def test_a_listed_host_is_admitted_on_its_terms(raw: str, clone_url: str, private: bool) -> None:
    address = parse(raw, LOCAL)
    assert (address.clone_url, address.private_allowed) == (clone_url, private)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("https://gitlab.com/a/b", "this host is not among the allowed hosts"),
        ("https://github.com:8443/a/b", "this host is not among the allowed hosts"),
        ("https://git.example.org/a/b", "this host is not among the allowed hosts"),
        ("https://www.github.com/a/b", "this host is not among the allowed hosts"),
        ("http://github.com/a/b", SCHEME),
        ("http://127.0.0.1/a/b", NOT_PUBLIC),
        ("http://127.0.0.1:9419/a/b", NOT_PUBLIC),
        ("http://127.0.0.2:9418/a/b", NOT_PUBLIC),
        ("http://127.1:9418/a/b", ODD_ADDRESS),
        ("http://localhost:9418/a/b", LOCAL_NAME),
        ("http://gitlab.corp:8080/a/b", LOCAL_NAME),
    ],
)
def test_a_list_of_hosts_restricts_to_it(raw: str, reason: str) -> None:
    with pytest.raises(InvalidRepositoryUrl) as refusal:
        parse(raw, LOCAL)
    assert refusal.value.reason == reason


def test_a_private_host_listed_without_http_stays_refused() -> None:
    with pytest.raises(InvalidRepositoryUrl, match="the address is not public"):
        parse("https://127.0.0.1/a/b", AllowedHosts.parse("127.0.0.1, https://127.0.0.1"))


@pytest.mark.parametrize(
    "entry",
    [
        "ssh://github.com",
        "github.com/owner",
        "*.example.com",
        "github.com:0",
        "git_hub.com",
        "http://",
        "https://127.1",
        "https://github.com?x",
    ],
)
def test_a_mistake_in_the_list_of_hosts_names_the_entry(entry: str) -> None:
    with pytest.raises(InvalidAllowedHost) as mistake:
        AllowedHosts.parse(f"github.com, {entry}")
    assert entry in str(mistake.value)


def test_a_password_in_the_list_of_hosts_is_not_repeated() -> None:
    with pytest.raises(InvalidAllowedHost) as mistake:
        AllowedHosts.parse("https://user:hunter2@github.com")
    assert "hunter2" not in str(mistake.value)


def test_an_empty_list_of_hosts_means_every_public_host() -> None:
    assert AllowedHosts.parse("  ,\n") == AllowedHosts()


STAR = AllowedHosts.parse("*, http://127.0.0.1:9418")


@pytest.mark.parametrize(
    ("raw", "clone_url"),
    [
        ("https://github.com/a/b", "https://github.com/a/b"),
        ("github.com/a/b", "https://github.com/a/b"),
        ("https://git.example.org:8443/a/b", "https://git.example.org:8443/a/b"),
        ("http://127.0.0.1:9418/a/b", "http://127.0.0.1:9418/a/b"),
    ],
)
def test_a_star_keeps_every_public_host_beside_the_listed_ones(raw: str, clone_url: str) -> None:
    assert parse(raw, STAR).clone_url.removesuffix(".git") == clone_url


@pytest.mark.parametrize(
    "raw",
    [
        "http://github.com/a/b",
        "https://127.0.0.1/a/b",
        "http://127.0.0.1:8000/a/b",
        "http://localhost:9418/a/b",
        "https://10.0.0.1/a/b",
        "https://gitlab.internal/a/b",
    ],
)
def test_a_star_admits_neither_plain_http_nor_private_hosts(raw: str) -> None:
    with pytest.raises(InvalidRepositoryUrl):
        parse(raw, STAR)


def test_a_star_alone_is_the_same_as_no_list() -> None:
    assert parse("https://github.com/a/b", AllowedHosts.parse("*")) == parse("https://github.com/a/b")
    with pytest.raises(InvalidRepositoryUrl):
        parse("http://127.0.0.1:9418/a/b", AllowedHosts.parse("*"))


def test_spellings_in_another_case_share_a_key_where_the_host_ignores_case() -> None:
    assert parse("github.com/User/Repo").key == parse("GitHub.com/user/repo").key
    assert parse("git.example.org/User/Repo").key != parse("git.example.org/user/repo").key


def test_a_dataset_is_named_after_repository_and_branch() -> None:
    assert parse("https://github.com/user/repo.git").dataset_name("main") == "github.com/user/repo@main"


@pytest.mark.parametrize(
    ("raw", "start", "end", "link"),
    [
        ("github.com/o/r", 3, 9, "https://github.com/o/r/blob/c0ffee/a%20b/x.py#L3-L9"),
        ("github.com/o/r", 3, 3, "https://github.com/o/r/blob/c0ffee/a%20b/x.py#L3"),
        ("github.com/o/r", 3, None, "https://github.com/o/r/blob/c0ffee/a%20b/x.py#L3"),
        ("github.com/o/r", None, None, "https://github.com/o/r/blob/c0ffee/a%20b/x.py"),
        ("gitlab.com/g/s/p", 3, 9, "https://gitlab.com/g/s/p/-/blob/c0ffee/a%20b/x.py#L3-9"),
        ("gitlab.example.org/g/p", 3, 9, "https://gitlab.example.org/g/p/-/blob/c0ffee/a%20b/x.py#L3-9"),
        ("bitbucket.org/o/r", 3, 9, "https://bitbucket.org/o/r/src/c0ffee/a%20b/x.py#lines-3:9"),
        ("codeberg.org/o/r", 3, 9, "https://codeberg.org/o/r/src/commit/c0ffee/a%20b/x.py#L3-L9"),
        ("git.example.org/o/r", 3, 9, "https://git.example.org/o/r/blob/c0ffee/a%20b/x.py#L3-L9"),
    ],
)
def test_a_hit_links_to_its_lines(raw: str, start: int | None, end: int | None, link: str) -> None:
    assert parse(raw).web_url("c0ffee", "a b/x.py", start, end) == link


@pytest.mark.parametrize("name", ["main", "feature/a", "v1.0", "a@b", "größe", "#1", "a%2fb", "x" * 255])
def test_a_ref_that_git_accepts_is_accepted(name: str) -> None:
    assert parse_ref(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-x",
        "/a",
        "a/",
        "a//b",
        "a..b",
        "a b",
        "a~1",
        "a^",
        "a:b",
        "a?",
        "a*",
        "a[",
        "a\\b",
        "@",
        "a@{1}",
        "a.lock",
        "a.lock/b",
        ".a",
        "a/.b",
        "a.",
        "a\x00b",
        "a\nb",
        "a\u200bb",
        "x" * 256,
    ],
)
def test_a_ref_that_git_refuses_is_refused(name: str) -> None:
    with pytest.raises(InvalidRef):
        parse_ref(name)


def test_a_commit_is_a_full_id() -> None:
    assert parse_sha("ABCDEF" + "0" * 34) == "abcdef" + "0" * 34
    assert parse_sha("a" * 64) == "a" * 64
    for text in ("", "abc1234", "g" * 40, "a" * 41, "a" * 40 + "\n", "HEAD", "-" * 40):
        with pytest.raises(InvalidRef):
            parse_sha(text)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=80) | st.text(alphabet="htps:/@.%2e-[]0x17fgithub?#\\~", max_size=60))
def test_any_text_is_accepted_or_refused_and_never_crashes(raw: str) -> None:
    for text in (raw, f"https://{raw}", f"https://github.com/{raw}"):
        try:
            address = parse(text)
        except InvalidRepositoryUrl:
            continue
        assert address.scheme == "https"
        assert not set("@?#%\\ ") & set(address.clone_url)
        assert ".." not in address.clone_url
        assert parse(address.identity).identity == address.identity


def test_the_light_modules_import_no_http_client() -> None:
    probe = (
        "import sys; import pharos_sources.repository_url, pharos_sources.guard; "
        "print([m for m in ('httpx', 'fsspec', 'pharos_sources.git') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
