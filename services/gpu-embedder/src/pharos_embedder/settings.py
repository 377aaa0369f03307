"""What the embedder reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from pharos_service.settings import InvalidSettings, Secret, ServiceSettings
from pharos_sources.roots import root_mistakes, root_of
from pharos_sources.sealing import keys_in, mistakes_in


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
    device: Annotated[str, Meta(description="`auto`, `cpu`, `cuda`, `cuda:1` or `mps`.")] = "auto"
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
            description="Padded tokens of one batch of the encoder, or `auto`.", pattern=r"^(auto|\d{2,7})$"
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
    vector_cache_max_mb: Annotated[
        int, Meta(description="Disk that the cache of encoded chunks may take, in MiB.", ge=8)
    ] = 2048
    parse_cache_max_mb: Annotated[
        int, Meta(description="Disk that the cache of parsed files may take, in MiB.", ge=8)
    ] = 1024
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
    def uses_server(self) -> bool:
        return self.store == "qdrant" or (self.store == "" and bool(self.qdrant_url))
