"""Talking to Grafana: waiting for it, and everything that may answer in its place."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.config._grafana_access import GrafanaAccess
from ml_pipeline.config._grafana_client import Answer, GrafanaClient
from ml_pipeline.errors import DashboardError
from tests.config.grafana_fake import PASSWORD, TOKEN, GrafanaFake, running_grafana
from tests.support import free_port, require

PAGE = "<html><head><title>Sign in\n - Example</title></head><body>message</body></html>"


def refusal(url: str, seconds: float = 0, **access: Any) -> str:
    """What waiting for a Grafana ends with."""
    client = GrafanaClient(GrafanaAccess(url, **{"password": PASSWORD, **access}), timeout_seconds=1)
    try:
        with pytest.raises(DashboardError) as error:
            client.wait(seconds, lambda _: None)
    finally:
        client.close()
    return str(error.value)


def test_a_call_returns_the_answer(client: GrafanaClient, grafana: GrafanaFake) -> None:
    """What was asked, with the path below /api; a refusal is an answer too."""
    assert client.call("GET", "/folders/x") == Answer(404, {"message": "folder not found"}, "folder not found")
    made = client.call("POST", "/folders", {"uid": "x", "title": "X"})
    assert (made.ok, made.fields) == (True, {"uid": "x", "title": "X"})
    assert client.call("GET", "/datasources").items == []
    assert made.items == []
    assert grafana.requests[0] == ("GET", "/api/folders/x")


def test_a_token_is_a_way_in(grafana: GrafanaFake) -> None:
    """As a bearer."""
    client = GrafanaClient(GrafanaAccess(grafana.url, token=TOKEN))
    assert client.call("GET", "/datasources").ok
    client.close()


def test_a_user_and_password_beyond_latin_1_are_sent_as_grafana_reads_them(grafana: GrafanaFake) -> None:
    """As UTF-8: it answers that it does not know them, and nothing raises on the way."""
    client = GrafanaClient(GrafanaAccess(grafana.url, user="Łukasz", password="żółw"))
    with pytest.raises(DashboardError, match="Grafana must know user Łukasz and the password"):
        client.call("GET", "/datasources")
    client.close()


@pytest.mark.parametrize(
    ("access", "message"),
    [
        (
            {"password": "hunter22"},
            (
                "Grafana must know user admin and the password (got '401 Invalid username or password'); "
                "check both; after five wrong tries Grafana waits 5 min"
            ),
        ),
        ({"token": "glsa_wrong"}, "Grafana must know the token (got '401 Invalid API key'); make a new one"),
    ],
)
def test_a_wrong_password_or_token(access: dict[str, str], message: str, grafana: GrafanaFake) -> None:
    """Said with the user's name, never with what was wrong."""
    client = GrafanaClient(GrafanaAccess(grafana.url, **access))
    with pytest.raises(DashboardError) as error:
        client.call("GET", "/datasources")
    client.close()
    assert str(error.value) == message


def test_it_waits_until_grafana_is_up(client: GrafanaClient, grafana: GrafanaFake) -> None:
    """And says once for each reason what it waits for."""
    grafana.fail("GET", "/api/health", 502, PAGE, kind="text/html", times=2)
    grafana.fail("GET", "/api/health", 503, {"database": "failing"}, times=2)
    said: list[str] = []
    client.wait(30, said.append)
    assert said == [
        f"waiting up to 30 s for Grafana at {grafana.url}: 502 a page (text/html) Sign in - Example",
        f"waiting up to 30 s for Grafana at {grafana.url}: 503 Service Unavailable",
    ]
    assert client.version == "13.2.3"


def test_it_waits_for_a_server_that_starts_later() -> None:
    """Refused connections are waited out."""
    access = GrafanaAccess(f"http://127.0.0.1:{free_port()}", password="x")
    client = GrafanaClient(access)
    said: list[str] = []
    servers: list[HTTPServer] = []

    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"database": "ok"}')

        def log_message(self, *_: object) -> None:
            pass

    def start(line: str) -> None:
        said.append(line)
        servers.append(HTTPServer(("127.0.0.1", int(access.url.rpartition(":")[2])), Healthy))
        threading.Thread(target=servers[0].handle_request, daemon=True).start()

    client.wait(30, start)
    client.close()
    servers[0].server_close()
    assert said == [f"waiting up to 30 s for Grafana at {access.url}: nothing listens there"]
    assert client.version == ""  # a server can be told to hide it


