"""What may be shown to whom: tenants, projects and owners. Pure. ``docs/decisions/0009`` says why."""

from __future__ import annotations

from typing import Final

import msgspec

from pharos_contracts.connections.v1 import Connection
from pharos_contracts.jobs.v1 import Job, JobKind, Scope
from pharos_contracts.resources.v1 import Resource

# What belongs to the user who asked for it; every other job is the tenant's.
OF_A_USER: Final = frozenset({JobKind.BATCH, JobKind.RESOURCE, JobKind.DELETE})


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """``tenant`` None is every one, ``projects`` None every one of the tenant's, ``user`` None everybody.

    ``kinds`` are those of jobs; None is every one.
    """

    tenant: str | None
    projects: frozenset[str] | None = None
    user: str | None = None
    kinds: frozenset[JobKind] | None = None

    @property
    def repositories(self) -> Sight:
        """What is shown of jobs of repositories."""
        return msgspec.structs.replace(self, kinds=frozenset({JobKind.REPOSITORY}))

    @property
    def workers(self) -> str | None:
        """The tenant whose work is named where workers are shown: a worker does not tell of the project."""
        return self.tenant if self.projects is None else ""

    def project(self, name: str) -> bool:
        return self.projects is None or name in self.projects

    def within(self, project: str | None) -> Sight:
        """What is shown of one *project*; None is every one that is shown."""
        if project is None:
            return self
        shown = frozenset({project}) if self.project(project) else frozenset()
        return msgspec.structs.replace(self, projects=shown)

    def job(self, job: Job) -> bool:
        return (
            self.tenant in (None, job.tenant)
            and self.project(job.project)
            and (self.kinds is None or job.kind in self.kinds)
            and (self.user is None or job.kind not in OF_A_USER or job.submitted_by == self.user)
        )

    def connection(self, connection: Connection) -> bool:
        """It holds somebody's credentials, and so it is theirs alone."""
        return (
            self.tenant in (None, connection.tenant)
            and self.project(connection.project)
            and self.user in (None, connection.user)
        )

    def resource(self, resource: Resource) -> bool:
        return (
            self.tenant in (None, resource.tenant)
            and self.project(resource.project)
            and self.user in (None, resource.user)
        )

    def maybe_job(self, job: Job | None) -> bool:
        """``job``, where the job may be unknown: then only who sees all of the tenant is told of it."""
        return self.is_whole if job is None else self.job(job)

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the tenant is hidden."""
        return self.projects is None and self.user is None and self.kinds is None

    def dataset(self, project: str, scope: Scope) -> bool:
        """A global dataset is found from every project of its tenant, and so by every key of it."""
        return self.project(project) or scope is Scope.GLOBAL
