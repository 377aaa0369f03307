"""What each kind of connection is configured with, and the source that it opens.

A field that is a `Secret` is never shown: it is sealed at rest and lives in memory only. Validation happens
where a connection is made and again where it is used, because what an operator admits changes.
"""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args

import anyio
import msgspec
from anyio import to_thread

from pharos_sources.asking import Patience
from pharos_sources.git import FetchLimits
from pharos_sources.guard import Resolver, system_resolver
from pharos_sources.hosts import AllowedHosts
from pharos_sources.local_directory import DirectoryRefused, LocalDirectory, below_root
from pharos_sources.local_zip import LocalZip
from pharos_sources.removal import remove_tree
from pharos_sources.repository_url import (
    InvalidRef,
    InvalidRepositoryUrl,
    RepositoryAddress,
    parse_ref,
    parse_repository_url,
)
from pharos_sources.secret import Secret
from pharos_sources.source import Source, SourceRefused
from pharos_sources.web_address import InvalidWebAddress, WebAddress, parse_web_address

if TYPE_CHECKING:
    from pharos_sources.google_tokens import Grant

GOOGLE_API: Final = "https://www.googleapis.com"
GOOGLE_TOKENS: Final = "https://oauth2.googleapis.com/token"

_SECRET_LENGTH_MAX: Final = 16 * 1024
# More is not kept, sealed as it is; and to look at the hosts of a mebibyte of them takes seconds.
URLS_LENGTH_MAX: Final = 96 * 1024

Line = Annotated[str, msgspec.Meta(min_length=1, max_length=2_048, pattern=r"\A[^\x00-\x1f\x7f]+\Z")]
PathText = Annotated[str, msgspec.Meta(min_length=1, max_length=4_096)]
DriveId = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{1,256}\Z")]


