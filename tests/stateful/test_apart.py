"""Histories that are played at the same time by several processes have nothing to do with each other."""

from __future__ import annotations

import random
import socket

import pytest

from tests.support.nats_server import NatsServer, free_port


def test_the_port_of_a_server_that_is_down_is_given_to_nobody_else() -> None:
    with NatsServer() as server:
        server.kill()

        with socket.socket() as another, pytest.raises(OSError, match="in use"):
            another.bind(("127.0.0.1", server.port))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), 1)

        server.start()
        server.kill()


def test_processes_in_which_chance_was_seeded_alike_draw_other_ports() -> None:
    drawn = []
    for _ in range(2):
        random.seed(0)  # as hypothesis does before each example
        drawn.append([free_port() for _ in range(3)])

    assert drawn[0] != drawn[1]
