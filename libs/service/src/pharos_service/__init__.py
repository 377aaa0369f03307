"""The chassis of every service: settings, logging, the bus, health."""