class InvalidConnection(ValueError):
    """The configuration has a mistake: one sentence, that names the `field` and holds no secret."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class _Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """Base of the kinds of connection; `type` is the word of the API."""


class LocalDirectoryConnection(_Fields, frozen=True, kw_only=True, tag="local_directory"):
    """A directory below one of the roots that the operator admits."""

    path: PathText
    hidden: bool = False


class LocalZipConnection(_Fields, frozen=True, kw_only=True, tag="local_zip"):
    """A zip archive that was uploaded."""

    upload_id: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")]


class GoogleDriveConnection(_Fields, frozen=True, kw_only=True, tag="google_drive"):
    """Google Drive, as a service account (its JSON key file) or as a person who agreed (OAuth)."""

    folder_id: DriveId | None = None
    drive_id: DriveId | None = None
    service_account: Secret | None = None
    subject: Line | None = None
    client_id: Line | None = None
    client_secret: Secret | None = None
    refresh_token: Secret | None = None
    endpoint: Line = GOOGLE_API
    token_endpoint: Line = GOOGLE_TOKENS


class S3Connection(_Fields, frozen=True, kw_only=True, tag="s3"):
    """A bucket of S3, or of a server that speaks its protocol at `endpoint`; unsigned without a key."""

    bucket: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{1,254}\Z")]
    prefix: Annotated[str, msgspec.Meta(max_length=1_024)] = ""
    region: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9-]{1,64}\Z")] = "us-east-1"
    endpoint: Line | None = None
    access_key_id: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_.-]{1,256}\Z")] | None = None
    secret_access_key: Secret | None = None
    session_token: Secret | None = None


class HttpConnection(_Fields, frozen=True, kw_only=True, tag="http"):
    """Documents by their URLs, which are secret: the query of one may be what opens it."""

    urls: tuple[Secret, ...]


class GitConnection(_Fields, frozen=True, kw_only=True, tag="git"):
    """The files of a repository."""

    url: Line
    ref: Line | None = None
    token: Secret | None = None


Connection = (
    LocalDirectoryConnection
    | LocalZipConnection
    | GoogleDriveConnection
    | S3Connection
    | HttpConnection
    | GitConnection
)
KINDS: Final[Mapping[str, type[Any]]] = {
    str(kind.__struct_config__.tag): kind for kind in get_args(Connection)
}

Uploads = Callable[[str], AbstractAsyncContextManager[Path]]
"""A local copy of what was uploaded under an id, while the block lasts. Raises `SourceError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What this installation lets connections have.

    `roots`: where local directories may be. `allowed_hosts`: of S3, Drive and the web; `git_allowed_hosts`:
    of repositories; each means every public https host where it has no rules. `work`: where repositories
    are checked out; None for the system's folder of temporary files. `tls`: None for the usual authorities.
    `patience`: with services that are busy; who answers a person has less of it. `checkout`: what the
    checkout of a repository may take.
    """

    roots: tuple[Path, ...] = ()
    allowed_hosts: AllowedHosts = field(default_factory=AllowedHosts)
    git_allowed_hosts: AllowedHosts = field(default_factory=AllowedHosts)
    uploads: Uploads | None = None
    work: Path | None = None
    resolver: Resolver = system_resolver
    tls: ssl.SSLContext | None = None
    patience: Patience = field(default_factory=Patience)
    checkout: FetchLimits = field(default_factory=FetchLimits)


def secret_fields(source_type: str) -> frozenset[str]:
    """The fields of a kind of connection that are never shown. Raises `InvalidConnection`."""
    kind = _kind(source_type)
    return frozenset(each.name for each in msgspec.structs.fields(kind) if Secret in _types_in(each.type))


def parse_connection(
    source_type: str, fields: Mapping[str, object], *, installation: Installation
) -> Connection:
    """The connection of *source_type* with *fields*, secret ones among them. Raises `InvalidConnection`.

    No look-up is made: whether the source answers is for `Source.check` to find out.
    """
    kind = _kind(source_type)
    known = {each.name: each for each in msgspec.structs.fields(kind)}
    for name in fields:
        if name not in known:
            shown = name if name.isidentifier() and len(name) <= 64 else "a field"
            raise InvalidConnection(shown, f"{source_type} has no such field; it has {', '.join(known)}")
    values = {}
    for name, each in known.items():
        if name not in fields:
            if each.required:
                raise InvalidConnection(name, "it is missing")
            continue
        try:
            values[name] = msgspec.convert(fields[name], each.type, dec_hook=_secret)
        except msgspec.ValidationError as invalid:
            raise InvalidConnection(name, _why(str(invalid), secret=Secret in _types_in(each.type))) from None
    connection: Connection = kind(**values)
    _check(connection, installation)
    return connection


def config_of(connection: Connection) -> dict[str, str | bool | None]:
    """The fields that may be shown, for `parse_connection` to read again with the secret ones."""
    hidden = secret_fields(str(connection.__struct_config__.tag))
    return {name: value for name, value in msgspec.structs.asdict(connection).items() if name not in hidden}


def secrets_of(connection: Connection) -> dict[str, str | list[str]]:
    """The secret fields in clear, to be sealed; those that are not set are left out."""
    found: dict[str, str | list[str]] = {}
    for name in sorted(secret_fields(str(connection.__struct_config__.tag))):
        match getattr(connection, name):
            case Secret() as secret:
                found[name] = secret.reveal()
            case tuple() as several:
                found[name] = [each.reveal() for each in several]
    return found


@asynccontextmanager
async def open_source(connection: Connection, installation: Installation) -> AsyncIterator[Source]:
    """The source of *connection* while the block lasts. Raises `SourceError`, and `InvalidConnection`.

    Nothing is asked of the source before its first call, apart from the local copy of an upload.
    """
    match connection:
        case LocalDirectoryConnection():
            root, parts = _directory(connection, installation)
            yield LocalDirectory(root, parts, hidden=connection.hidden)
        case LocalZipConnection():
            if installation.uploads is None:
                raise SourceRefused("this part of Pharos cannot read uploads")
            async with installation.uploads(connection.upload_id) as path:
                archive = LocalZip(path)
                try:
                    yield archive
                finally:
                    with anyio.CancelScope(shield=True):
                        await archive.close()
        case GoogleDriveConnection():
            async with _google_drive(connection, installation) as source:
                yield source
        case S3Connection():
            async with _s3(connection, installation) as source:
                yield source
        case HttpConnection():
            async with _http(connection, installation) as source:
                yield source
        case GitConnection():
            async with _git(connection, installation) as source:
                yield source


@asynccontextmanager
async def _google_drive(
    connection: GoogleDriveConnection, installation: Installation
) -> AsyncIterator[Source]:
    from pharos_sources.google_drive import GoogleDrive
    from pharos_sources.google_tokens import GoogleTokens
    from pharos_sources.transport import guarded_client

    async with guarded_client(
        installation.allowed_hosts, resolver=installation.resolver, tls=installation.tls
    ) as client:
        tokens = GoogleTokens(
            client,
            _grant(connection),
            endpoint=_endpoint("token_endpoint", connection.token_endpoint, installation).url,
            patience=installation.patience,
        )
        yield GoogleDrive(
            client,
            tokens,
            endpoint=_endpoint("endpoint", connection.endpoint, installation).url,
            folder_id=connection.folder_id,
            drive_id=connection.drive_id,
            shared_with_me=connection.service_account is not None and connection.subject is None,
            patience=installation.patience,
        )


@asynccontextmanager
async def _s3(connection: S3Connection, installation: Installation) -> AsyncIterator[Source]:
    from pharos_sources.s3 import AccessKey, Bucket, S3Bucket
    from pharos_sources.transport import guarded_client

    key = None
    if connection.access_key_id is not None and connection.secret_access_key is not None:
        key = AccessKey(
            id=connection.access_key_id,
            secret=connection.secret_access_key,
            session_token=connection.session_token,
        )
    bucket = Bucket(
        base_url=_bucket_url(connection, installation),
        region=connection.region,
        prefix=_folder_prefix(connection.prefix),
    )
    async with guarded_client(
        installation.allowed_hosts, resolver=installation.resolver, tls=installation.tls
    ) as client:
        yield S3Bucket(client, bucket, key, patience=installation.patience)


@asynccontextmanager
async def _http(connection: HttpConnection, installation: Installation) -> AsyncIterator[Source]:
    from pharos_sources.fetching import DocumentFetcher
    from pharos_sources.http_source import HttpSource

    addresses = _web_addresses(connection, installation)
    async with DocumentFetcher(
        installation.allowed_hosts, resolver=installation.resolver, tls=installation.tls
    ) as fetcher:
        yield HttpSource(addresses, fetcher)


@asynccontextmanager
async def _git(connection: GitConnection, installation: Installation) -> AsyncIterator[Source]:
    from pharos_sources.git_source import GitSource

    address = _repository(connection, installation)
    work = Path(await to_thread.run_sync(lambda: tempfile.mkdtemp(prefix="source-", dir=installation.work)))
    try:
        yield GitSource(
            address,
            work,
            ref=connection.ref,
            token=connection.token,
            limits=installation.checkout,
            resolver=installation.resolver,
        )
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(remove_tree, work)


def _check(connection: Connection, installation: Installation) -> None:
    match connection:
        case LocalDirectoryConnection():
            _directory(connection, installation)
        case LocalZipConnection():
            pass
        case GoogleDriveConnection():
            _endpoint("endpoint", connection.endpoint, installation)
            _endpoint("token_endpoint", connection.token_endpoint, installation)
            _grant(connection)
        case S3Connection():
            _bucket_url(connection, installation)
            _check_access_key(connection)
        case HttpConnection():
            _web_addresses(connection, installation)
        case GitConnection():
            _repository(connection, installation)


def _directory(
    connection: LocalDirectoryConnection, installation: Installation
) -> tuple[Path, tuple[str, ...]]:
    if not installation.roots:
        raise InvalidConnection(
            "path", "no directory may be read here: the setting PHAROS_LOCAL_ROOTS says which ones may"
        )
    try:
        return below_root(connection.path, installation.roots)
    except DirectoryRefused as refused:
        raise InvalidConnection("path", refused.reason) from None


def _endpoint(name: str, text: str, installation: Installation) -> WebAddress:
    """The address of a service, which has no query; a private one only where the operator admitted it."""
    try:
        address = parse_web_address(text, allowed_hosts=installation.allowed_hosts)
    except InvalidWebAddress as invalid:
        raise InvalidConnection(name, invalid.reason) from None
    if "?" in address.target:
        raise InvalidConnection(name, "a query is not accepted")
    return address


def _grant(connection: GoogleDriveConnection) -> Grant:
    """What tokens are asked for with: the key of a service account, or a refresh token."""
    from pharos_sources.google_tokens import InvalidKeyFile, RefreshGrant, ServiceAccountGrant

    oauth = {
        "client_id": connection.client_id,
        "client_secret": connection.client_secret,
        "refresh_token": connection.refresh_token,
    }
    if connection.service_account is not None:
        for name, value in oauth.items():
            if value is not None:
                raise InvalidConnection(name, "it does not go with service_account: give one or the other")
        try:
            return ServiceAccountGrant(connection.service_account, subject=connection.subject)
        except InvalidKeyFile as invalid:
            raise InvalidConnection("service_account", invalid.reason) from None
    if connection.subject is not None:
        raise InvalidConnection("subject", "only a service account can act for somebody")
    if all(value is None for value in oauth.values()):
        raise InvalidConnection(
            "service_account", "it is missing, or else client_id, client_secret and refresh_token"
        )
    for name, value in oauth.items():
        if not value:
            raise InvalidConnection(name, "it is missing")
    assert connection.client_id and connection.client_secret and connection.refresh_token
    return RefreshGrant(
        client_id=connection.client_id,
        client_secret=connection.client_secret,
        refresh_token=connection.refresh_token,
    )


def _bucket_url(connection: S3Connection, installation: Installation) -> str:
    """Where the bucket is: in the path at an endpoint, in the host at Amazon if its name allows that."""
    if connection.endpoint is not None:
        return (
            f"{_endpoint('endpoint', connection.endpoint, installation).url.rstrip('/')}/{connection.bucket}"
        )
    suffix = "amazonaws.com.cn" if connection.region.startswith("cn-") else "amazonaws.com"
    host, path = f"s3.{connection.region}.{suffix}", f"/{connection.bucket}"
    if "." not in connection.bucket and "_" not in connection.bucket:
        host, path = f"{connection.bucket}.{host}", ""  # a dot would not match Amazon's certificate
    return _endpoint("bucket", f"https://{host}", installation).url.rstrip("/") + path


def _check_access_key(connection: S3Connection) -> None:
    if connection.access_key_id is None:
        for name in ("secret_access_key", "session_token"):
            if getattr(connection, name) is not None:
                raise InvalidConnection("access_key_id", f"it is missing beside {name}")
    elif not connection.secret_access_key:
        raise InvalidConnection("secret_access_key", "it is missing beside access_key_id")
    token = connection.session_token.reveal() if connection.session_token is not None else ""
    if not (token.isascii() and token.isprintable()):
        raise InvalidConnection("session_token", "it has characters that are not accepted here")


def _folder_prefix(prefix: str) -> str:
    """`papers` means the folder, not `papers-of-others/` as well."""
    return prefix if not prefix or prefix.endswith("/") else f"{prefix}/"


def _web_addresses(connection: HttpConnection, installation: Installation) -> Mapping[str, WebAddress]:
    from pharos_sources.http_source import addresses_of

    urls = [each.reveal() for each in connection.urls]
    if sum(map(len, urls)) > URLS_LENGTH_MAX:
        raise InvalidConnection("urls", "together they are too long to be kept")
    try:
        return addresses_of(urls, allowed_hosts=installation.allowed_hosts)
    except SourceRefused as refused:
        raise InvalidConnection("urls", refused.reason) from None


def _repository(connection: GitConnection, installation: Installation) -> RepositoryAddress:
    try:
        if connection.ref is not None:
            parse_ref(connection.ref)
    except InvalidRef as invalid:
        raise InvalidConnection("ref", invalid.reason) from None
    try:
        return parse_repository_url(connection.url, allowed_hosts=installation.git_allowed_hosts)
    except InvalidRepositoryUrl as invalid:
        raise InvalidConnection("url", invalid.reason) from None


def _kind(source_type: str) -> type[Any]:
    try:
        return KINDS[source_type]
    except KeyError:
        raise InvalidConnection("type", f"it must be one of {', '.join(KINDS)}") from None


def _types_in(annotation: object) -> set[object]:
    """*annotation* and everything it is made of."""
    return {annotation}.union(*(_types_in(each) for each in get_args(annotation)))


def _secret(kind: type, value: object) -> object:
    if kind is not Secret:
        raise NotImplementedError(f"a field is {kind}")
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise ValueError("it must be text")
    if not value.strip():
        raise ValueError("it is empty")
    if len(value) > _SECRET_LENGTH_MAX:
        raise ValueError(f"it is longer than {_SECRET_LENGTH_MAX} characters")
    return Secret(value)


def _why(message: str, *, secret: bool) -> str:
    """What msgspec says, as a clause; of a secret nothing but our own words, which never repeat it."""
    clause = message.partition(" - at ")[0]
    if "matching regex" in clause:
        return "it has characters that are not accepted here, or is too long"
    if secret and not clause.startswith("it "):
        return "it must be text"
    return clause[:1].lower() + clause[1:]
