"""What is an address of a server and what is none."""

from __future__ import annotations

import pytest

from markovlm.addresses import http_host


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://localhost:8000", "localhost"),
        ("https://host.example/v1", "host.example"),
        ("http://[::1]:8000/x", "::1"),
        ("http://me:secret@127.0.0.1/", "127.0.0.1"),
        ("http://[::1", None),
        ("http://", None),
        ("http://:8000", None),
        ("http://host:0", None),
        ("http://host:99999", None),
        ("http://host:port", None),
        ("ftp://localhost/", None),
        ("localhost:80", None),
        ("", None),
    ],
)
def test_the_host_of_an_address(url: str, host: str | None) -> None:
    assert http_host(url) == host
