"""``python -m pharos_client`` is the command ``pharos``."""

from pharos_client.command import main

main()
