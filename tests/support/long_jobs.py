"""A repository whose index takes a while, and what is seen of the job meanwhile."""

from __future__ import annotations

import asyncio

import psutil

from pharos_contracts import streams
from pharos_contracts.datasets.v1 import Dataset
from pharos_contracts.identity import dataset_key
from pharos_contracts.jobs.v1 import Job
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_sources.hosts import AllowedHosts
from pharos_sources.repository_url import parse_repository_url
from tests.support.git_server import GitServer
from tests.support.workers import worker_entry

FILES = 4


def source(number: int) -> str:
    """A file of about ten chunks."""
    return "".join(
        f"def function_{number}_{each}(value):\n"
        + "".join(f"    line_{line} = value + {number * 1000 + each * 10 + line}\n" for line in range(10))
        + "    return value\n\n\n"
        for each in range(30)
    )


REPOSITORY = {f"src/module_{number}.py": source(number) for number in range(FILES)}


def dataset_of(wanted: Job, git: GitServer) -> str:
    hosts = AllowedHosts.parse(git.allowed_hosts)
    return parse_repository_url(wanted.source.clone_url, allowed_hosts=hosts).dataset_name("main")


async def record_of(bus: Bus, name: str) -> Dataset | None:
    entry = await Bucket(bus, streams.KV_DATASETS, Dataset).get(dataset_key("default", "default", name))
    return entry.value if entry is not None else None


async def until_busy(bus: Bus, wanted: Job) -> None:
    async with asyncio.timeout(20):
        while (found := await worker_entry(bus, "w2")) is None or wanted.job_id not in found.job_ids:
            await asyncio.sleep(0.02)


OF_GIT_SERVER = ("http-backend", "upload-pack", "pack-objects")


def git_processes() -> list[str]:
    """The fetches of this process, and not what its git server runs."""
    found = []
    for each in psutil.Process().children(recursive=True):
        try:
            command = each.cmdline()
        except psutil.Error:
            continue
        said = " ".join(command)
        if command and "git" in command[0] and not any(name in said for name in OF_GIT_SERVER):
            found.append(said)
    return found
