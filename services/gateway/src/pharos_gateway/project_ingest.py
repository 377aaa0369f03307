"""Submitting a repository into a project: a commit that is indexed there already starts no job."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pharos_contracts.datasets.v1 import IndexStage
from pharos_contracts.jobs.v1 import Job, Scope
from pharos_contracts.lifecycle import TERMINAL
from pharos_gateway import projects
from pharos_gateway.addressing import repository_dataset, revision
from pharos_gateway.authentication import Caller
from pharos_gateway.callback_url import CallbackAddress
from pharos_gateway.datasets import Datasets, DatasetView
from pharos_gateway.finding import Finder
from pharos_gateway.projects import GithubIngested, GithubIngestRequest
from pharos_gateway.quotas import subject_of
from pharos_gateway.submitting import Order, QueueUnavailable, Submitting
from pharos_service.bus import BusError
from pharos_sources.hosts import AllowedHosts
from pharos_sources.repository_url import RepositoryAddress, parse_repository_url, parse_sha


class ProjectIngest:
    """The use case. One object serves every request of a process."""

    def __init__(
        self,
        submitting: Submitting,
        datasets: Datasets,
        finder: Finder,
        *,
        allowed_hosts: AllowedHosts,
        callback_of: Callable[[str], CallbackAddress],
    ) -> None:
        self._submitting = submitting
        self._datasets = datasets
        self._finder = finder
        self._allowed_hosts = allowed_hosts
        self._callback_of = callback_of

    def address(self, repo: str) -> RepositoryAddress:
        """What *repo* names. InvalidRepositoryUrl."""
        return parse_repository_url(projects.repository_text(repo), allowed_hosts=self._allowed_hosts)

    async def ingest(
        self,
        request: GithubIngestRequest,
        address: RepositoryAddress,
        *,
        project: str,
        caller: Caller,
        idempotency_key: str | None,
    ) -> tuple[GithubIngested, bool]:
        """(what stands for the request, whether it started a job).

        InvalidRef, ReservedDataset, InvalidCallbackUrl, and what ``Submitting.submit`` raises.
        """
        branch, _ = revision(address, branch=request.branch, ref=None)
        sha = None if request.sha is None else parse_sha(request.sha)
        callback = None if request.callback_url is None else self._callback_of(request.callback_url)
        order = Order(
            tenant=caller.tenant,
            user=caller.user,
            address=address,
            branch=branch,
            sha=sha,
            force=request.force,
            priority=request.priority,
            idempotency_key=idempotency_key,
            callback=callback,
            quota=subject_of(caller),
            project=project,
            dataset=repository_dataset(request.dataset),
            scope=request.scope,
        )
        if sha is not None and not request.force and not await self._submitting.remembers(order):
            indexed = await self._indexed(order, sha)
            if indexed is not None:
                return projects.already_indexed(indexed, sha), False
        submitted = await self._submitting.submit(order)
        earlier = submitted.deduplicated or idempotency_key is not None
        job = await self._job(order.tenant, submitted.id) if earlier else None
        if job is not None and not submitted.deduplicated:
            return projects.accepted_as(
                job
            ), True  # whatever this request asks for, the first was answered so
        if job is None or job.state in TERMINAL:  # the latter ended between the two
            return projects.accepted(order, submitted.id), not submitted.deduplicated
        return projects.ingested(job), False

    async def _indexed(self, order: Order, sha: str) -> DatasetView | None:
        """The dataset that would be made again as it is.

        The one that the worker would write where that can be told, else any of the repository.
        """
        name = order.dataset
        if name is None and order.branch is not None:
            name = order.address.dataset_name(order.branch)
        candidates: Sequence[DatasetView]
        try:
            if name is not None:
                found = await self._datasets.one(order.tenant, order.project, name)
                candidates = [] if found is None else [found]
            else:
                candidates = await self._datasets.of_project(order.tenant, order.project)
        except BusError as error:
            raise QueueUnavailable(str(error)) from error
        return next((each for each in candidates if _is_at(each, order.address, order.scope, sha)), None)

    async def _job(self, tenant: str, job_id: str) -> Job | None:
        try:
            return await self._finder.known(tenant, job_id)
        except BusError as error:
            raise QueueUnavailable(str(error), job_id) from error


def _is_at(dataset: DatasetView, address: RepositoryAddress, scope: Scope, sha: str) -> bool:
    """Whether *dataset* is of *address* at *sha*, whole, and found by whom *scope* says."""
    return (
        dataset.repository.lower() == address.identity.lower()
        and dataset.commit == sha
        and dataset.stage is IndexStage.FULL
        and dataset.scope is scope
    )
