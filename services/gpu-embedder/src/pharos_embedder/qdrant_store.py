"""The Qdrant server, for a cluster, through qdrant-client; and its in-process imitation, for tests only."""

import re
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from pharos_embedder.bm25 import SparseVector, sorted_vector
from pharos_embedder.generations import GenerationStore
from pharos_embedder.vectors import (
    ALIVE,
    STRUCTURE_DIMENSIONS,
    VALUES_MAX,
    AllOf,
    AnyOf,
    Condition,
    DimensionMismatch,
    Floats,
    Hit,
    Ids,
    Lacks,
    Match,
    Payload,
    Point,
    PointsMissing,
    Range,
    StoreClosed,
    StoreError,
    StoreFacts,
    StoreUnavailable,
    VectorName,
    from_stored,
    to_stored,
)
from pharos_embedder.volumes import VOLUMES_MAX, TooManyVolumes, Volumes

T = TypeVar("T")

COLLECTION: Final = "pharos"
REQUEST_SECONDS_MAX: Final = 30

_KEYWORDS: Final = (
    "kind", "path", "directories", "language", "repository", "symbol_kind", "job", "encoder",
    "vector",
)  # fmt: skip
_INTEGERS: Final = ("from", "until")


def qdrant_store(
    url: str, *, dimensions: int, api_key: str | None = None, collection: str = COLLECTION
) -> GenerationStore:
    """A store on the server at *url* for text vectors of *dimensions*; `open` it before use."""

    return _store(
        Connection(partial(_client, url, api_key), place=url, is_server=True), collection, dimensions
    )


def collection_dimensions(url: str, api_key: str | None, *, collection: str = COLLECTION) -> int | None:
    """The length of the text vectors on the server at *url*; None where it has no index. StoreUnavailable."""
    client = _client(url, api_key)
    try:
        if not client.collection_exists(collection):
            return None
        params = client.get_collection(collection).config.params.vectors
        return params["text"].size if isinstance(params, dict) else None
    except (ApiException, UnexpectedResponse) as error:
        raise StoreUnavailable(f"Qdrant at {url} cannot be reached: {error}") from error
    finally:
        client.close()


def _client(url: str, api_key: str | None) -> QdrantClient:
    with warnings.catch_warnings():
        # A key over plain http is told in our own words, once, where it may leave the private network.
        warnings.filterwarnings("ignore", "Api key is used with an insecure connection", UserWarning)
        return QdrantClient(url=url, api_key=api_key, timeout=REQUEST_SECONDS_MAX, check_compatibility=False)


def local_mode_store(folder: Path | None, *, dimensions: int) -> GenerationStore:
    """qdrant-client without a server, in *folder* or in memory: 285 ms for a query over 10,000 points."""

    def connect() -> QdrantClient:
        if folder is None:
            return QdrantClient(location=":memory:")
        return QdrantClient(path=str(folder), force_disable_check_same_thread=True)

    place = "memory" if folder is None else str(folder)
    return _store(Connection(connect, place=place, is_server=False), COLLECTION, dimensions)


def _store(connection: "Connection", collection: str, dimensions: int) -> GenerationStore:
    """The first volume is *collection*, one for another length *n* is `collection-n`.

    One that is empty stays: other processes may be about to write to it.
    """

    def find() -> tuple["QdrantEngine", list["QdrantEngine"]]:
        lengths = connection.lengths(collection)
        beside = f"{collection}-{dimensions}" if lengths else collection
        names = {length: name for name, length in sorted(lengths.items(), reverse=True)}
        current = QdrantEngine(connection, collection=names.pop(dimensions, beside), dimensions=dimensions)
        if len(names) >= VOLUMES_MAX:
            raise TooManyVolumes(connection.place)
        return current, [
            QdrantEngine(connection, collection=name, dimensions=length) for length, name in names.items()
        ]

    def make(length: int) -> "QdrantEngine":
        return QdrantEngine(connection, collection=f"{collection}-{length}", dimensions=length)

    return GenerationStore(Volumes(find, make, place=connection.place), dimensions=dimensions)


