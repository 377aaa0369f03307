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
