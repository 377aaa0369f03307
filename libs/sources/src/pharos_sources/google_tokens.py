"""Access tokens of Google, from the key of a service account or from a refresh token of OAuth 2.

Source: "Using OAuth 2.0 for Server to Server Applications" and "Using OAuth 2.0 for Web Server Applications"
of Google Identity. The address to ask is the connection's, never that of the key file.
"""

from __future__ import annotations

import re
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Annotated, Final, Protocol

import anyio
import httpx
import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key

from pharos_sources.asking import Patience, from_web, patiently, retry_after
from pharos_sources.secret import Secret
from pharos_sources.source import SourceRefused, SourceUnavailable
from pharos_sources.transport import read_bounded
from pharos_sources.web_errors import WebError

SCOPE: Final = "https://www.googleapis.com/auth/drive.readonly"

_ASSERTION_SECONDS: Final = 3_600
_EARLY_SECONDS: Final = 60.0  # a token is renewed this long before it ends
_ANSWER_BYTES_MAX: Final = 64 * 1024
_KEY_LENGTH_MAX: Final = 16 * 1024
# Google's have 2,048. Whether a key is one takes time that grows with the fourth power: minutes at 20,000.
_KEY_BITS_MAX: Final = 4_096
_PEM: Final = re.compile(
    r"\s*-----BEGIN (?:RSA )?PRIVATE KEY-----([A-Za-z0-9+/=\s]+)-----END (?:RSA )?PRIVATE KEY-----\s*"
)
# How the two forms of an RSA key begin inside: a version and a number (RFC 8017, A.1.2), or a version and the
# algorithm (RFC 5208, 5).
_PKCS1: Final = bytes.fromhex("020100 02")
_PKCS8: Final = bytes.fromhex("020100 300d 0609 2a864886f70d010101 0500")
_REFUSED: Final[Mapping[str, str]] = {
    "invalid_client": "Google does not know the OAuth client, or its secret is wrong",
    "deleted_client": "the OAuth client was deleted",
    "unauthorized_client": "Google does not let this client act for the account",
    "invalid_scope": "Google does not grant read access to Drive to these credentials",
    "admin_policy_enforced": "the administrator of the Google account does not allow it",
}


