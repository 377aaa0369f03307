"""Host names: one normal form, and the hosts that an operator admits. Pure, no look-ups."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address, ip_address
from typing import Final

import idna

from pharos_sources.addresses import ends_in_a_number, is_nat64, is_public, loose_ipv4

DEFAULT_PORTS: Final = {"https": 443, "http": 80}
HOST_LENGTH_MAX: Final = 253
RULES_MAX: Final = 1_000
ANY_PUBLIC: Final = "*"

_PLAIN_HOST: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_LOCAL_SUFFIXES: Final = (
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "lan",
    "home",
    "corp",
    "home.arpa",
)


class InvalidHost(ValueError):
    """The text is no host name or address; `reason` is a clause that says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class InvalidAllowedHost(ValueError):
    """One entry of the list of allowed hosts cannot be understood."""

    def __init__(self, entry: str, reason: str) -> None:
        super().__init__(f"PHAROS_GIT_ALLOWED_HOSTS: {entry!r}: {reason}")
        self.entry = entry
        self.reason = reason


def normal_host(text: str) -> str:
    """*text* as lower-case ASCII by IDNA (UTS 46), one trailing dot dropped; IPv6 without its brackets.

    Full-width digits and the ideographic full stop become ordinary ones here: what follows sees one spelling.
    An IPv4 address must be in its ordinary notation. Raises `InvalidHost`.
    """
    if text.startswith("["):
        return _normal_ipv6(text)
    try:
        mapped = idna.uts46_remap(text, std3_rules=True, transitional=False).removesuffix(".")
    except idna.IDNAError:
        raise InvalidHost("the host name is not valid") from None
    if not mapped:
        raise InvalidHost("the host is missing")
    if len(mapped) > HOST_LENGTH_MAX:
        raise InvalidHost("the host name is too long")
    if mapped.startswith("-"):
        raise InvalidHost("a host may not start with a dash")
    if ends_in_a_number(mapped):
        address = loose_ipv4(mapped)
        if address is None:
            raise InvalidHost("the host name is not valid")
        if str(address) != mapped:
            raise InvalidHost("an IP address must be written in its ordinary form")
        return mapped
    try:
        host = idna.encode(mapped).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        raise InvalidHost("the host name is not valid") from None
    if len(host) > HOST_LENGTH_MAX or not _PLAIN_HOST.fullmatch(host):
        raise InvalidHost("the host name is not valid")
    return host


def _normal_ipv6(text: str) -> str:
    try:
        if not text.endswith("]") or "%" in text:
            raise InvalidHost("the IPv6 address is not valid")
        return IPv6Address(text[1:-1]).compressed
    except AddressValueError:
        raise InvalidHost("the IPv6 address is not valid") from None


def is_ip_literal(host: str) -> bool:
    """True when the normal *host* is an address and not a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def may_be_public(host: str) -> bool:
    """False when the normal *host* is known, without any look-up, not to be on the public internet."""
    if is_ip_literal(host):
        # A name server may answer with NAT64, and is believed; nobody has a reason to write it.
        return is_public(host) and not is_nat64(host)
    if "." not in host:
        return False  # resolved against the search domains of whoever looks it up
    return not any(host == suffix or host.endswith(f".{suffix}") for suffix in _LOCAL_SUFFIXES)


def split_authority(authority: str) -> tuple[str, int | None]:
    """`host`, `host:port` or `[v6]:port` as (normal host, port or None). Raises `InvalidHost`."""
    head, colon, tail = authority, "", ""
    if authority.startswith("["):
        closing = authority.find("]")
        head, rest = authority[: closing + 1], authority[closing + 1 :]
        if closing == -1 or (rest and not rest.startswith(":")):
            raise InvalidHost("the IPv6 address is not valid")
        colon, tail = rest[:1], rest[1:]
    elif ":" in authority:
        head, colon, tail = authority.partition(":")
    host = normal_host(head)
    if not colon:
        return host, None
    if not _PORT.fullmatch(tail) or not tail.isascii() or not 0 < int(tail) < 65_536:
        raise InvalidHost("the port is not valid")
    return host, int(tail)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRule:
    """One entry of the list. `http` admits plain http too, and private addresses; `https` does neither."""

    scheme: str
    host: str
    port: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """How a host may be reached."""

    scheme: str
    private_allowed: bool


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """The hosts that repositories may come from. No rules: every public https host.

    `any_public` says so beside rules: they admit further hosts then, and restrict nothing.
    """

    rules: tuple[HostRule, ...] = ()
    any_public: bool = False

    @classmethod
    def parse(cls, text: str) -> AllowedHosts:
        """Read `host, host:port, https://host, http://127.0.0.1:9418`, separated by commas or white space.

        `*` is every public https host. Raises `InvalidAllowedHost` naming the entry.
        """
        entries = [entry for entry in re.split(r"[,\s]+", text) if entry]
        if len(entries) > RULES_MAX:
            raise InvalidAllowedHost(entries[RULES_MAX], f"more than {RULES_MAX} hosts")
        rules = tuple(_rule(entry) for entry in entries if entry != ANY_PUBLIC)
        return cls(rules, any_public=ANY_PUBLIC in entries)

    def admit(self, scheme: str | None, host: str, port: int | None) -> Admission | None:
        """How the normal *host* may be reached, or None when it may not.

        No *scheme* given: https, unless the rules speak of this host with http only.

        A rule without a port matches the default port of the scheme in use, a rule with one exactly that.
        """
        public = None if scheme == "http" else Admission(scheme="https", private_allowed=False)
        if not self.rules:
            return public
        if scheme is None:
            tls = any(rule.scheme == "https" and _matches(rule, "https", host, port) for rule in self.rules)
            scheme = "https" if tls else "http"
        matching = [rule for rule in self.rules if _matches(rule, scheme, host, port)]
        if not matching:
            return public if self.any_public else None
        return Admission(scheme=scheme, private_allowed=any(rule.scheme == "http" for rule in matching))


def _matches(rule: HostRule, scheme: str, host: str, port: int | None) -> bool:
    if rule.host != host or (scheme == "http" and rule.scheme != "http"):
        return False
    used = port if port is not None else DEFAULT_PORTS[scheme]
    return used == (rule.port if rule.port is not None else DEFAULT_PORTS[scheme])


def _rule(entry: str) -> HostRule:
    scheme, separator, rest = entry.partition("://")
    if not separator:
        scheme, rest = "https", entry
    scheme, rest = scheme.lower(), rest.removesuffix("/")
    if scheme not in DEFAULT_PORTS:
        raise InvalidAllowedHost(entry, "only https:// and http:// can be listed")
    if "@" in rest:
        raise InvalidAllowedHost("…", "credentials do not belong here")
    if "/" in rest or "?" in rest or "#" in rest:
        raise InvalidAllowedHost(entry, "only a host and a port can be listed, no path")
    if "*" in rest:
        raise InvalidAllowedHost(entry, "only `*` alone is a wildcard: list each host")
    try:
        host, port = split_authority(rest)
    except InvalidHost as invalid:
        raise InvalidAllowedHost(entry, invalid.reason) from None
    return HostRule(scheme=scheme, host=host, port=port)
