"""Which addresses are accepted, and how they are written then. What is refused: `test_hostile_addresses`."""

from __future__ import annotations

import pytest

from pharos_sources.hosts import AllowedHosts
from pharos_sources.web_address import InvalidWebAddress, parse_redirect, parse_web_address

ANY = ""
LISTED = "*, http://wiki.corp:8080, https://docs.corp"


@pytest.mark.parametrize(
    ("text", "allowed", "url"),
    [
        ("https://docs.example", ANY, "https://docs.example/"),
        ("HTTPS://Docs.Example:443/A?b=C", ANY, "https://docs.example/A?b=C"),
        ("https://docs.example.:8443/a", ANY, "https://docs.example:8443/a"),
        ("https://docs.example?x=1", ANY, "https://docs.example/?x=1"),
        ("https://docs.example/a#part", ANY, "https://docs.example/a"),
        ("https://docs.example#part?x", ANY, "https://docs.example/"),
        ("https://bücher.example/Köln?ö=ä", ANY, "https://xn--bcher-kva.example/K%C3%B6ln?%C3%B6=%C3%A4"),
        ("https://docs.example/My Notes.pdf", ANY, "https://docs.example/My%20Notes.pdf"),
        ("https://docs.example/a%20b%2Fc", ANY, "https://docs.example/a%20b%2Fc"),
        (
            "https://docs.example/x?u=https://a@b/&c=<d>",
            ANY,
            "https://docs.example/x?u=https://a@b/&c=%3Cd%3E",
        ),
        ("https://docs.example/a/../b", ANY, "https://docs.example/a/../b"),
        ("https://[2606:4700:0:0::1111]/x", ANY, "https://[2606:4700::1111]/x"),
        ("https://8.8.8.8/x", ANY, "https://8.8.8.8/x"),
        ("http://wiki.corp:8080/x", LISTED, "http://wiki.corp:8080/x"),
        ("https://wiki.corp:8080/x", LISTED, "https://wiki.corp:8080/x"),
        ("https://elsewhere.example/x", LISTED, "https://elsewhere.example/x"),
    ],
)
def test_an_accepted_address_has_one_spelling(text: str, allowed: str, url: str) -> None:
    hosts = AllowedHosts.parse(allowed)
    address = parse_web_address(text, allowed_hosts=hosts)
    assert address.url == url
    assert parse_web_address(address.url, allowed_hosts=hosts) == address


@pytest.mark.parametrize(
    ("text", "allowed", "reason"),
    [
        ("", ANY, "the URL is empty"),
        ("docs.example/a", ANY, "only https URLs are accepted"),
        ("https:/docs.example/a", ANY, "only https URLs are accepted"),
        ("http://docs.example/a", ANY, "only https URLs are accepted"),
        ("http://elsewhere.example/a", LISTED, "only https URLs are accepted"),
        ("http://wiki.corp/x", LISTED, "the host is not public"),
        ("https://docs.corp/x", LISTED, "the host is not public"),
        ("https://u:p@docs.example/", ANY, "credentials in a URL are not accepted"),
        ("https://other.example/", "https://docs.example", "this host is not among the allowed hosts"),
        ("https://docs.example/" + "x" * 2_048, ANY, "the URL is longer than 2048 characters"),
    ],
)
def test_a_refusal_says_why(text: str, allowed: str, reason: str) -> None:
    with pytest.raises(InvalidWebAddress) as refusal:
        parse_web_address(text, allowed_hosts=AllowedHosts.parse(allowed))
    assert refusal.value.reason == reason


def test_an_address_does_not_show_its_path_or_its_query() -> None:
    address = parse_web_address("https://docs.example/hidden?token=hidden", allowed_hosts=AllowedHosts())
    assert "hidden" not in repr(address)
    assert address.path == "/hidden"


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("https://other.example/x", "https://other.example/x"),
        ("/x?y", "https://docs.example/x?y"),
        ("x", "https://docs.example/a/x"),
        ("../x", "https://docs.example/x"),
        ("?x", "https://docs.example/a/b?x"),
        ("//other.example/x", "https://other.example/x"),
        ("/K\u00f6ln#part", "https://docs.example/K%C3%B6ln"),
    ],
)
def test_a_redirect_is_read_as_a_browser_reads_it(location: str, url: str) -> None:
    source = parse_web_address("https://docs.example/a/b?c", allowed_hosts=AllowedHosts())
    assert parse_redirect(location, source=source, allowed_hosts=AllowedHosts()).url == url


def test_what_was_asked_for_by_https_is_never_asked_for_by_http() -> None:
    hosts = AllowedHosts.parse("*, http://wiki.corp")
    source = parse_web_address("https://docs.example/", allowed_hosts=hosts)
    with pytest.raises(InvalidWebAddress, match="from https to http"):
        parse_redirect("http://wiki.corp/", source=source, allowed_hosts=hosts)
    plain = parse_web_address("http://wiki.corp/", allowed_hosts=hosts)
    assert parse_redirect("https://docs.example/", source=plain, allowed_hosts=hosts) == source
