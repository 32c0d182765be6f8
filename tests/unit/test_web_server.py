"""Where a server listens, and that answers are not held back."""

from __future__ import annotations

import socket

import pytest

from monitor.errors import ConfigError
from monitor.web.server import bind


def test_no_nagle() -> None:
    """The listener is named as TCP, without which asyncio leaves Nagle's algorithm on: 40 ms a request."""
    with bind("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
        with pytest.raises(ConfigError, match="choose another"):
            bind("127.0.0.1", listener.getsockname()[1])


@pytest.mark.parametrize("host", ["256.0.0.1", "no such host", "a" * 300])
def test_no_such_address(host: str) -> None:
    """An address that there is not is told in one line."""
    with pytest.raises(ConfigError) as e:
        bind(host, 0)
    assert "\n" not in str(e.value)
