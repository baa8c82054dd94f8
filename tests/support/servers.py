"""A real PostgreSQL server for tests: Debian's, of an empty cluster in a folder of its own, on loopback."""

from __future__ import annotations

import gc
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

SECONDS = 60
PASSWORD = "p@ss{w}/:%ord"  # all that a URL, Optuna's template of it or a regular expression may trip over


class Server:
    """A server that can be stopped and started again; every study gets a schema of its own."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.binaries, self.folder, self.data = binaries, folder, folder / "data"
        self.port, self.log = free_port(), folder.with_name(f"{folder.name}.log")
        (folder / "password").write_text(PASSWORD)
        if os.getuid() == 0:  # initdb and postgres refuse root
            shutil.chown(folder, "postgres", "postgres")
            shutil.chown(folder / "password", "postgres", "postgres")
        words = ["--username=anna", f"--pwfile={folder}/password", "--auth=scram-sha-256", "--no-sync"]
        with self.log.open("ab") as log:
            made = [*_as_other(), str(binaries / "initdb"), "--pgdata", str(self.data), *words]
            assert not subprocess.run(made, stdout=log, stderr=log, cwd="/", check=False).returncode, self.log.read_text()
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers; it ends with the process that runs the tests, whatever ends that."""
        options = ["-p", f"{self.port}", "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.folder}"]
        words = [*_as_other("--pdeathsig=QUIT"), str(self.binaries / "postgres"), "-D", str(self.data), "-c", "fsync=off"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*words, *options], stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/")
        deadline = time.monotonic() + SECONDS
        answers = [str(self.binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", f"{self.port}"]
        while subprocess.run(answers, check=False).returncode:
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it as in a crash, without a word to anyone connected."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(SECONDS)

    def url(self, user: str = "anna") -> str:
        """The URL for a user, with the password."""
        return f"postgresql://{user}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/postgres"

    def execute(self, statement: str) -> Any:
        """The first column of the first row of a statement's answer; None without one."""
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    def new_storage(self) -> str:
        """The URL of an empty storage: of a user with a schema of its own, which is far quicker made than a database."""
        import psycopg
        from psycopg import sql

        name = sql.Identifier(user := f"user_{secrets.token_hex(4)}")
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, sql.Literal(PASSWORD)))
            connection.execute(sql.SQL("CREATE SCHEMA AUTHORIZATION {}").format(name))
        return self.url(user)


def _as_other(*options: str) -> list[str]:
    """The words before a program to run it as somebody else than root, whom PostgreSQL refuses."""
    other = ["--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
    return ["setpriv", *other, *options] if shutil.which("setpriv") else []


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def missing() -> str | None:
    """Why there can be no server here, None where there can."""
    if not _binaries():
        return "PostgreSQL's server is not installed (Debian: apt install postgresql)"
    if os.getuid() == 0:
        if not shutil.which("setpriv"):
            return "PostgreSQL refuses to run as root, and there is no setpriv to become another"
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return "PostgreSQL refuses to run as root, and there is no user postgres"
    return None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server that runs; skipped where there can be none, which fails under CI_REQUIRE_SERVERS."""
    if reason := missing():
        (pytest.fail if "CI_REQUIRE_SERVERS" in os.environ else pytest.skip)(reason)
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    server = Server(_binaries()[-1], folder)
    yield server
    gc.collect()  # connections that were only forgotten, while their warnings are passed over
    server.stop()
    shutil.rmtree(folder)
    server.log.unlink()


def _binaries() -> list[Path]:
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
