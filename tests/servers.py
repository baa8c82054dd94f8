"""A real PostgreSQL server for tests: Debian's, of an empty cluster in a folder of its own, on loopback."""

from __future__ import annotations

import gc
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

SECONDS = 60
PASSWORD = "p@ss{w}/:%ord"  # all that a URL, Optuna's template of it or a regular expression may trip over


class Server:
    """A server that can be stopped and started again; every study gets a schema of its own."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.binaries, self.folder, self.data = binaries, folder, folder / "data"
        self.port = free_port()
        (folder / "password").write_text(PASSWORD)
        if os.getuid() == 0:  # initdb and postgres refuse root
            shutil.chown(folder, "postgres", "postgres")
            shutil.chown(folder / "password", "postgres", "postgres")
        words = ["--username=anna", f"--pwfile={folder}/password", "--auth=scram-sha-256", "--no-sync"]
        self._call("initdb", "--pgdata", str(self.data), *words)
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        log = str(self.folder / "log")
        self._call("pg_ctl", "start", "--wait", "--silent", "-D", str(self.data), "-l", log, "-o", options)

    def stop(self, mode: str = "immediate") -> None:
        """Stop it: by default as in a crash, without a word to anyone connected."""
        self._call("pg_ctl", "stop", "--wait", "--silent", "-D", str(self.data), "-m", mode)

    def url(self, user: str = "anna") -> str:
        """The URL for a user, with the password."""
        return f"postgresql://{user}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/postgres"

    def new_storage(self) -> str:
        """The URL of an empty storage: of a user with a schema of its own, which is far quicker made than a database."""
        import psycopg
        from psycopg import sql

        name = sql.Identifier(user := f"user_{secrets.token_hex(4)}")
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, sql.Literal(PASSWORD)))
            connection.execute(sql.SQL("CREATE SCHEMA AUTHORIZATION {}").format(name))
        return self.url(user)

    def _call(self, program: str, *words: str) -> None:
        other = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
        with (self.folder.parent / f"{self.folder.name}.out").open("ab") as out:
            done = subprocess.run(
                [*other, str(self.binaries / program), *words], stdout=out, stderr=out, cwd="/", timeout=SECONDS, check=False
            )
        assert done.returncode == 0, Path(out.name).read_text()


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
    folder.with_name(f"{folder.name}.out").unlink()


def _binaries() -> list[Path]:
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
