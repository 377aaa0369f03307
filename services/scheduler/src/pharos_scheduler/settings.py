"""What the scheduler reads."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from pharos_service.settings import ServiceSettings


class Settings(ServiceSettings, frozen=True, kw_only=True):
    max_attempts: Annotated[
        int,
        Meta(
            description="How often a job is tried before it fails, deaths of its worker included.", ge=1, le=9
        ),
    ] = 4
    max_concurrent_jobs: Annotated[
        int,
        Meta(description="How many batches run at once; the others wait for their turn.", ge=1, le=64),
    ] = 4
    tenant_queue_max: Annotated[
        int,
        Meta(description="Jobs of one tenant that may wait in the queue at once; 0: as many as fit.", ge=0),
    ] = 0
    queue_ageing_seconds: Annotated[
        float,
        Meta(
            description="How long a job must wait to be worth one priority more. A low one ranks with urgent "
            "ones after three times this, and a scheduled low one after 3.7 times.",
            gt=0,
        ),
    ] = 600
    webhook_debounce_seconds: Annotated[
        float,
        Meta(
            description="How long nobody may have pushed to a watched branch before its newest commit is "
            "indexed; one that never rests is indexed after twelve times this.",
            ge=0,
            le=3600,
        ),
    ] = 5