class Connection:
    """One client for all volumes of a store, as long as somebody has it open.

    The client is thread-safe against a server; its local mode is not: it gets a lock.
    """

    def __init__(self, connect: Callable[[], QdrantClient], *, place: str, is_server: bool) -> None:
        self.place = place
        self.is_server = is_server
        self._connect = connect
        self._lock: AbstractContextManager[object] = nullcontext() if is_server else threading.RLock()
        self._opening = threading.Lock()
        self._client: QdrantClient | None = None
        self._users = 0

    def open(self) -> None:
        with self._opening:
            if self._client is None:
                self._client = self._connect()
            self._users += 1

    def close(self) -> None:
        with self._opening, self._lock:
            self._users -= 1
            if self._client is not None and not self._users:
                self._client.close()
                self._client = None

    def lengths(self, collection: str) -> dict[str, int]:
        """How long the text vectors are of the collections that are volumes of *collection*, by name."""
        self.open()
        try:
            return self.call(partial(_lengths, collection=collection))
        finally:
            self.close()

    def call(self, use: Callable[[QdrantClient], T]) -> T:
        """One use of the client, its failures told in our words; an address in them is ours, a key is not."""
        with self._lock:
            client = self._client
            if client is None:
                raise StoreClosed("the index is not open")
            try:
                return use(client)
            except UnexpectedResponse as error:
                raise StoreUnavailable(
                    f"Qdrant answered {error.status_code} {error.reason_phrase}"
                ) from error
            except ApiException as error:
                raise StoreUnavailable(f"Qdrant at {self.place} cannot be reached: {error}") from error


def _lengths(client: QdrantClient, *, collection: str) -> dict[str, int]:
    volume = re.compile(rf"{re.escape(collection)}(-\d+)?")
    names = [each.name for each in client.get_collections().collections if volume.fullmatch(each.name)]
    return {name: _vector_params(client, name)["text"].size for name in names}


def _vector_params(client: QdrantClient, collection: str) -> dict[str, models.VectorParams]:
    params = client.get_collection(collection).config.params.vectors
    assert isinstance(params, dict), "the collection was not made by Pharos"
    return params


