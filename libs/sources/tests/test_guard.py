"""Which addresses are public, and which hosts may be connected to."""

from __future__ import annotations

import socket
from collections.abc import Callable

import anyio
import pytest

from pharos_sources.addresses import ends_in_a_number, is_public, loose_ipv4
from pharos_sources.guard import (
    AddressRefused,
    HostNotFound,
    Resolver,
    resolve,
    resolve_public,
    system_resolver,
)

PUBLIC = [
    "1.1.1.1", "8.8.8.8", "140.82.112.3", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0",
    "126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0",
    "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255",
    "2606:4700::1", "2a00:1450:4001::1", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808",
]  # fmt: skip

NOT_PUBLIC = [
    "0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255",
    "100.100.100.200", "127.0.0.1", "127.255.255.255", "168.63.129.16", "169.254.0.0", "169.254.169.254",
    "172.16.0.0", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.0",
    "192.168.255.255", "198.18.0.0", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.0",
    "239.255.255.255", "240.0.0.0", "255.255.255.255", "::", "::1", "::2", "::127.0.0.1", "::8.8.8.8",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a00:1",
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "100::1", "2001::1", "2001:20::1", "2001:db8::1",
    "2002:7f00:1::", "2002:808:808::", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1",
    "fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1", "", "localhost", "1.2.3", "999.1.1.1",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_every_other_address_is_not(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "text",
    [
        "2130706433",
        "0177.0.0.1",
        "0x7f.1",
        "0x7f000001",
        "127.1",
        "127.0.1",
        "017700000001",
        "0x7f.0x0.0x0.0x1",
        "0",
        "0x",
        "1.2",
        "255.65535",
        "8.8.2056",
        "0377.1",
        "0x00000000000000007f.1",
    ],
)
def test_numbers_are_read_as_the_c_library_reads_them(text: str) -> None:
    assert ends_in_a_number(text)
    if text != "0x":  # a browser reads zero here, the C library refuses
        assert loose_ipv4(text) is not None
        assert str(loose_ipv4(text)) == socket.inet_ntoa(socket.inet_aton(text))


@pytest.mark.parametrize("text", ["256.0.0.1", "1.2.3.4.5", "4294967296", "1..2", "08", "1.2.3.0x100", "a.1"])
def test_numbers_that_are_no_address_are_not_read(text: str) -> None:
    assert loose_ipv4(text) is None


def answering(*addresses: str) -> Resolver:
    async def resolver(host: str, port: int) -> list[str]:
        return list(addresses)

    return resolver


def failing(make: Callable[[], OSError]) -> Resolver:
    async def resolver(host: str, port: int) -> list[str]:
        raise make()

    return resolver


@pytest.mark.anyio
async def test_a_host_with_public_addresses_is_resolved_without_repeats() -> None:
    resolver = answering("140.82.112.3", "2606:4700::1", "140.82.112.3")
    assert await resolve_public("github.com", 443, resolver=resolver) == ("140.82.112.3", "2606:4700::1")


@pytest.mark.anyio
@pytest.mark.parametrize("private", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fe80::1%eth0"])
async def test_one_private_address_among_public_ones_refuses_the_host(private: str) -> None:
    with pytest.raises(AddressRefused) as refusal:
        await resolve_public("evil.example.com", 443, resolver=answering("8.8.8.8", private))
    assert private not in str(refusal.value)
    assert not refusal.value.transient


@pytest.mark.anyio
async def test_a_host_admitted_by_name_may_be_private() -> None:
    assert await resolve("gitlab.corp", 80, resolver=answering("10.0.0.1")) == ("10.0.0.1",)


@pytest.mark.anyio
async def test_a_flood_of_addresses_is_cut() -> None:
    flood = answering(*(f"8.8.{n // 256}.{n % 256}" for n in range(1000)))
    assert len(await resolve_public("many.example.com", 443, resolver=flood)) == 32


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("code", "transient"),
    [(socket.EAI_NONAME, False), (socket.EAI_AGAIN, True)],
)
async def test_an_unknown_host_is_not_found(code: int, transient: bool) -> None:
    with pytest.raises(HostNotFound) as failure:
        await resolve_public("nowhere.example", 443, resolver=failing(lambda: socket.gaierror(code, "x")))
    assert failure.value.transient is transient


@pytest.mark.anyio
async def test_a_host_without_addresses_is_not_found() -> None:
    with pytest.raises(HostNotFound):
        await resolve_public("empty.example", 443, resolver=answering())


@pytest.mark.anyio
async def test_a_resolver_that_hangs_is_given_up() -> None:
    async def hanging(host: str, port: int) -> list[str]:
        await anyio.sleep_forever()
        raise AssertionError

    with pytest.raises(HostNotFound) as failure:
        await resolve_public("slow.example", 443, resolver=hanging, timeout_seconds=0.05)
    assert failure.value.transient


@pytest.mark.anyio
async def test_the_system_resolver_is_asked_about_real_names() -> None:
    assert set(await system_resolver("localhost", 80)) <= {"127.0.0.1", "::1"}
    with pytest.raises(AddressRefused):
        await resolve_public("localhost", 80)
