"""Keys of service accounts, and answers of Google, that a stranger made."""

from __future__ import annotations

import json
from base64 import encodebytes

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pharos_sources.asking import Patience
from pharos_sources.google_drive import GoogleDrive
from pharos_sources.google_tokens import GoogleTokens, InvalidKeyFile, RefreshGrant, parse_key_file
from pharos_sources.secret import Secret
from pharos_sources.source import SourceRefused, SourceUnavailable

# Primes, and easily written.
LARGE = (2**4253 - 1, 2**4423 - 1)
SMALL = (2**1279 - 1, 2**607 - 1)
E = 65_537
# What is not asked for is read over, and a reader that calls itself for that is soon at its end.
DEEP = b'{"more":' + b"[" * 5_000


def key_file(p: int, q: int, n: int) -> Secret:
    """With a key of these numbers, whether or not they belong together (RFC 8017, A.1.2)."""
    d = pow(E, -1, (p - 1) * (q - 1))
    numbers = (0, n, E, d % n, p, q, d % (p - 1), d % (q - 1), pow(q, -1, p))
    return in_file(der(0x30, b"".join(map(integer, numbers))))


def in_file(key: bytes, label: str = "RSA PRIVATE KEY") -> Secret:
    pem = f"-----BEGIN {label}-----\n{encodebytes(key).decode()}-----END {label}-----\n"
    return Secret(json.dumps({"type": "service_account", "client_email": "a@b.example", "private_key": pem}))


def integer(number: int) -> bytes:
    return der(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def der(tag: int, body: bytes) -> bytes:
    size = len(body).to_bytes(2, "big").lstrip(b"\0") or b"\0"
    length = size if len(body) < 128 else bytes([0x80 | len(size)]) + size
    return bytes([tag]) + length + body


@pytest.mark.parametrize("n", [LARGE[0] * LARGE[1], 2**2_047 + 1], ids=["large", "said to be small"])
def test_no_time_is_spent_on_a_key_that_is_larger_than_any_that_google_gives_out(n: int) -> None:
    """Whether its numbers are primes takes minutes to find out, in which a gateway answers nobody."""
    with pytest.raises(InvalidKeyFile, match="more than 4096 bits"):
        parse_key_file(key_file(*LARGE, n))


@pytest.mark.parametrize("label", ["PRIVATE KEY", "RSA PRIVATE KEY"])
def test_a_key_of_another_kind_is_not_even_read(label: str) -> None:
    """Its other half would be computed first: for Diffie-Hellman that takes as long as its sender wants."""
    p = 2**2_203 - 1
    algorithm = der(0x06, bytes.fromhex("2a864886f70d010301")) + der(0x30, integer(p) + integer(3))
    key = der(0x30, integer(0) + der(0x30, algorithm) + der(0x04, integer(p >> 3)))
    with pytest.raises(InvalidKeyFile, match="is not an RSA key"):
        parse_key_file(in_file(key, label))


def test_both_forms_of_a_key_are_read() -> None:
    key = generate_private_key(public_exponent=E, key_size=2_048)
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        pem = key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()
        content = {"type": "service_account", "client_email": "a@b.example", "private_key": pem}
        _, found = parse_key_file(Secret(json.dumps(content)))
        assert found.private_numbers() == key.private_numbers()


def test_numbers_that_do_not_belong_together_are_no_key() -> None:
    p, q = SMALL
    assert parse_key_file(key_file(p, q, p * q))[1].key_size == (p * q).bit_length()
    with pytest.raises(InvalidKeyFile, match="cannot be read"):
        parse_key_file(key_file(p, q, p * q + 2))


def test_a_key_file_that_is_nested_without_end_is_none() -> None:
    with pytest.raises(InvalidKeyFile, match="must be the JSON key file"):
        parse_key_file(Secret('{"type":"service_account",' + DEEP[1:].decode()))


@pytest.mark.anyio
@pytest.mark.parametrize("status", [200, 403])
@pytest.mark.parametrize("of", ["/token", "/drive/v3/files"])
async def test_an_answer_that_is_nested_without_end_is_an_error_of_the_source(of: str, status: int) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == of:
            return httpx.Response(status, content=DEEP)
        return httpx.Response(200, json={"access_token": "t"})

    patience = Patience(tries_max=1)
    grant = RefreshGrant(client_id="c", client_secret=Secret("s"), refresh_token=Secret("r"))
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), trust_env=False) as client:
        tokens = GoogleTokens(client, grant, endpoint="https://g.example/token", patience=patience)
        source = GoogleDrive(client, tokens, endpoint="https://g.example", patience=patience)
        with pytest.raises(SourceUnavailable if status == 200 else SourceRefused):
            await source.check()
