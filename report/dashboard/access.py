"""Access control of the served dashboard: a token as Jupyter has it, known hosts, one origin.

optuna-dashboard has no login and deletes a study on request. Loopback alone does not protect it: every user of the
machine can connect, and a web page elsewhere can reach it through a name that resolves to 127.0.0.1 (DNS rebinding) or
by a cross-site request. Every request therefore names a known host, comes from the dashboard's own pages, and carries
the token of this server in a cookie. Stored files are sandboxed: a page among them runs in an origin of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)  # any port: a tunnel may begin at another
TOKEN = "token"  # the parameter of the address
FILES = "/artifacts/"  # where optuna-dashboard serves stored files, some of them uploaded by users
SANDBOX = (
    ("Content-Security-Policy", "sandbox allow-scripts allow-downloads allow-popups"),
    ("X-Content-Type-Options", "nosniff"),
)


def make_token() -> str:
    """Return an unguessable token (192 bits) for one server."""
    return secrets.token_urlsafe(24)


@dataclass(frozen=True)
class Access:
    """Rules for the requests of one server.

    Args:
        hosts: names besides loopback under which a proxy reaches the server, without port.
        token: carried by every request, in the address once and in a cookie from then on.
    """

    hosts: tuple[str, ...] = ()
    token: str = field(default_factory=make_token, repr=False)

    @property
    def cookie(self) -> str:
        """Name of the cookie; servers on other ports of the same host have other names."""
        return f"dashboard-{hashlib.sha256(self.token.encode()).hexdigest()[:12]}"

    def address(self, url: str) -> str:
        """Return the address with its token."""
        return f"{url}?{urlencode({TOKEN: self.token})}"

    def is_known_host(self, host: str) -> bool:
        """True if the Host header names loopback or an allowed host, with any port."""
        if LOOPBACK.fullmatch(host):
            return True
        name = host.rsplit(":", 1)[0] if re.fullmatch(r"[^:]+:\d+", host) else host
        return name.lower() in {allowed.lower() for allowed in self.hosts}

    def reject_reason(self, environ: WSGIEnvironment) -> str | None:
        """Return the rule that a request breaks, None if it breaks none."""
        host, origin = environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN")
        if not self.is_known_host(host):
            return "this dashboard answers to localhost only; start it with --allow-host to serve another name"
        if origin is not None and not self._is_own_origin(origin, host):
            return "this dashboard answers to its own pages only"
        if not (self._is_token(self._in_address(environ)) or self._is_token(self._in_cookie(environ))):
            return "this dashboard needs its token; open the whole address that it printed when it was started"
        return None

    def _is_own_origin(self, origin: str, host: str) -> bool:
        schemes = ("http",) if LOOPBACK.fullmatch(host) else ("http", "https")
        return origin in {f"{scheme}://{host}" for scheme in schemes}

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self.token.encode())

    def _in_address(self, environ: WSGIEnvironment) -> str:
        query: str = environ.get("QUERY_STRING", "")
        return dict(parse_qsl(query)).get(TOKEN, "")

    def _in_cookie(self, environ: WSGIEnvironment) -> str:
        try:
            cookies = SimpleCookie(environ.get("HTTP_COOKIE", ""))
        except CookieError:
            return ""
        return str(cookies[self.cookie].value) if self.cookie in cookies else ""

    def login(self, environ: WSGIEnvironment) -> list[tuple[str, str]] | None:
        """Headers that move the token from the address of a page to a cookie; None if the address has none.

        The redirect leaves the token out of the address bar, the history and the Referer header. `SameSite=Lax` lets a
        link from another page in, but no request that such a page makes by itself.
        """
        if environ["REQUEST_METHOD"] != "GET" or not self._in_address(environ):
            return None
        rest = [(name, value) for name, value in parse_qsl(environ.get("QUERY_STRING", "")) if name != TOKEN]
        path = "/" + quote(environ.get("PATH_INFO", "/").lstrip("/"))  # one slash: two would name another host
        return [
            ("Location", f"{path}?{urlencode(rest)}" if rest else path),
            ("Set-Cookie", f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Lax"),
            ("Referrer-Policy", "no-referrer"),
        ]


def guarded(application: WSGIApplication, access: Access) -> WSGIApplication:
    """Wrap an application so that it receives only the requests that `access` admits."""

    def guard(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if reason := access.reject_reason(environ):
            start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
            return [f"{reason}\n".encode()]
        if (headers := access.login(environ)) is not None:
            start_response("303 See Other", headers)
            return []
        if environ.get("PATH_INFO", "").startswith(FILES):
            return application(environ, _sandboxing(start_response))
        return application(environ, start_response)

    return guard


def _sandboxing(start_response: StartResponse) -> StartResponse:
    """Add the sandbox to a response and remove its permission to be read by pages of any origin."""

    def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Callable[[bytes], object]:
        kept = [(name, value) for name, value in headers if name.lower() != "access-control-allow-origin"]
        return start_response(status, [*kept, *SANDBOX], *more)

    return start


def host_name(text: str) -> str:
    """Return the bare host name, as `--allow-host` expects it.

    Raises:
        ValueError: it has a scheme, a path, a user or a port, or is empty.
    """
    parts = urlsplit(f"//{text}")
    if not text or parts.netloc != text or not re.fullmatch(r"[A-Za-z0-9.-]+", text):
        raise ValueError(f"{text!r} is no host name; pass one without scheme, port and path, such as notebook.example.org")
    return text
