"""Resources: texts with an address, each its user's own. Version 1."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from pharos_contracts.message import Message

RESOURCES_LABEL: Final = "resources"
"""What all of them come from, and so the dataset that they are found in."""


class Resource(Message, frozen=True, kw_only=True, tag="resources.view.v1.resource"):
    """A text that somebody made searchable, as the bucket ``resources`` keeps it.

    ``url`` is where it can be read; it is not fetched. ``job_id`` is the job that read the text as it was
    given last. ``user`` owns it.
    """

    resource_id: str
    tenant: str
    project: str
    user: str
    title: str
    url: str
    resource_type: str
    job_id: str
    created_at: datetime
    updated_at: datetime


def resource_identity(resource_id: str) -> str:
    """What the text of a resource is called among the documents of its dataset.

    It has a slash more than a file of that label can have in its name, which somebody else may have sent.
    """
    return f"{RESOURCES_LABEL}/texts/{resource_id}"