class InvalidKeyFile(ValueError):
    """The text is not the key of a service account; `reason` is a clause, with nothing of the key in it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ServiceAccountKey(msgspec.Struct, frozen=True, tag_field="type", tag="service_account"):
    """What is used of the JSON file that Google gives out for a service account."""

    client_email: str
    private_key: str
    private_key_id: str | None = None

    def __repr__(self) -> str:
        return "ServiceAccountKey(***)"


def parse_key_file(secret: Secret) -> tuple[ServiceAccountKey, RSAPrivateKey]:
    """The account of a key file and its key, ready to sign. Raises `InvalidKeyFile`."""
    text = secret.reveal()
    if len(text) > _KEY_LENGTH_MAX:
        raise InvalidKeyFile("it is too long for the key file of a service account")
    try:
        account = msgspec.json.decode(text, type=ServiceAccountKey)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        raise InvalidKeyFile("it must be the JSON key file of a service account, whole") from None
    der = _der(account.private_key)
    _check_size(_loaded(der, checked=False))
    return account, _loaded(der, checked=True)


def _der(pem: str) -> bytes:
    """The bytes of *pem*, which say that they are an RSA key: of others even reading one takes its time."""
    found = _PEM.fullmatch(pem)
    try:
        der = b64decode("".join(found[1].split()), validate=True) if found is not None else b""
    except ValueError:
        der = b""
    if len(der) < 2:
        raise InvalidKeyFile("the private key in it cannot be read")
    inside = 2 + (der[1] & 0x7F if der[1] & 0x80 else 0)
    if not der.startswith((_PKCS1, _PKCS8), inside):
        raise InvalidKeyFile("the private key in it is not an RSA key")
    return der


def _loaded(der: bytes, *, checked: bool) -> RSAPrivateKey:
    """The key in *der*; *checked*: its numbers belong together, which takes long for large ones."""
    try:
        key = load_der_private_key(der, password=None, unsafe_skip_rsa_key_validation=not checked)
    except (ValueError, TypeError):
        raise InvalidKeyFile("the private key in it cannot be read") from None
    if not isinstance(key, RSAPrivateKey):
        raise InvalidKeyFile("the private key in it is not an RSA key")
    return key


def _check_size(key: RSAPrivateKey) -> None:
    """Every number of it, since nobody has checked that they belong together."""
    numbers = key.private_numbers()
    primes = max(numbers.p.bit_length(), numbers.q.bit_length())
    if key.key_size > _KEY_BITS_MAX or 2 * primes > _KEY_BITS_MAX or numbers.d.bit_length() > _KEY_BITS_MAX:
        raise InvalidKeyFile(f"the private key in it has more than {_KEY_BITS_MAX} bits")


class Grant(Protocol):
    """What a token is asked for with; never the same for two moments, if it is signed."""

    def form(self, audience: str, now: float) -> Mapping[str, str]: ...

    @property
    def rejected(self) -> str:
        """What `invalid_grant` means, as a clause."""
        ...


class ServiceAccountGrant:
    """A service account, acting for itself or (domain-wide delegation) for the person *subject*."""

    rejected = "Google does not accept the key of the service account, or the clock of this machine is wrong"

    def __init__(self, secret: Secret, *, subject: str | None = None) -> None:
        self._account, self._key = parse_key_file(secret)
        self._subject = subject

    def form(self, audience: str, now: float) -> Mapping[str, str]:
        claims: dict[str, str | int] = {
            "iss": self._account.client_email,
            "scope": SCOPE,
            "aud": audience,
            "iat": int(now),
            "exp": int(now) + _ASSERTION_SECONDS,
        }
        if self._subject is not None:
            claims["sub"] = self._subject
        headers = {"kid": self._account.private_key_id} if self._account.private_key_id else None
        return {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": jwt.encode(claims, self._key, algorithm="RS256", headers=headers),
        }


class RefreshGrant:
    """A person who once agreed: the refresh token that came of it."""

    rejected = "the permission was withdrawn or has expired: connect the Google account again"

    def __init__(self, *, client_id: str, client_secret: Secret, refresh_token: Secret) -> None:
        self._client_id = client_id
        self._client_secret = client_secret
        self._refresh_token = refresh_token

    def form(self, audience: str, now: float) -> Mapping[str, str]:
        return {
            "grant_type": "refresh_token",
            "client_id": self._client_id,
            "client_secret": self._client_secret.reveal(),
            "refresh_token": self._refresh_token.reveal(),
        }


class _Granted(msgspec.Struct, frozen=True):
    access_token: Annotated[str, msgspec.Meta(pattern=r"^[\x21-\x7e]+$", max_length=8_192)]
    expires_in: float = 3_600.0


class _Refused(msgspec.Struct, frozen=True):
    error: str = ""


class GoogleTokens:
    """The access token of the moment; one is asked for at a time, and kept until shortly before its end."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        grant: Grant,
        *,
        endpoint: str,
        patience: Patience,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._grant = grant
        self._endpoint = endpoint
        self._patience = patience
        self._clock = clock
        self._asking = anyio.Lock()
        self._token = Secret("")
        self._until = 0.0

    async def current(self) -> Secret:
        """A token that is good for at least a minute. Raises `SourceError`."""
        async with self._asking:
            if self._clock() >= self._until - _EARLY_SECONDS:
                granted = await patiently(self._ask, self._patience)
                self._token = Secret(granted.access_token)
                self._until = self._clock() + granted.expires_in
            return self._token

    def forget(self, token: Secret) -> None:
        """*token* was not accepted: another one is asked for next time, unless that has happened."""
        if token is self._token:
            self._until = 0.0

    async def _ask(self) -> _Granted:
        form = self._grant.form(self._endpoint, self._clock())
        try:
            async with self._client.stream("POST", self._endpoint, data=dict(form)) as answer:
                body = await read_bounded(answer, _ANSWER_BYTES_MAX)
        except WebError as error:
            raise from_web(error) from None
        if answer.status_code == 200:
            try:
                return msgspec.json.decode(body, type=_Granted, strict=False)
            except (msgspec.MsgspecError, RecursionError, UnicodeError):
                raise SourceUnavailable("Google's answer about a token cannot be read") from None
        if answer.status_code == 429 or answer.status_code >= 500:
            wait = retry_after(answer.headers.get("Retry-After"))
            raise SourceUnavailable("Google gives out no tokens now", retry_after_seconds=wait)
        raise SourceRefused(self._why(body))

    def _why(self, body: bytes) -> str:
        try:
            error = msgspec.json.decode(body, type=_Refused).error
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            error = ""
        if error == "invalid_grant":
            return self._grant.rejected
        return _REFUSED.get(error, "Google gives out no token for these credentials")
