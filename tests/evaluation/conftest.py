import socket

import pytest


@pytest.fixture(autouse=True)
def no_sockets(monkeypatch):
    """Everything here runs without a network: opening a socket fails the test."""

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refused)
    monkeypatch.setattr(socket, "create_connection", refused)
