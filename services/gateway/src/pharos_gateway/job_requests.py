"""A job of any kind, as the native API asks for one: the shapes, and what is submitted for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta

from pharos_contracts.identity import PROJECT_DEFAULT
from pharos_contracts.jobs.v1 import Priority, Scope
from pharos_gateway.addressing import repository_dataset, revision
from pharos_gateway.authentication import Caller, OtherProject
from pharos_gateway.callback_url import CallbackAddress
from pharos_gateway.document_ingest import DocumentIngest
from pharos_gateway.documents import TextRequest, UrlRequest
from pharos_gateway.project_names import one_project
from pharos_gateway.quotas import subject_of
from pharos_gateway.resource_keeping import ResourceKeeping
from pharos_gateway.resources import ResourceRequest
from pharos_gateway.scheduling import NO_CONTROLS
from pharos_gateway.submitting import Order, Submitting
from pharos_sources.hosts import AllowedHosts
from pharos_sources.repository_url import parse_repository_url


class RepositoryJob(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="repository", forbid_unknown_fields=True
):
    """A repository to index; ``ref`` is a full commit id, or a branch, as for a submit by its path."""

    repo_url: Annotated[str, Meta(max_length=2_048)]
    branch: Annotated[str, Meta(max_length=255)] | None = None
    ref: Annotated[str, Meta(max_length=255)] | None = None
    project: str = PROJECT_DEFAULT
    dataset: Annotated[str, Meta(min_length=1, max_length=512, pattern=NO_CONTROLS)] | None = None
    scope: Scope = Scope.PROJECT
    force: bool = False
    priority: Priority = Priority.NORMAL
    callback_url: str | None = None


class TextJob(TextRequest, frozen=True, kw_only=True, tag_field="kind", tag="text"):
    """A text to make searchable."""


class UrlJob(UrlRequest, frozen=True, kw_only=True, tag_field="kind", tag="url"):
    """A page, or another document on the web, to fetch and make searchable."""


class ResourceJob(ResourceRequest, frozen=True, kw_only=True, tag_field="kind", tag="resource"):
    """A text to keep and find, of the user who sends it."""


class FileJob(msgspec.Struct, frozen=True, tag_field="kind", tag="file"):
    """Not here: a file comes as a form."""


class BatchJob(msgspec.Struct, frozen=True, tag_field="kind", tag="batch"):
    """Not here: a batch has a family of its own."""


class DeleteJob(msgspec.Struct, frozen=True, tag_field="kind", tag="delete"):
    """Not here: what is deleted is named by its own address."""


JobRequest = RepositoryJob | TextJob | UrlJob | ResourceJob | FileJob | BatchJob | DeleteJob


class WrongRoute(ValueError):
    """Jobs of this kind are asked for elsewhere; the text is a sentence that says where."""


class JobRequests:
    """The use case. One object serves every request of a process."""

    def __init__(
        self,
        submitting: Submitting,
        documents: DocumentIngest,
        resources: ResourceKeeping,
        *,
        allowed_hosts: AllowedHosts,
        callback_of: Callable[[str], CallbackAddress],
    ) -> None:
        self._submitting = submitting
        self._documents = documents
        self._resources = resources
        self._allowed_hosts = allowed_hosts
        self._callback_of = callback_of

    async def submit(
        self, request: JobRequest, caller: Caller, idempotency_key: str | None
    ) -> tuple[str, bool]:
        """(the id of the job that does what *request* asks for, whether an earlier request began it).

        WrongRoute, OtherProject, and what the use case of its kind raises.
        """
        match request:
            case RepositoryJob():
                submitted = await self._submitting.submit(self._order(request, caller, idempotency_key))
            case TextJob():
                submitted = await self._documents.text(request, caller, idempotency_key)
            case UrlJob():
                submitted = await self._documents.url(request, caller, idempotency_key)
            case ResourceJob():
                if not caller.sight.project(PROJECT_DEFAULT):
                    raise OtherProject(PROJECT_DEFAULT)
                return (await self._resources.put(request, caller, idempotency_key)).job_id, False
            case FileJob():
                raise WrongRoute("Send a file as a form to POST /knowledge/ingest-file-async")
            case BatchJob():
                raise WrongRoute("Create a batch by POST /batch/jobs")
            case DeleteJob():
                raise WrongRoute("Delete what a repository left by DELETE /projects/{project}/ingest/github")

        return submitted.id, submitted.deduplicated

    def _order(self, request: RepositoryJob, caller: Caller, idempotency_key: str | None) -> Order:
        address = parse_repository_url(request.repo_url, allowed_hosts=self._allowed_hosts)
        branch, sha = revision(address, branch=request.branch, ref=request.ref)
        project = one_project(request.project)
        if not caller.sight.project(project):
            raise OtherProject(project)
        url = request.callback_url
        return Order(
            tenant=caller.tenant,
            user=caller.user,
            address=address,
            branch=branch,
            sha=sha,
            force=request.force,
            priority=request.priority,
            idempotency_key=idempotency_key,
            callback=None if url is None else self._callback_of(url),
            quota=subject_of(caller),
            project=project,
            dataset=repository_dataset(request.dataset),
            scope=request.scope,
        )
