"""Addresses of servers that a user names."""

from __future__ import annotations

import urllib.parse


def http_host(url: str) -> str | None:
    """HOST of `http://HOST[:PORT][/PATH]`, or of the same with https; None if it is not such an address."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:  # a bracket that nothing closes, a port that is none
        return None
    return parts.hostname or None if parts.scheme in ("http", "https") and port != 0 else None
