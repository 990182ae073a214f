"""One HTTPS POST to a host on the internet that may be slow, gone or hostile.

Only public addresses are connected to, and the address that was checked is the one that is used (a name may change its address between
two look-ups). Redirects are not followed. Everything, including the DNS look-up, ends within a time limit. No error contains the URL,
which may be a secret.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import ipaddress
import queue
import socket
import ssl
import threading
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markovlm.content import one_line

_REASON_BYTES = 300  # of the body of an answer that refuses
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))


class PostFailed(Exception):
    """What went wrong, in a few words without the URL. `again`: another try may help; `wait`: seconds that the host asks for first."""

    def __init__(self, what: str, again: bool = False, wait: float | None = None):
        super().__init__(what)
        self.again = again
        self.wait = wait


@dataclass(frozen=True, slots=True)
class Place:
    """A parsed URL."""

    host: str
    port: int
    path: str = field(repr=False)

    @classmethod
    def of(cls, url: str) -> Place:
        """ValueError, which does not say the URL, unless it is `https://HOST[:PORT]/PATH` with a host that may be public."""
        try:
            parts = urllib.parse.urlsplit(url)
            port = parts.port or 443
        except ValueError:
            raise ValueError("it is not a URL") from None
        if parts.scheme != "https" or not parts.hostname:
            raise ValueError("it is not an https URL")
        if parts.username is not None or parts.password is not None:
            raise ValueError("it has a name or password before the host, which is not supported")
        if any(not c.isprintable() or c.isspace() or ord(c) > 126 for c in url):
            raise ValueError("it contains a blank, a control or a non-ASCII character")
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(parts.hostname)
            if not is_public(parts.hostname):
                raise PrivateAddress
        return cls(parts.hostname, port, urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, "")))


class PrivateAddress(Exception):
    """An internal address, where a service for this machine or network alone may listen."""

    def __init__(self) -> None:
        super().__init__("its host is not on the internet (a private, local or reserved address)")


def is_public(address: str) -> bool:
    """Whether an IP address is public: not private, local, shared, reserved or multicast, nor an IPv6 form of one that is."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if any(ip in network for network in _NAT64):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def post(place: Place, body: bytes, headers: Mapping[str, str], seconds: float = 10.0) -> None:
    """Deliver it. Raises PostFailed unless the host responds with 2xx within so many seconds."""
    attempt = _Attempt(place, body, headers, seconds)
    threading.Thread(target=attempt.run, daemon=True).start()
    try:
        failed = attempt.outcome.get(timeout=seconds)
    except queue.Empty:
        attempt.abandon()
        failed = _too_slow(seconds, attempt.sent)
    if failed is not None:
        raise failed


def _too_slow(seconds: float, sent: bool) -> PostFailed:
    """Once it is sent, it may have been taken: it is not sent twice."""
    return PostFailed(f"no response within {seconds:g} s" + ("; it may have arrived" if sent else ""), again=not sent)


@dataclass(slots=True)
class _Attempt:
    place: Place
    body: bytes
    headers: Mapping[str, str]
    seconds: float
    sent: bool = False
    outcome: queue.SimpleQueue[PostFailed | None] = field(default_factory=queue.SimpleQueue[PostFailed | None])
    _connection: http.client.HTTPSConnection | None = None

    def run(self) -> None:
        try:
            self._deliver()
            self.outcome.put(None)
        except PostFailed as failed:
            self.outcome.put(failed)
        except Exception as error:  # whatever it is, a message that was not delivered must not end what sends it
            self.outcome.put(self._named(error))
        finally:
            self.abandon()

    def abandon(self) -> None:
        """End whatever the connection is waiting for."""
        sock = None if self._connection is None else self._connection.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                sock.close()

    def _deliver(self) -> None:
        self._connection = connection = _connection(self.place, self.seconds)
        connection.connect()
        self.sent = True
        connection.request("POST", self.place.path, self.body, dict(self.headers))
        answer = connection.getresponse()
        if 200 <= answer.status < 300:
            return
        if 300 <= answer.status < 400:
            raise PostFailed(f"responds with a redirect (HTTP {answer.status}), which is not followed")
        said = one_line(answer.read(_REASON_BYTES).decode("utf-8", "replace"), _REASON_BYTES).replace(self.place.path, "…")[:100]
        what = f"HTTP {answer.status}" + (f": {said}" if said and not said.startswith("<") else "")
        raise PostFailed(what, answer.status in _RETRIED, _seconds(answer.getheader("Retry-After")))

    def _named(self, error: Exception) -> PostFailed:
        """By its kind: the text of an exception may hold the URL."""
        if isinstance(error, PrivateAddress):
            return PostFailed(str(error))
        if isinstance(error, socket.gaierror):
            return PostFailed("its host has no address (DNS)", again=True)
        if isinstance(error, ssl.SSLCertVerificationError):
            return PostFailed(f"its certificate is not valid ({error.verify_message})")
        if isinstance(error, TimeoutError):
            return _too_slow(self.seconds, self.sent)
        if isinstance(error, OSError):
            return PostFailed(error.strerror or type(error).__name__, again=True)
        return PostFailed(
            f"its response is not HTTP ({type(error).__name__})", again=isinstance(error, http.client.BadStatusLine)
        )


def _seconds(header: str | None) -> float | None:
    try:
        value = float(header or "")
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None


class _Pinned(http.client.HTTPSConnection):
    """To one of the addresses that were looked at, with the certificate of the host."""

    def __init__(self, place: Place, addresses: Sequence[str], seconds: float):
        super().__init__(place.host, place.port, timeout=seconds)
        self._addresses, self._seconds = addresses, seconds

    def connect(self) -> None:
        for number, address in enumerate(self._addresses, 1):
            try:
                sock = socket.create_connection((address, self.port), self._seconds / len(self._addresses))
            except OSError:
                if number == len(self._addresses):
                    raise
                continue
            sock.settimeout(self._seconds)
            self.sock = ssl.create_default_context().wrap_socket(sock, server_hostname=self.host)
            return


def _connection(place: Place, seconds: float) -> http.client.HTTPSConnection:
    """Not connected yet. Through the proxy of the environment (`HTTPS_PROXY`, `NO_PROXY`) where there is one."""
    proxy = None if urllib.request.proxy_bypass(place.host) else urllib.request.getproxies().get("https")
    if proxy is None:
        return _Pinned(place, public_addresses(place), seconds)
    with contextlib.suppress(
        socket.gaierror
    ):  # behind a proxy a host may have no address here; one inside is refused all the same
        public_addresses(place)
    return _through(proxy, place, seconds)


def public_addresses(place: Place) -> list[str]:
    """The host's addresses. Raises PrivateAddress if any of them is internal, socket.gaierror if there is none."""
    found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
    if not all(is_public(address) for address in addresses):
        raise PrivateAddress
    return addresses


def _through(proxy: str, place: Place, seconds: float) -> http.client.HTTPSConnection:
    parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if not parts.hostname:
        raise PostFailed("HTTPS_PROXY names no host")
    connection = http.client.HTTPSConnection(parts.hostname, parts.port or 80, timeout=seconds)
    secret = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}" if parts.username else ""
    headers = {"Proxy-Authorization": "Basic " + base64.b64encode(secret.encode()).decode()} if secret else {}
    connection.set_tunnel(place.host, place.port, headers)
    return connection
