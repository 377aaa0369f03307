"""The whole of Pharos on one machine: a bus, four services, one supervisor."""