class QdrantEngine:
    """One collection, over *connection*."""

    def __init__(self, connection: Connection, *, collection: str, dimensions: int) -> None:
        self._connection = connection
        self._collection = collection
        self._dimensions = dimensions
        self._is_open = False

    @property
    def dimensions(self) -> int:
        return self._dimensions

    def open(self) -> None:
        if self._is_open:
            raise StoreError(f"The index at {self._connection.place} is already open")
        self._connection.open()
        self._is_open = True
        try:
            self._call(self._create_or_check)
        except BaseException:
            self.close()
            raise

    def _create_or_check(self, client: QdrantClient) -> None:
        if not client.collection_exists(self._collection):
            try:
                self._create(client)
            except UnexpectedResponse as error:
                if error.status_code != 409:  # another process was faster
                    raise
        params = _vector_params(client, self._collection)
        for name, wanted in (("text", self._dimensions), ("structure", STRUCTURE_DIMENSIONS)):
            if params[name].size != wanted:
                raise DimensionMismatch(self._connection.place, params[name].size, wanted)
        if self._connection.is_server:
            self._index_payload(client)

    def _create(self, client: QdrantClient) -> None:
        cosine = models.Distance.COSINE
        client.create_collection(
            self._collection,
            vectors_config={
                "text": models.VectorParams(size=self._dimensions, distance=cosine),
                "structure": models.VectorParams(size=STRUCTURE_DIMENSIONS, distance=cosine),
            },
            sparse_vectors_config={"code_bm25": models.SparseVectorParams()},
        )

    def _index_payload(self, client: QdrantClient) -> None:
        """Repeating this is harmless, and finishes what a process that died in between began."""
        tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        client.create_payload_index(self._collection, "key", tenant)
        for field in _KEYWORDS:
            client.create_payload_index(self._collection, field, models.PayloadSchemaType.KEYWORD)
        for field in _INTEGERS:
            client.create_payload_index(self._collection, field, models.PayloadSchemaType.INTEGER)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._connection.close()

    def flush(self) -> None:
        """Nothing to do: every write waits until the server has it in its log."""

    def optimize(self) -> bool:
        """Nothing to do: the server optimizes by itself."""
        return False

    # Writing

    def put(self, points: Sequence[Point]) -> None:
        retired = models.Filter(must=[models.FieldCondition(key="until", range=models.Range(lt=ALIVE))])
        structs = [_to_qdrant(point) for point in points]
        self._call(lambda client: client.upsert(self._collection, structs, wait=True, update_filter=retired))

    def set_text(self, ids: Sequence[str], vectors: Floats) -> None:
        def update(client: QdrantClient) -> None:
            known = client.retrieve(self._collection, list(ids), with_payload=False)
            if missing := len(set(ids) - {str(record.id) for record in known}):
                raise PointsMissing(missing)
            named = [
                models.PointVectors(id=point, vector={"text": vector.tolist()})
                for point, vector in zip(ids, vectors, strict=True)
            ]
            client.update_vectors(self._collection, named, wait=True)

        self._call(update)

    def set_until(self, ids: Sequence[str], generation: int, condition: Condition) -> None:
        payload, which = {"until": generation}, _filter(AllOf((Ids(tuple(ids)), condition)))
        self._call(lambda client: client.set_payload(self._collection, payload, points=which, wait=True))

    def delete(self, ids: Sequence[str], condition: Condition) -> None:
        which = models.FilterSelector(filter=_filter(AllOf((Ids(tuple(ids)), condition))))
        self._call(lambda client: client.delete(self._collection, which, wait=True))

    # Reading

    def ids(self, condition: Condition, *, after: str | None, limit: int) -> tuple[list[str], str | None]:
        records, following = self._call(
            lambda client: client.scroll(
                self._collection,
                scroll_filter=_filter(condition),
                limit=limit,
                offset=after,
                with_payload=False,
            )
        )
        return [str(record.id) for record in records], None if following is None else str(following)

    def payloads(self, condition: Condition, *, limit: int) -> list[Payload]:
        records, _ = self._call(
            lambda client: client.scroll(
                self._collection, scroll_filter=_filter(condition), limit=limit, with_payload=True
            )
        )
        return [from_stored(record.payload or {}) for record in records]

    def points(
        self, condition: Condition, *, after: str | None, limit: int
    ) -> tuple[list[Point], str | None]:
        records, following = self._call(
            lambda client: client.scroll(
                self._collection,
                scroll_filter=_filter(condition),
                limit=limit,
                offset=after,
                with_payload=True,
                with_vectors=True,
            )
        )
        found = [_from_qdrant(record) for record in records]
        return found, None if following is None else str(following)

    def structures(self, condition: Condition, *, limit: int) -> list[Floats]:
        records, _ = self._call(
            lambda client: client.scroll(
                self._collection,
                scroll_filter=_filter(condition),
                limit=limit,
                with_payload=False,
                with_vectors=["structure"],
            )
        )
        vectors = [record.vector.get("structure") for record in records if isinstance(record.vector, dict)]
        return [np.asarray(vector, dtype=np.float32) for vector in vectors if vector is not None]

    def texts(self, names: Sequence[str]) -> dict[str, Floats]:
        found: dict[str, Floats] = {}
        wanted = list(dict.fromkeys(names))
        while wanted:
            named = models.FieldCondition(key="vector", match=models.MatchAny(any=wanted))
            records, following = self._call(
                partial(
                    QdrantClient.scroll,
                    collection_name=self._collection,
                    scroll_filter=models.Filter(must=[named, models.HasVectorCondition(has_vector="text")]),
                    limit=len(wanted),
                    with_payload=["vector"],
                    with_vectors=["text"],
                )
            )
            for record in records:
                assert record.payload is not None and isinstance(record.vector, dict)
                found[record.payload["vector"]] = np.asarray(record.vector["text"], dtype=np.float32)
            # Many points may have one vector: those that were hidden behind them are asked for again.
            wanted = [] if following is None else [name for name in wanted if name not in found]
        return found

    def facts(self) -> StoreFacts:
        return StoreFacts(points=self._call(lambda client: client.count(self._collection, exact=True).count))

    def count(self, condition: Condition) -> int:
        return self._call(
            lambda client: client.count(self._collection, count_filter=_filter(condition), exact=True).count
        )

    def counts(self, field: str, condition: Condition) -> dict[str | int, int]:
        response = self._call(
            lambda client: client.facet(
                self._collection, key=field, facet_filter=_filter(condition), limit=VALUES_MAX, exact=True
            )
        )
        return {hit.value: hit.count for hit in response.hits}

    def nearest(
        self, name: VectorName, vector: Floats | SparseVector, condition: Condition, limit: int
    ) -> list[Hit]:
        query: Any = (
            models.SparseVector(indices=list(vector.indices), values=list(vector.values))
            if isinstance(vector, SparseVector)
            else vector.tolist()
        )
        response = self._call(
            lambda client: client.query_points(
                self._collection,
                query=query,
                using=name,
                query_filter=_filter(condition),
                limit=limit,
                with_payload=True,
            )
        )
        return [
            Hit(id=str(point.id), score=point.score, payload=from_stored(point.payload or {}))
            for point in response.points
        ]

    def _call(self, use: Callable[[QdrantClient], T]) -> T:
        if not self._is_open:
            raise StoreClosed("the index is not open")
        return self._connection.call(use)


