"""The proxy does what it says: otherwise the matrix would show the strength of nothing."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.proxy import Network, Proxy


class Echo:
    """A server that says everything again."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    @staticmethod
    def _echo(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(4096):
                    connection.sendall(data)
            except OSError:
                pass

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    echo = Echo()
    with Network() as network:
        yield network.proxy(echo.port)
    echo.close()


def connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), 5)


def said_again(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    return connection.recv(4096)


def test_what_is_said_arrives_and_so_does_the_goodbye(proxy: Proxy) -> None:
    with connected(proxy) as connection:
        assert said_again(connection, b"hello") == b"hello"
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(10) == b""
    assert proxy.accepted == 1


def test_a_long_answer_that_ends_with_the_connection_arrives_whole(proxy: Proxy) -> None:
    text = b"x" * 3_000_000
    with connected(proxy) as connection:
        threading.Thread(
            target=lambda: (connection.sendall(text), connection.shutdown(socket.SHUT_WR)), daemon=True
        ).start()
        received = 0
        while data := connection.recv(65536):
            received += len(data)
    assert received == len(text)


def test_a_cut_resets_what_stands_and_what_comes_until_it_is_healed(proxy: Proxy) -> None:
    with connected(proxy) as connection:
        assert said_again(connection, b"hello") == b"hello"
        proxy.cut()
        with pytest.raises(ConnectionError):
            assert connection.recv(10) != b""
            raise ConnectionError  # a FIN would be no reset
    with pytest.raises(ConnectionError), connected(proxy) as connection:
        connection.sendall(b"hello")
        if connection.recv(10) == b"":
            raise ConnectionError
    proxy.heal()
    with connected(proxy) as connection:
        assert said_again(connection, b"hello") == b"hello"


def test_what_was_said_while_it_was_held_arrives_when_it_is_healed(proxy: Proxy) -> None:
    with connected(proxy) as connection:
        assert said_again(connection, b"hello") == b"hello"
        proxy.hold()
        connection.sendall(b"anybody there?")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(100)
        proxy.heal()
        connection.settimeout(5)
        assert connection.recv(100) == b"anybody there?"


def test_a_held_proxy_accepts_a_connection_and_serves_it_later(proxy: Proxy) -> None:
    proxy.hold()
    with connected(proxy) as connection:
        connection.sendall(b"hello")
        proxy.heal()
        assert connection.recv(100) == b"hello"


def test_a_slow_line_delays_each_way(proxy: Proxy) -> None:
    with connected(proxy) as connection:
        proxy.slow(0.1)
        began = time.monotonic()
        assert said_again(connection, b"hello") == b"hello"
        assert time.monotonic() - began >= 0.2
        proxy.heal()
        began = time.monotonic()
        assert said_again(connection, b"hello") == b"hello"
        assert time.monotonic() - began < 0.1


def test_a_narrow_line_lets_so_many_bytes_a_second_through(proxy: Proxy) -> None:
    with connected(proxy) as connection:
        proxy.slow(0, bytes_per_second=100_000)
        began = time.monotonic()
        connection.sendall(b"x" * 20_000)
        received = 0
        while received < 20_000:
            received += len(connection.recv(65536))
        assert time.monotonic() - began >= 0.2
