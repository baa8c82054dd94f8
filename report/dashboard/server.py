"""optuna-dashboard for one study, on loopback, behind `report.dashboard.access`.

It may be served while a study runs: it holds no lock on the database while it reads, so that no training waits for it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna

from report.dashboard import patches as dashboard_patches
from report.dashboard.access import Access, guarded, host_name
from report.dashboard.publish import ARTIFACTS, publish_files
from search.errors import UserError
from search.storage.database import open_storage
from search.storage.optuna_internals import study_id_of
from search.study.run import Run, load

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

HOST = "127.0.0.1"
READING = ("GET", "HEAD")

_request = threading.local()  # per thread: True while it answers a request that only reads


def serve(run: Run, port: int, on_ready: Callable[[str], object], allow_hosts: Sequence[str] = ()) -> None:
    """Serve the dashboard until Ctrl-C.

    Args:
        port: 0 takes a free one.
        on_ready: called with the text for the terminal, the address first, once requests are answered.
        allow_hosts: names besides loopback under which a proxy reaches the server.

    Raises:
        UserError: the study does not exist yet, the port is in use, or a host name is none.
    """
    try:
        access = Access(tuple(host_name(name) for name in allow_hosts))
    except ValueError as error:
        raise UserError(f"--allow-host: {error}") from None
    study = load(run).candidates
    with _bound(guarded(_marking_reads(_application(run)), access), port) as server:
        publish_files(study, run.folder)  # files exported or written since the study ended
        on_ready(_directions(access, server.server_port, study_id_of(study)))
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def _marking_reads(application: WSGIApplication) -> WSGIApplication:
    """Note for the storage, by thread, whether the present request only reads."""

    def mark(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        _request.only_reads = environ["REQUEST_METHOD"] in READING
        return application(environ, start_response)

    return mark


def _application(run: Run) -> WSGIApplication:
    import optuna_dashboard

    logging.getLogger("optuna_dashboard").setLevel(
        logging.ERROR
    )  # it warns if importance cannot be computed from few trials
    dashboard_patches.apply()
    storage = open_storage(run.storage_url, create=False, only_reads=lambda: getattr(_request, "only_reads", False))
    artifacts = run.folder / ARTIFACTS
    if storage.is_writable:
        artifacts.mkdir(parents=True, exist_ok=True)
    application: WSGIApplication = optuna_dashboard.wsgi(
        storage,
        artifact_store=optuna.artifacts.FileSystemArtifactStore(artifacts),
    )
    return application


def _directions(access: Access, port: int, study_id: int) -> str:
    return (
        f"{access.address(f'http://{HOST}:{port}/dashboard/studies/{study_id}')}   (Ctrl-C ends it)\n"
        f"From another computer: ssh -L {port}:{HOST}:{port} THIS_MACHINE, then the same address there."
    )


# --- the server ------------------------------------------------------------------------------------------------------


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # Ctrl-C does not wait for a browser

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a browser that disconnected."""


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""


def _bound(application: WSGIApplication, port: int) -> _Server:
    try:
        return make_server(HOST, port, application, server_class=_Server, handler_class=_Handler)
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise UserError(f"port {port} {reason}; pass --port, 0 takes a free one") from None