def _to_qdrant(point: Point) -> models.PointStruct:
    vectors: dict[str, Any] = {}
    if point.code_bm25 is not None and point.code_bm25.indices:
        vectors["code_bm25"] = models.SparseVector(
            indices=list(point.code_bm25.indices), values=list(point.code_bm25.values)
        )
    if point.text_vector is not None:
        vectors["text"] = point.text_vector.tolist()
    if point.structure is not None:
        vectors["structure"] = point.structure.tolist()
    return models.PointStruct(id=point.id, vector=vectors, payload=to_stored(point.payload))


def _from_qdrant(record: models.Record) -> Point:
    vectors: Any = record.vector or {}
    words = vectors.get("code_bm25")
    return Point(
        id=str(record.id),
        payload=from_stored(record.payload or {}),
        code_bm25=None if words is None else sorted_vector(words.indices, words.values),
        text_vector=_floats(vectors.get("text")),
        structure=_floats(vectors.get("structure")),
    )


def _floats(vector: Any) -> Floats | None:
    return None if vector is None else np.asarray(vector, dtype=np.float32)


def _filter(condition: Condition) -> models.Filter:
    match condition:
        case AllOf(conditions=parts):
            return models.Filter(must=[_clause(part) for part in parts])
        case AnyOf(conditions=parts):
            return models.Filter(should=[_clause(part) for part in parts])
        case Lacks(vector=name):
            return models.Filter(must_not=[models.HasVectorCondition(has_vector=name)])
        case _:
            return models.Filter(must=[_clause(condition)])


def _clause(condition: Condition) -> Any:
    match condition:
        case Match(field=field, values=(value,)):
            return models.FieldCondition(key=field, match=models.MatchValue(value=value))
        case Match(field=field, values=values):
            return models.FieldCondition(key=field, match=models.MatchAny(any=list(values)))
        case Range(field=field, above=above, at_most=at_most):
            return models.FieldCondition(key=field, range=models.Range(gt=above, lte=at_most))
        case Ids(ids=ids):
            return models.HasIdCondition(has_id=list(ids))
        case _:
            return _filter(condition)
