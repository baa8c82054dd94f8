"""optuna-dashboard on a run, on this machine's loopback only, behind a guard, beside a study at work.

The dashboard has no login and deletes a study for whoever asks. A web page elsewhere can ask too, through a name that it
lets point to 127.0.0.1 (DNS rebinding) or by posting across sites: the guard answers only to the names of loopback, and
to no page of another origin. While it reads, it holds no lock on the database, so that no training waits for it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna

from report.dashboard import patches as dashboard_patches
from report.dashboard.publish import ARTIFACTS, publish_files
from search.errors import UserError
from search.storage.database import open_storage
from search.study.run import Run, load

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

HOST = "127.0.0.1"
OURS = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)  # any port: a tunnel may begin at another
READING = ("GET", "HEAD")

_request = threading.local()  # of each thread, which answers one request at a time: whether it only reads


def serve(run: Run, port: int, on_ready: Callable[[str], object]) -> None:
    """Serve the dashboard until Ctrl-C; a study at work is not disturbed by it.

    Args:
        port: 0 takes a free one.
        on_ready: called with what to tell people, the address first, once requests are answered.

    Raises:
        UserError: nothing has run yet, or the port is in use.
    """
    study = load(run).candidates
    with _bound(guarded(_application(run)), port) as server:
        publish_files(study, run.folder)  # what was exported or written since the study ended
        on_ready(_directions(server.server_port, study._study_id))
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def guarded(application: WSGIApplication) -> WSGIApplication:
    """The application for requests that name loopback as their host and, if they come from a page, as its origin."""

    def guard(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if reason := refusal(environ):
            start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
            return [f"{reason}\n".encode()]
        _request.only_reads = environ["REQUEST_METHOD"] in READING
        return application(environ, start_response)

    return guard


def refusal(environ: WSGIEnvironment) -> str | None:
    """Why a request is not answered, or None where it is."""
    host, origin = environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN")
    if not OURS.fullmatch(host):
        return "this dashboard answers to localhost only"
    if origin is not None and origin != f"http://{host}":  # the dashboard lets pages of any origin read its files
        return "this dashboard answers to its own pages only"
    return None


def _application(run: Run) -> WSGIApplication:
    import optuna_dashboard

    logging.getLogger("optuna_dashboard").setLevel(logging.ERROR)  # it warns where too few trials tell an importance
    dashboard_patches.apply()
    storage = open_storage(run.storage_url, create=False, only_reads=lambda: getattr(_request, "only_reads", False))
    artifacts = run.folder / ARTIFACTS
    artifacts.mkdir(parents=True, exist_ok=True)
    application: WSGIApplication = optuna_dashboard.wsgi(
        optuna.storages.get_storage(storage),  # with Optuna's cache: finished trials are read once
        artifact_store=optuna.artifacts.FileSystemArtifactStore(artifacts),
    )
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
