"""The dashboard's access rules: hosts, origins, the token, the sandbox of stored files."""

from __future__ import annotations

from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from report.dashboard.access import FILES, SANDBOX, Access, guarded, host_name

ACCESS = Access(token="the-token")
LOGGED_IN = {"HTTP_COOKIE": f"other=1; {ACCESS.cookie}=the-token"}
ENVIRON = {"REQUEST_METHOD": "GET", "HTTP_HOST": "localhost:8080", **LOGGED_IN}


def ask(access: Access = ACCESS, **environ: str) -> tuple[str, dict[str, str], bytes]:
    """(status, headers, body) of a request to an application that answers everything as an HTML page for any origin."""

    def application(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/html"), ("Access-Control-Allow-Origin", "*")])
        return [b"inside"]

    answers: list[tuple[str, dict[str, str]]] = []
    full: dict[str, Any] = dict(environ)
    setup_testing_defaults(full)
    body = b"".join(guarded(application, access)(full, lambda status, headers, *_: answers.append((status, dict(headers)))))
    return *answers[0], body


# --- hosts and origins -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "localhost", "LOCALHOST:9", "127.0.0.1"])
def test_loopback_is_answered(host: str) -> None:
    assert ACCESS.reject_reason(ENVIRON | {"HTTP_HOST": host}) is None


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "localhost.evil.example", "localhost:8080.evil.example", "127.0.0.1.evil.example",
     "evil.example@localhost", "localhost@evil.example", "192.168.0.2:8080", "0.0.0.0:8080", "127.0.0.2", "[::2]",
     "localhost:", "[::1", "localhost:8080\n", ""],
)  # fmt: skip
@pytest.mark.parametrize("allowed", [(), ("hub.example",)])
def test_any_other_host_is_rejected(host: str, allowed: tuple[str, ...]) -> None:
    access = Access(allowed, "the-token")
    assert "localhost only" in str(access.reject_reason(ENVIRON | {"HTTP_HOST": host}))


def test_a_request_without_a_host_is_rejected() -> None:
    assert ACCESS.reject_reason({"REQUEST_METHOD": "GET", **LOGGED_IN})


@pytest.mark.parametrize("host", ["hub.example", "hub.example:443", "HUB.example"])
def test_an_allowed_host_is_answered_with_the_token_only(host: str) -> None:
    access = Access(("hub.example",), "the-token")
    request = {"REQUEST_METHOD": "GET", "HTTP_HOST": host}
    assert "needs its token" in str(access.reject_reason(request))
    assert access.reject_reason(request | LOGGED_IN) is None
    assert access.reject_reason(request | LOGGED_IN | {"HTTP_ORIGIN": f"https://{host}"}) is None
    assert access.reject_reason(request | LOGGED_IN | {"HTTP_ORIGIN": "https://evil.example"})
    assert "localhost only" in str(ACCESS.reject_reason(request | LOGGED_IN)), "it was not allowed there"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"])
def test_only_its_own_pages_are_answered(method: str) -> None:
    request = ENVIRON | {"REQUEST_METHOD": method}
    assert ACCESS.reject_reason(request) is None, "a program on this machine sends no origin"
    assert ACCESS.reject_reason(request | {"HTTP_ORIGIN": "http://localhost:8080"}) is None
    for origin in ("http://evil.example", "http://localhost:9000", "https://localhost:8080", "null"):
        assert ACCESS.reject_reason(request | {"HTTP_ORIGIN": origin})


@pytest.mark.parametrize(
    "text", ["", "https://hub.example", "hub.example/x", "hub.example:8000", "me@hub.example", "a b", "*"]
)
def test_a_host_to_allow_is_a_bare_name(text: str) -> None:
    with pytest.raises(ValueError, match="pass one without scheme, port and path"):
        host_name(text)
    assert host_name("hub.example") == "hub.example"


# --- the token -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
@pytest.mark.parametrize(
    "request_part",
    [{}, {"QUERY_STRING": "token="}, {"QUERY_STRING": "token=the-toke"}, {"HTTP_COOKIE": f"{ACCESS.cookie}=another"},
     {"HTTP_COOKIE": "dashboard=the-token"}, {"HTTP_COOKIE": ";;=\x00"}, {"QUERY_STRING": "token=%FF%C3"}],
)  # fmt: skip
def test_nothing_is_served_without_the_token(method: str, request_part: dict[str, str]) -> None:
    status, _, body = ask(REQUEST_METHOD=method, HTTP_HOST="127.0.0.1:8080", PATH_INFO="/api/studies/1", **request_part)
    assert status == "403 Forbidden" and b"needs its token" in body


def test_the_address_becomes_a_cookie() -> None:
    """The token leaves the address at the first request, and the cookie is all that later ones need."""
    url = ACCESS.address("http://127.0.0.1:8080/dashboard/studies/1")
    path, _, query = url.removeprefix("http://127.0.0.1:8080").partition("?")
    status, headers, body = ask(HTTP_HOST="127.0.0.1:8080", PATH_INFO=path, QUERY_STRING=f"{query}&numbers=3")
    assert (status, headers["Location"], body) == ("303 See Other", "/dashboard/studies/1?numbers=3", b"")
    cookie, *rules = headers["Set-Cookie"].split("; ")
    assert set(rules) == {"Path=/", "HttpOnly", "SameSite=Lax"}
    status, _, body = ask(HTTP_HOST="127.0.0.1:8080", PATH_INFO=path, HTTP_COOKIE=cookie)
    assert (status, body) == ("200 OK", b"inside")


def test_a_login_redirects_to_this_server_only() -> None:
    _, headers, _ = ask(HTTP_HOST="localhost", PATH_INFO="//evil.example/\r\nx", QUERY_STRING="token=the-token")
    assert headers["Location"] == "/evil.example/%0D%0Ax"


def test_each_server_has_its_own_token_and_cookie() -> None:
    accesses = [Access() for _ in range(100)]
    assert len({access.token for access in accesses}) == len({access.cookie for access in accesses}) == 100
    assert all(len(access.token) >= 32 and access.token not in repr(access) for access in accesses)


# --- stored files ----------------------------------------------------------------------------------------------------


def test_stored_files_are_sandboxed() -> None:
    """HTML among them gets an origin of its own, so that it can neither read the API nor change a study."""
    _, headers, body = ask(HTTP_HOST="localhost", PATH_INFO=f"{FILES}1/abc", **LOGGED_IN)
    assert body == b"inside" and headers.items() >= dict(SANDBOX).items()
    assert "allow-same-origin" not in headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in headers
    assert ACCESS.reject_reason(ENVIRON | {"HTTP_ORIGIN": "null"}), "the origin of a sandboxed page"
    assert "Content-Security-Policy" not in ask(HTTP_HOST="localhost", PATH_INFO="/dashboard", **LOGGED_IN)[1]
