"""Repositories as clients see them: what the datasets of one have in common. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from pharos_contracts.datasets.v1 import IndexStage
from pharos_contracts.identity import repository_id
from pharos_contracts.jobs.v1 import Scope
from pharos_gateway.datasets import DatasetList, DatasetView


class Freshness(msgspec.Struct, frozen=True, kw_only=True):
    """When something of it was indexed last, and how long ago that is."""

    indexed_at: datetime
    age_seconds: float


class BranchView(msgspec.Struct, frozen=True, kw_only=True):
    """What is indexed of a branch, as the dataset that it is; ``branch`` None: a commit that is on none."""

    branch: str | None
    project: str
    dataset: str
    scope: Scope
    commit: str
    stage: IndexStage
    generation: int
    files: int
    chunks: int
    freshness: Freshness


class RepositoryView(msgspec.Struct, frozen=True, kw_only=True):
    """A repository. ``id`` stays the same as long as its tenant and its address do."""

    id: str
    tenant: str
    host: str
    name: str
    branches: tuple[BranchView, ...]
    freshness: Freshness


class RepositoryList(msgspec.Struct, frozen=True, kw_only=True):
    """By host and name; ``truncated`` where there are more than 1,000 datasets: then these are told of."""

    repositories: tuple[RepositoryView, ...]
    truncated: bool


def listed(found: DatasetList, now: datetime) -> RepositoryList:
    """The repositories whose datasets were *found*. Documents belong to none."""
    by_repository: dict[tuple[str, str], list[DatasetView]] = {}
    for dataset in found.datasets:
        if dataset.repository:
            by_repository.setdefault((dataset.repository, dataset.tenant), []).append(dataset)
    return RepositoryList(
        repositories=tuple(_view(own, now) for _, own in sorted(by_repository.items())),
        truncated=found.truncated,
    )


def _view(datasets: Iterable[DatasetView], now: datetime) -> RepositoryView:
    newest_first = sorted(datasets, key=lambda each: (each.published_at, each.dataset), reverse=True)
    latest = newest_first[0]
    host, _, name = latest.repository.partition("/")
    return RepositoryView(
        id=repository_id(latest.tenant, latest.repository),
        tenant=latest.tenant,
        host=host,
        name=name,
        branches=tuple(_branch(each, now) for each in newest_first),
        freshness=_freshness(latest, now),
    )


def _branch(dataset: DatasetView, now: datetime) -> BranchView:
    return BranchView(
        branch=dataset.branch,
        project=dataset.project,
        dataset=dataset.dataset,
        scope=dataset.scope,
        commit=dataset.commit,
        stage=dataset.stage,
        generation=dataset.generation,
        files=dataset.files,
        chunks=dataset.chunks,
        freshness=_freshness(dataset, now),
    )


def _freshness(dataset: DatasetView, now: datetime) -> Freshness:
    age = max(0.0, (now - dataset.published_at).total_seconds())  # two clocks need not agree
    return Freshness(indexed_at=dataset.published_at, age_seconds=round(age, 1))
