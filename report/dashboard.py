"""optuna-dashboard on a run, on this machine's loopback only, behind a guard.

The dashboard has no login and deletes a study for whoever asks. A web page elsewhere can ask too, through a name that it
lets point to 127.0.0.1 (DNS rebinding) or by posting across sites: the guard answers only to the names of loopback, and
changes nothing for a page of another origin.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from search.errors import UserError
from search.study import Run, load

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

HOST = "127.0.0.1"
OURS = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)  # any port: a tunnel may begin at another


def serve(run: Run, port: int, on_ready: Callable[[str], object]) -> None:
    """Serve the dashboard until Ctrl-C; a study at work is not disturbed by it.

    Args:
        port: 0 takes a free one.
        on_ready: called with what to tell people, the address first, once requests are answered.

    Raises:
        UserError: nothing has run yet, or the port is in use.
    """
    study = load(run).candidates
    with _bound(guarded(_application(study._storage, run.folder / "artifacts")), port) as server:
        on_ready(_directions(server.server_port, study._study_id))
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def guarded(application: WSGIApplication) -> WSGIApplication:
    """The application for requests that name loopback as their host, and, where they change something, as their origin."""

    def guard(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if reason := refusal(environ):
            start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
            return [f"{reason}\n".encode()]
        return application(environ, start_response)

    return guard


def refusal(environ: WSGIEnvironment) -> str | None:
    """Why a request is not answered, or None where it is."""
    host, origin = environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN")
    if not OURS.fullmatch(host):
        return "this dashboard answers to localhost only"
    if origin is not None and environ["REQUEST_METHOD"] not in ("GET", "HEAD") and origin != f"http://{host}":
        return "this dashboard is changed from its own pages only"
    return None


def _application(storage: Any, artifacts: Path) -> WSGIApplication:
    import optuna_dashboard
    from optuna.artifacts import FileSystemArtifactStore

    logging.getLogger("optuna_dashboard").setLevel(logging.ERROR)  # it warns where too few trials tell an importance
    artifacts.mkdir(parents=True, exist_ok=True)
    application: WSGIApplication = optuna_dashboard.wsgi(storage, artifact_store=FileSystemArtifactStore(artifacts))
    return application


def _directions(port: int, study_id: int) -> str:
    return (
        f"http://{HOST}:{port}/dashboard/studies/{study_id}   (Ctrl-C ends it)\n"
        f"From another computer: ssh -L {port}:{HOST}:{port} THIS_MACHINE, then the same address there."
    )


# --- the server ------------------------------------------------------------------------------------------------------


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # Ctrl-C does not wait for a browser

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that has gone is no news."""


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""


def _bound(application: WSGIApplication, port: int) -> _Server:
    try:
        return make_server(HOST, port, application, server_class=_Server, handler_class=_Handler)
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise UserError(f"port {port} {reason}; pass --port, 0 takes a free one") from None
