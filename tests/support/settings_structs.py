"""The settings struct of each process, by the name of its folder under ``services/`` (or ``pharos-bus``)."""

from __future__ import annotations

import importlib

from pharos_service.settings import ServiceSettings, table

_PLACES = {
    "gateway": ("pharos_gateway.settings", "Settings"),
    "scheduler": ("pharos_scheduler.settings", "Settings"),
    "gpu-embedder": ("pharos_embedder.settings", "Settings"),
    "history": ("pharos_history.settings", "HistorySettings"),
    "pharos-bus": ("pharos_service.bus_admin", "BusSettings"),
}
PROCESSES = tuple(_PLACES)


def settings_struct(process: str) -> type[ServiceSettings]:
    """The struct that *process* reads its environment into."""
    module, name = _PLACES[process]
    found: type[ServiceSettings] = getattr(importlib.import_module(module), name)
    return found


def variables(struct: type[ServiceSettings]) -> set[str]:
    """Every variable that *struct* reads, the ``_FILE`` forms included."""
    names = {setting.variable for setting in table(struct)}
    return names | {f"{name}_FILE" for name in names} | {"PHAROS_CONFIG"}
