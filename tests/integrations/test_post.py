"""A POST to hosts that are slow, gone, inside or hostile."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from markovlm.integrations import post as posting
from markovlm.integrations.post import Place, PostFailed, PrivateAddress, is_public, post, public_addresses
from support.hooks import CERTIFICATE, Hook


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the test's hook is on this machine, which is let pass, and its certificate is trusted."""
    monkeypatch.setattr(posting, "public_addresses", lambda _: ["127.0.0.1"])
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def failed(hook: Hook, seconds: float = 5.0) -> PostFailed:
    with pytest.raises(PostFailed) as caught:
        post(Place.of(hook.url), b'{"a": 1}', {}, seconds)
    assert "SECRET" not in str(caught.value)
    return caught.value


def test_it_arrives() -> None:
    with Hook() as hook:
        post(Place.of(hook.url + "?x=1"), b'{"a": 1}', {"X-Own": "y"})
    [(path, headers, body)] = hook.heard
    assert (path, headers["X-Own"], body) == ("/services/T0/SECRET?x=1", "y", {"a": 1})
    assert headers["Host"].startswith("hooks.test")


@pytest.mark.parametrize(
    ("answer", "says", "again", "wait"),
    [
        ((404, {}, b"no_service"), "HTTP 404: no_service", False, None),
        ((400, {}, b"<html>no"), "HTTP 400", False, None),
        ((403, {}, b"bad \x1b[31m\n/services/T0/SECRET token"), "HTTP 403: bad �[31m … token", False, None),
        ((429, {"Retry-After": "7"}, b""), "HTTP 429", True, 7.0),
        ((503, {"Retry-After": "Wed, 21 Oct"}, b""), "HTTP 503", True, None),
        ((302, {"Location": "http://169.254.169.254/"}, b""), "responds with a redirect (HTTP 302), which is not followed", False, None),
        ((307, {"Location": "https://127.0.0.1/"}, b""), "responds with a redirect (HTTP 307), which is not followed", False, None),
    ],
)  # fmt: skip
def test_what_it_answers(answer: object, says: str, again: bool, wait: float | None) -> None:
    with Hook(answer) as hook:
        error = failed(hook)
    assert (str(error), error.again, error.wait) == (says, again, wait)
    assert len(hook.heard) == 1


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_one_that_hangs_or_drips_ends_in_time_and_is_not_asked_twice(how: str) -> None:
    with Hook(how) as hook:
        started = time.monotonic()
        error = failed(hook, 0.5)
        assert time.monotonic() - started < 5
    assert (str(error), error.again) == ("no response within 0.5 s; it may have arrived", False)


def test_one_that_never_shakes_hands_is_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(PostFailed) as caught:
        post(Place.of(f"https://hooks.test:{silent.getsockname()[1]}/SECRET"), b"{}", {}, 0.3)
    assert (str(caught.value), caught.value.again) == ("no response within 0.3 s", True)


def test_a_look_up_that_hangs_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "public_addresses", lambda _: time.sleep(3))
    with pytest.raises(PostFailed, match=r"no response within 0\.2 s$"):
        post(Place.of("https://hooks.test/SECRET"), b"{}", {}, 0.2)


def test_a_connection_that_breaks_is_tried_again() -> None:
    with Hook("reset") as hook:
        assert failed(hook).again
    assert failed(hook).again  # nobody listens any more


def test_the_certificate_must_be_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    with Hook() as hook:
        with pytest.raises(PostFailed, match=r"its certificate is not valid .*mismatch") as caught:
            post(Place.of(hook.url.replace("hooks.test", "other.test")), b"{}", {}, 5.0)
        assert not caught.value.again
        monkeypatch.delenv("SSL_CERT_FILE")
        assert "its certificate is not valid" in str(failed(hook))
    assert hook.heard == []


def test_a_host_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "public_addresses", public_addresses)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(socket.gaierror(-2, "SECRET")))
    with pytest.raises(PostFailed, match="has no address") as caught:
        post(Place.of("https://hooks.test/SECRET"), b"{}", {})
    assert caught.value.again


def test_a_name_that_leads_inside_is_never_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "public_addresses", public_addresses)
    with Hook() as hook:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (ip, 443)) for ip in ("93.184.216.34", "127.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        assert "not on the internet" in str(failed(hook))
    assert hook.heard == []


def test_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for a tunnel to the host by name; what is inside is refused there too."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:s%20t@127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.setattr(posting, "public_addresses", lambda _: (_ for _ in ()).throw(socket.gaierror()))

        def serve() -> None:
            connection, _ = proxy.accept()
            asked.append(connection.recv(1000))
            connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(PostFailed):
            post(Place.of("https://hooks.test/SECRET"), b"{}", {}, 5.0)
        thread.join(5)
    assert asked[0].startswith(b"CONNECT hooks.test:443 HTTP/1.")
    assert b"Proxy-Authorization: Basic bWU6cyB0" in asked[0]  # me:s t
    assert b"SECRET" not in asked[0]
    monkeypatch.setattr(posting, "public_addresses", lambda _: (_ for _ in ()).throw(PrivateAddress()))
    with pytest.raises(PostFailed, match="not on the internet"):
        post(Place.of("https://inside.test/SECRET"), b"{}", {}, 5.0)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.1.1", "255.255.255.255", "240.0.0.1",
        "198.18.0.1", "192.0.2.1", "::1", "::", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2001:db8::1", "::127.0.0.1",
    ],
)  # fmt: skip
def test_addresses_inside(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "3.120.0.1", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_addresses_of_the_internet(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.slack.com/SECRET", "ftp://x/SECRET", "hooks.slack.com/SECRET", "https:///SECRET", "https://u:SECRET@example.com/", "https://x:99999/SECRET",
        "https://x/SECRET\r\nHost: y", "https://x/SEC RET", "https://exämple.com/SECRET", "https://[::1", "",
    ],
)  # fmt: skip
def test_what_is_no_https_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="it ") as caught:
        Place.of(url)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1/x", "https://[::1]:8443/x", "https://169.254.169.254/latest", "https://192.168.0.9/"]
)
def test_a_private_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(PrivateAddress):
        Place.of(url)


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f.1", "127.1"])
def test_other_ways_to_write_this_machine_are_seen_when_looked_up(host: str) -> None:
    with pytest.raises((PrivateAddress, socket.gaierror)):
        public_addresses(Place.of(f"https://{host}/x"))


def test_a_url_is_in_no_repr() -> None:
    assert "SECRET" not in repr(Place.of("https://hooks.slack.com/services/SECRET?key=SECRET"))
