"""What the embedder reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from pharos_embedder.costs import Tariff
from pharos_embedder.provider.endpoint import DIMENSIONS_MAX, Endpoint, InvalidEndpoint
from pharos_embedder.qdrant_address import InvalidQdrantAddress, check_address
from pharos_service.settings import InvalidSettings, Secret, ServiceSettings
from pharos_sources.roots import root_mistakes, root_of
from pharos_sources.sealing import keys_in, mistakes_in
from pharos_sources.secret import Secret as SourceSecret


class Settings(ServiceSettings, frozen=True, kw_only=True):
    git_allowed_hosts: Annotated[
        str,
        Meta(
            description="Hosts that repositories may come from: `host`, `host:port`, `https://host` or "
            "`http://127.0.0.1:9418`, separated by commas; `*` for every public https host beside them. "
            "Empty: every public https host. Only a host listed with `http://` may be plain http or private."
        ),
    ] = ""
    web_allowed_hosts: Annotated[
        str,
        Meta(
            description="Hosts that web pages may be fetched from, as in PHAROS_GIT_ALLOWED_HOSTS. "
            "Empty: every public host."
        ),
    ] = ""
    local_roots: Annotated[
        tuple[str, ...],
        Meta(
            description="Directories of this machine below which connections of the type `local_directory` "
            "may read, whoever made them, as absolute paths, the same at gateways and workers. Empty: "
            "none may."
        ),
    ] = ()
    secret_key: Annotated[
        Secret,
        Meta(
            description="What the secrets of connections are sealed with: the same as at the gateways. "
            "Empty: nothing is read from connections that have secrets."
        ),
    ] = Secret("")
    github_token: Annotated[
        Secret,
        Meta(
            description="Sent to exactly `github.com`, for repositories of the tenant `default` only.",
            extra={"variable": "GITHUB_TOKEN"},
        ),
    ] = Secret("")
    worker_name: Annotated[
        str,
        Meta(
            description="What the worker is called, each differently; empty: the GPU's or the host's name.",
            max_length=64,
        ),
    ] = ""
    worker_slots: Annotated[
        int, Meta(description="Jobs that one worker runs at once; 0: search only, no worker.", ge=0, le=16)
    ] = 1
    max_concurrent_processing: Annotated[
        int,
        Meta(
            description="Documents and files of batches that one worker reads at once, beside its jobs for "
            "repositories. Each takes a process of its own while it is read.",
            ge=1,
            le=64,
        ),
    ] = 3
    encoder: Annotated[
        str,
        Meta(description="Any Hugging Face encoder by name, or a local path; empty: the packaged MiniLM."),
    ] = ""
    device: Annotated[
        str,
        Meta(
            description="`auto`, `cpu`, `cuda`, `cuda:1` or `mps`. Of several GPUs, `auto` and `cuda` give "
            "each worker the one of its index."
        ),
    ] = "auto"
    worker_index: Annotated[
        int,
        Meta(
            description="Which of the workers of this machine it is, from 0: their GPUs are taken in turn. "
            "`make run` sets it.",
            ge=0,
            le=1023,
        ),
    ] = 0
    embedding_provider: Annotated[
        str,
        Meta(
            description="`local` (or `auto`): PHAROS_ENCODER on this machine. `openai`: the server at "
            "OPENAI_BASE_URL, which gets the text of every chunk and of every query.",
            pattern="^(local|auto|openai)$",
            extra={"variable": "EMBEDDING_PROVIDER"},
        ),
    ] = "local"
    openai_base_url: Annotated[
        str,
        Meta(
            description="Where a server speaks OpenAI's API for embeddings, without `/embeddings`. Asked "
            "only with EMBEDDING_PROVIDER=openai, and may then be private, or plain http.",
            extra={"variable": "OPENAI_BASE_URL"},
        ),
    ] = "https://api.openai.com/v1"
    openai_api_key: Annotated[
        Secret,
        Meta(
            description="Sent to OPENAI_BASE_URL and nowhere else; empty: none is sent.",
            extra={"variable": "OPENAI_API_KEY"},
        ),
    ] = Secret("")
    openai_model: Annotated[
        str,
        Meta(
            description="The model to ask that server for; also `openai_model` in the section `embeddings` "
            "of PHAROS_CONFIG.",
            min_length=1,
            max_length=200,
            extra={"variable": "OPENAI_EMBEDDING_MODEL"},
        ),
    ] = "text-embedding-3-large"
    openai_dimensions: Annotated[
        int,
        Meta(
            description="Numbers of a vector to ask that server for; 0: as many as its model has.",
            ge=0,
            le=DIMENSIONS_MAX,
            extra={"variable": "OPENAI_EMBEDDING_DIMENSIONS"},
        ),
    ] = 0
    embedding_input_tokens_max: Annotated[
        int,
        Meta(
            description="Tokens of the longest text that is sent to the server, estimated at three "
            "characters each; the rest of a longer one is not encoded.",
            ge=16,
            le=131_072,
        ),
    ] = 8191
    embedding_request_inputs_max: Annotated[
        int, Meta(description="Texts of one request to the server.", ge=1, le=2048)
    ] = 64
    embedding_requests_at_once: Annotated[
        int,
        Meta(
            description="Requests for documents that each worker has under way at the server; those of "
            "searches go beside them.",
            ge=1,
            le=64,
        ),
    ] = 4
    embedding_request_seconds: Annotated[
        float, Meta(description="How long one answer of the server may take.", ge=1, le=600)
    ] = 60.0
    embedding_requests_per_minute: Annotated[
        int,
        Meta(description="Requests that each worker sends a minute; 0: as the server lets.", ge=0),
    ] = 0
    embedding_tokens_per_minute: Annotated[
        int,
        Meta(description="Tokens, estimated, that each worker sends a minute; 0: as the server lets.", ge=0),
    ] = 0
    embedding_price_per_million: Annotated[
        float,
        Meta(
            description="What a million tokens cost at the server, to tell what a job costs before it is "
            "encoded; 0: only its tokens are told.",
            ge=0,
        ),
    ] = 0.0
    embedding_job_tokens_max: Annotated[
        int,
        Meta(
            description="A job that would have the server encode more tokens, estimated, fails before it "
            "does; of a batch, a file. 0: no limit.",
            ge=0,
        ),
    ] = 0
    store: Annotated[
        str,
        Meta(
            description="`edge`: the embedded engine, which the process that searches opens and a "
            "`--role worker` asks it for; `qdrant`: the server at PHAROS_QDRANT_URL."
        ),
    ] = ""
    qdrant_url: Annotated[
        str, Meta(description="Where Qdrant is; setting it chooses the server as the store.")
    ] = ""
    qdrant_api_key: Annotated[Secret, Meta(description="API key of the Qdrant server.")] = Secret("")
    chunk_size: Annotated[int, Meta(description="Characters that a chunk aims at.", ge=100, le=20_000)] = 1000
    chunk_overlap: Annotated[
        int, Meta(description="Characters of the chunk before that are encoded with a chunk.", ge=0, le=5_000)
    ] = 100
    max_file_size_mb: Annotated[
        int, Meta(description="No file above this many MiB is read, whatever it is.", ge=1, le=1_000)
    ] = 100
    source_file_max_mb: Annotated[
        int,
        Meta(
            description="Files of a repository above this many MiB are left out; of data (JSON, CSV, XML) "
            "above 256 KiB.",
            ge=1,
            le=1_000,
        ),
    ] = 1
    embedding_batch_tokens: Annotated[
        str,
        Meta(
            description="Padded tokens of one batch of the encoder, or tokens of one request to a server; "
            "or `auto`.",
            pattern=r"^(auto|\d{2,7})$",
        ),
    ] = "auto"
    job_timeout_seconds: Annotated[
        int, Meta(description="A repository job that takes longer fails.", ge=10, le=86_400)
    ] = 3600
    drain_seconds: Annotated[
        float,
        Meta(
            description="After SIGTERM a worker takes no more jobs and has this many seconds to finish the "
            "one that it runs; then, or at a second SIGTERM, it hands the job back. What ends the process "
            "must wait for a few seconds more. Under `make run` it is 2, whatever is set: everything is to "
            "be gone within 15 s.",
            ge=0,
            le=3600,
        ),
    ] = 25.0
    repository_max_mb: Annotated[
        int, Meta(description="A repository whose files take more than this many MiB is refused.", ge=1)
    ] = 2048
    repository_files_max: Annotated[
        int,
        Meta(
            description="Files of a repository that are indexed; those beyond, in the order of their paths, "
            "are left out, and the result says so.",
            ge=1,
            le=1_000_000,
        ),
    ] = 200_000
    repository_chunks_max: Annotated[
        int,
        Meta(
            description="Chunks of a repository that are indexed; files that do not fit, in the order of "
            "their paths, are left out, and the result says so. A million of them take 100 MB of memory.",
            ge=1,
            le=20_000_000,
        ),
    ] = 2_000_000
    vector_cache_max_mb: Annotated[
        int, Meta(description="Disk that the cache of encoded chunks may take, in MiB.", ge=8)
    ] = 2048
    parse_cache_max_mb: Annotated[
        int, Meta(description="Disk that the cache of parsed files may take, in MiB.", ge=8)
    ] = 1024
    checkouts_max_mb: Annotated[
        int,
        Meta(
            description="Disk that repositories may take which are kept between jobs, in MiB, so that a new "
            "commit is fetched as what it changed; 0 keeps none.",
            ge=0,
        ),
    ] = 4096
    parse_timeout_seconds: Annotated[
        float, Meta(description="A file whose parsing takes longer is cut by lines instead.", gt=0, le=300)
    ] = 10.0

    def __post_init__(self) -> None:
        mistakes = [
            *mistakes_in(self.secret_key.reveal()),
            *(mistake for root in self.local_roots for mistake in root_mistakes(root)),
        ]
        if self.chunk_overlap > self.chunk_size // 2:
            mistakes.append(
                f"PHAROS_CHUNK_OVERLAP is {self.chunk_overlap}; it can be at most half of "
                f"PHAROS_CHUNK_SIZE ({self.chunk_size})."
            )
        try:
            _ = self.endpoint.allowed
        except InvalidEndpoint as invalid:
            mistakes.append(f"OPENAI_BASE_URL is not valid: {invalid}.")
        if self.qdrant_url:
            try:
                check_address(self.qdrant_url)
            except InvalidQdrantAddress as invalid_address:
                mistakes.append(f"PHAROS_QDRANT_URL is not valid: {invalid_address}.")
        key = self.openai_api_key.reveal()
        if not (key.isascii() and key.isprintable()) or " " in key:
            mistakes.append(
                "OPENAI_API_KEY holds a character that no key has, such as a space: copy it again."
            )
        if mistakes:
            raise InvalidSettings(mistakes)

    @property
    def roots(self) -> tuple[Path, ...]:
        return tuple(root_of(root) for root in self.local_roots)

    @property
    def secret_keys(self) -> tuple[str, ...]:
        return keys_in(self.secret_key.reveal())

    @property
    def home_path(self) -> Path:
        return Path(self.home)

    @property
    def endpoint(self) -> Endpoint:
        """The server that encodes, with EMBEDDING_PROVIDER=openai."""
        return Endpoint(
            base_url=self.openai_base_url,
            model=self.openai_model,
            key=SourceSecret(self.openai_api_key.reveal()) if self.openai_api_key else None,
            dimensions=self.openai_dimensions,
            input_tokens_max=self.embedding_input_tokens_max,
            inputs_max=self.embedding_request_inputs_max,
            requests_at_once=self.embedding_requests_at_once,
            request_seconds=self.embedding_request_seconds,
            requests_per_minute=self.embedding_requests_per_minute,
            tokens_per_minute=self.embedding_tokens_per_minute,
        )

    @property
    def tariff(self) -> Tariff:
        return Tariff(
            price_per_million=self.embedding_price_per_million,
            job_tokens_max=self.embedding_job_tokens_max,
            input_tokens_max=self.embedding_input_tokens_max,
        )

    @property
    def uses_server(self) -> bool:
        return self.store == "qdrant" or (self.store == "" and bool(self.qdrant_url))
