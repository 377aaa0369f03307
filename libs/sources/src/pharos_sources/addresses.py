"""Which IP addresses belong to the public internet. Pure; the standard library only."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

IpAddress = IPv4Address | IPv6Address

# Written out instead of `ipaddress.is_global`, whose meaning changed between patch releases of Python, and
# which calls multicast, AS112 and NAT64-wrapped private addresses global.
# Source: the IANA special-purpose registries.
_NOT_PUBLIC_V4: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT, and one cloud's metadata service
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a cloud's platform endpoint on a public address
        "169.254.0.0/16",  # link-local, and the metadata services of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocol assignments, and one cloud's metadata service
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays, deprecated
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_GLOBAL_UNICAST_V6: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_NOT_PUBLIC_V6: Final = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # IETF protocol assignments: Teredo, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: reaches whatever IPv4 address it wraps
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
_NUMBER_TEXT_MAX: Final = 64  # no notation of one address part is longer; keeps int() cheap
_V4_BITS: Final = 32


def is_public(address: str | IpAddress) -> bool:
    """True when *address* can be nothing but a host on the public internet.

    IPv4 inside IPv6 (mapped, NAT64) is judged by the IPv4 address. Text that is no address is not public.
    """
    if isinstance(address, str):
        try:
            address = ip_address(address.partition("%")[0])
        except ValueError:
            return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in _NAT64:
        # Not refused whole: an IPv6-only cluster with DNS64 reaches every public IPv4 host this way.
        return is_public(IPv4Address(int(address) & (2**_V4_BITS - 1)))
    return address in _GLOBAL_UNICAST_V6 and not any(address in network for network in _NOT_PUBLIC_V6)


def is_nat64(address: str) -> bool:
    """True when the valid *address* stands for an IPv4 one behind a translator."""
    return ip_address(address) in _NAT64


def ends_in_a_number(host: str) -> bool:
    """True when the last label of *host* is numeric, so that a resolver may read it as an IPv4 address.

    The rule is that of the WHATWG URL standard, "ends in a number checker".
    """
    last = host.rsplit(".", 1)[-1]
    return last.isascii() and (last.isdigit() or re.fullmatch(r"0[xX][0-9a-fA-F]*", last) is not None)


def loose_ipv4(host: str) -> IPv4Address | None:
    """The address that `inet_aton` reads from *host* (decimal, octal, hexadecimal, short form), or None."""
    parts = host.split(".")
    if not 1 <= len(parts) <= 4:
        return None
    numbers = [_number(part) for part in parts]
    if any(number is None for number in numbers):
        return None
    *leading, last = (number for number in numbers if number is not None)
    if any(number > 0xFF for number in leading) or last >= 1 << (_V4_BITS - 8 * len(leading)):
        return None
    value = last
    for position, number in enumerate(leading):
        value |= number << (_V4_BITS - 8 * (position + 1))
    return IPv4Address(value)


def _number(text: str) -> int | None:
    if not text or len(text) > _NUMBER_TEXT_MAX or not text.isascii():
        return None
    if re.fullmatch(r"0[xX][0-9a-fA-F]*", text):
        return int(text[2:] or "0", 16)
    if re.fullmatch(r"0[0-7]*", text):
        return int(text, 8)
    if re.fullmatch(r"[1-9][0-9]*", text):
        return int(text)
    return None