def test_nothing_listens() -> None:
    """Rule, reason, remedy."""
    url = f"http://127.0.0.1:{free_port()}"
    end = "(got 'nothing listens there'); start it (make up), or correct --url or GRAFANA_URL"
    assert refusal(url) == f"Grafana must answer at {url} {end}"
    assert refusal(url, seconds=0.3) == f"Grafana must answer at {url} {end}"


def test_a_grafana_that_goes_away(client: GrafanaClient, grafana: GrafanaFake) -> None:
    """A later call says the same as the first."""
    client.wait(0, lambda _: None)
    grafana.close()
    with pytest.raises(DashboardError, match="Grafana must answer at http://"):
        client.call("GET", "/datasources")


@pytest.mark.parametrize("host", ["a..b", "*", f"{'a' * 300}.example", "xn--a.example"])
def test_a_host_that_cannot_be_one(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever library notices it, it is the same error."""

    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setenv("NO_PROXY", "*")
    assert refusal(f"http://{host}").startswith(f"Grafana must answer at http://{host} (got ")


def test_no_such_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver's answer, in words."""

    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setenv("NO_PROXY", "*")
    assert refusal("http://grafana.invalid:3000") == (
        "Grafana must answer at http://grafana.invalid:3000 (got 'no such host'); "
        "start it (make up), or correct --url or GRAFANA_URL"
    )


def test_a_server_that_never_answers(grafana: GrafanaFake) -> None:
    """Every call has a limit."""
    grafana.hang("GET", "/api/health")
    assert "(got 'no answer within 1 s')" in refusal(grafana.url)


def test_a_connection_that_breaks() -> None:
    """A server that hangs up, before and within the answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"

        def hang_up() -> None:
            for answer in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"):
                connection, _ = server.accept()
                connection.recv(4096)
                connection.sendall(answer)
                connection.close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        assert "the connection failed" in refusal(url)
        assert "the connection failed" in refusal(url)
        thread.join(10)


def test_a_page_in_place_of_grafana(grafana: GrafanaFake) -> None:
    """A login page with status 200 is not waited for."""
    grafana.fail("GET", "/api/health", 200, PAGE, kind="text/html; charset=utf-8")
    assert refusal(grafana.url, seconds=30) == (
        "Grafana's API must answer JSON, not a page (got 'a page (text/html) Sign in - Example'); "
        f"give --url the address that leads past the proxy or login page at {grafana.url}"
    )


@pytest.mark.parametrize(
    ("status", "body", "got"),
    [
        (404, {}, "404 Not Found"),
        (200, {"status": "up"}, "200"),
        (403, PAGE, "403 a page (text/html) Sign in - Example"),
        (204, "", "204"),
    ],
)
def test_another_server_in_place_of_grafana(status: int, body: Any, got: str, grafana: GrafanaFake) -> None:
    """It answers, but it is none."""
    grafana.fail("GET", "/api/health", status, body, kind="text/html")
    assert refusal(grafana.url, seconds=30) == (
        f"Grafana's address must lead to Grafana (got '{got} from {grafana.url}/api/health'); correct --url"
    )


@pytest.mark.parametrize("body", ['"message"', "3", "null"])
@pytest.mark.parametrize("status", [200, 500])
def test_json_that_is_no_object(status: int, body: str, client: GrafanaClient, grafana: GrafanaFake) -> None:
    """Nothing the library trips over gets out."""
    grafana.fail("GET", "/api/search", status, body)
    if status == 500:
        assert str(client.call("GET", "/search")) == "500 Internal Server Error"
    else:
        with pytest.raises(DashboardError, match="must answer JSON, not a page"):
            client.call("GET", "/search")


@pytest.mark.parametrize("status", [413, 500, 502])
def test_an_error_page_is_an_answer(status: int, client: GrafanaClient, grafana: GrafanaFake) -> None:
    """Its title tells who spoke; the library alone would raise a TypeError."""
    grafana.fail("POST", "/api/folders", status, PAGE, kind="text/html")
    assert client.call("POST", "/folders", {}) == Answer(status, {}, "a page (text/html) Sign in - Example")


def test_no_content_is_done(client: GrafanaClient, grafana: GrafanaFake) -> None:
    """204 has no JSON, and needs none."""
    grafana.fail("DELETE", "/api/x", 204)
    assert client.call("DELETE", "/x").ok


def test_a_redirect_is_not_followed(grafana: GrafanaFake) -> None:
    """A POST would arrive as a GET, and the password somewhere else; the message names where it leads."""
    grafana.fail("GET", "/api/health", 302, headers={"Location": "https://sso.example.org/login?state=s3cret"})
    assert refusal(grafana.url, seconds=30) == (
        "Grafana's address must not redirect (got 'to https://sso.example.org/login'); give --url that address"
    )
    assert len(grafana.requests) == 1


@pytest.mark.parametrize("version", ["9.5.21", "8.0.0-beta1"])
def test_a_server_too_old(version: str, grafana: GrafanaFake) -> None:
    """Said at once."""
    grafana.version = version
    assert refusal(grafana.url, seconds=30) == f"Grafana must be version 10 or newer (got '{version}'); upgrade it"


@pytest.mark.parametrize("version", ["10.0.0", "12.4.1+security-01", None, "main"])
def test_a_version_that_is_new_enough_or_hidden(
    version: str | None, grafana: GrafanaFake, client: GrafanaClient
) -> None:
    """It goes on."""
    grafana.version = version
    client.wait(0, lambda _: None)
    assert client.version == (version or "")


def test_tls_where_there_is_none(grafana: GrafanaFake) -> None:
    """An https address of a plain port."""
    url = grafana.url.replace("http://", "https://")
    message = refusal(url, seconds=30)
    assert message.startswith(f"{url} must speak TLS with a certificate that this machine trusts (got ")
    assert message.endswith("; name the file of its authority in REQUESTS_CA_BUNDLE, or correct --url")


def test_a_certificate_nobody_trusts_and_one_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused at once; with its authority in REQUESTS_CA_BUNDLE it is Grafana, on the loopback address too."""
    openssl = require("openssl")
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "cert", "-days", "2"]
    subprocess.run(
        [*command, "-subj", "/CN=g", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("cert", "key")
    with running_grafana() as fake:
        fake._server.socket = context.wrap_socket(fake._server.socket, server_side=True, do_handshake_on_connect=False)
        url = fake.url.replace("http://", "https://")
        assert "certificate verify failed" in refusal(url, seconds=30)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(Path("cert").absolute()))
        client = GrafanaClient(GrafanaAccess(url, password=PASSWORD))
        client.wait(5, lambda _: None)
        client.close()


def test_the_proxies_of_the_environment_are_not_for_this_machine(
    grafana: GrafanaFake, client: GrafanaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loopback address is called directly, another host through the proxy."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://user:s3cret@127.0.0.1:{free_port()}")
    client.wait(0, lambda _: None)
    assert refusal("http://grafana.invalid") == (
        "Grafana must answer at http://grafana.invalid (got 'the proxy of HTTP_PROXY or HTTPS_PROXY does not answer; "
        "NO_PROXY names hosts it is not for'); start it (make up), or correct --url or GRAFANA_URL"
    )
    monkeypatch.setenv("HTTP_PROXY", grafana.url)
    monkeypatch.setenv("http_proxy", grafana.url)
    proxied = GrafanaClient(GrafanaAccess("http://grafana.invalid", password=PASSWORD))
    proxied.wait(0, lambda _: None)
    proxied.close()
    assert ("GET", "http://grafana.invalid/api/health") in grafana.requests


def test_a_path_and_an_ipv6_address_are_kept(grafana: GrafanaFake) -> None:
    """Grafana may live below a path."""
    client = GrafanaClient(GrafanaAccess(f"{grafana.url}/some/grafana/", password=PASSWORD))
    client.call("GET", "/datasources")
    client.close()
    assert grafana.requests == [("GET", "/some/grafana/api/datasources")]
    assert "at http://[::1]:9 (got" in refusal("http://[::1]:9")


@pytest.mark.parametrize("access", [{"password": "hunter2hunter2"}, {"token": "glsa_s3cret_token"}])
def test_what_a_server_echoes_shows_no_secret(access: dict[str, str], grafana: GrafanaFake) -> None:
    """Neither in a page nor in a message, in no form it was sent in; and no credentials of an address."""
    secret = next(iter(access.values()))
    client = GrafanaClient(GrafanaAccess(grafana.url, **access))
    sent: list[str] = []
    client._api.s.hooks["response"].append(lambda response, **_: sent.append(response.request.headers["Authorization"]))
    page = f"<title>{secret} http://a:b@c</title>"
    grafana.fail("GET", "/api/page", 500, page)
    grafana.fail("GET", "/api/json", 400, {"message": f"bad {secret}"})
    assert str(client.call("GET", "/page")) == "500 a page (application/json) *** http://***@c"
    assert str(client.call("GET", "/json")) == "400 bad ***"
    echoed = sent[-1].partition(" ")[2]
    grafana.fail("GET", "/api/echo", 400, {"message": f"bad {echoed}"})
    assert str(client.call("GET", "/echo")) == "400 bad ***"
    client.close()
