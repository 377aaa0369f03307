"""``python -m pharos_gateway``."""

from pharos_gateway.app import main
from pharos_gateway.settings import Settings
from pharos_service.running import run

if __name__ == "__main__":
    run("gateway", Settings, main)
