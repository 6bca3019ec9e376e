"""Databases: real servers of PostgreSQL and MariaDB on the loopback interface, for as long as a test runs.

They come from the distribution's packages (``postgresql``, ``mariadb-server``); :func:`missing` says what is
not there.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dataflow.testing.ports import free_port

USER, PASSWORD, DATABASE = "flow", "a password: with %, @ and /", "personnel"


def missing(kind: str) -> str:
    """What keeps a server from being started here; empty if nothing does."""
    program = "initdb" if kind == "postgresql" else "mariadbd"
    if _program(program) is None:
        package = "postgresql" if kind == "postgresql" else "mariadb-server"
        return f"there is no {program}: the Debian package {package} is not installed"
    return ""


class Server:
    """One server with an empty database, and an account that may do everything in it.

    Attributes
    ----------
    url
        ``postgresql://127.0.0.1:port/personnel``, or ``mysql://…``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._folder = Path(tempfile.mkdtemp(prefix="flow-db-"))
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"{kind}://127.0.0.1:{self._port}/{DATABASE}"

    @property
    def credentials(self) -> dict[str, str]:
        return {"username": USER, "password": PASSWORD}

    def run(self, *statements: str) -> None:
        """Run statements as that account."""
        with self._engine(USER, PASSWORD, DATABASE).begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement.replace("%", "%%"))

    def fill(self, table: str, columns: list[str], rows: list[tuple[Any, ...]]) -> None:
        """Insert rows; names are taken as they are."""
        marks = ", ".join(["%s"] * len(columns))
        with self._engine(USER, PASSWORD, DATABASE).begin() as connection:
            for row in rows:
                connection.exec_driver_sql(
                    f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", row
                )

    def __enter__(self) -> Self:
        try:
            if self.kind == "postgresql":
                self._begin_postgresql()
            else:
                self._begin_mariadb()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _begin_postgresql(self) -> None:
        account = _account("postgres", self._folder)
        data = self._folder / "data"
        secret = self._folder / "secret"
        secret.write_text(PASSWORD)
        _give(account, secret)
        _checked(
            account, _program("initdb"), "-D", data, "-U", USER, "-A", "scram-sha-256",
            f"--pwfile={secret}", "-E", "UTF8", "--locale=C", "--no-sync",
        )  # fmt: skip
        self._start(
            account, _program("postgres"), "-D", data, "-p", str(self._port), "-c", "fsync=off",
            "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self._folder}",
        )  # fmt: skip
        engine = self._ready(USER, PASSWORD, "postgres")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {DATABASE}")

    def _begin_mariadb(self) -> None:
        account = _account("mysql", self._folder)
        data = self._folder / "data"
        _checked(
            account, _program("mariadb-install-db"), "--no-defaults", f"--datadir={data}",
            "--auth-root-authentication-method=normal", "--skip-test-db",
        )  # fmt: skip
        self._start(
            account, _program("mariadbd"), "--no-defaults", f"--datadir={data}",
            f"--port={self._port}", "--bind-address=127.0.0.1", f"--socket={self._folder}/s",
            f"--pid-file={self._folder}/pid", "--character-set-server=utf8mb4",
            "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0",
        )  # fmt: skip
        with self._ready("root", "", None).begin() as connection:
            for statement in (
                f"CREATE DATABASE {DATABASE}",
                f"CREATE USER {USER}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'".replace("%", "%%"),
                f"CREATE USER {USER}@'localhost' IDENTIFIED BY '{PASSWORD}'".replace("%", "%%"),
                f"GRANT ALL ON {DATABASE}.* TO {USER}@'127.0.0.1'",
                f"GRANT ALL ON {DATABASE}.* TO {USER}@'localhost'",
            ):
                connection.exec_driver_sql(statement)

    def _start(self, account: pwd.struct_passwd | None, *command: Any) -> None:
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
                cwd=self._folder,
                start_new_session=True,
            )

    def _engine(self, user: str, password: str, database: str | None) -> Any:
        import sqlalchemy
        from sqlalchemy.pool import NullPool

        driver = "postgresql+psycopg" if self.kind == "postgresql" else "mysql+pymysql"
        address = sqlalchemy.URL.create(
            driver, user, password or None, "127.0.0.1", self._port, database
        )
        return sqlalchemy.create_engine(address, poolclass=NullPool)

    def _ready(self, user: str, password: str, database: str | None) -> Any:
        import sqlalchemy

        engine = self._engine(user, password, database)
        limit = time.monotonic() + 60
        while True:
            try:
                engine.connect().close()
            except sqlalchemy.exc.OperationalError:
                ended = self._process is None or self._process.poll() is not None
                if ended or time.monotonic() > limit:
                    log = (self._folder / "log").read_text(errors="replace")[-3000:]
                    raise RuntimeError(f"the server does not start:\n{log}") from None
                time.sleep(0.1)
            else:
                return engine

    def _end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _program(name: str) -> str | None:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
        found = str(versions[-1]) if versions else None
    return found


def _account(name: str, folder: Path) -> pwd.struct_passwd | None:
    """Whose a server's files are: databases refuse to run as root."""
    if os.getuid() != 0:
        return None
    account = pwd.getpwnam(name)
    _give(account, folder)
    return account


def _give(account: pwd.struct_passwd | None, path: Path) -> None:
    if account is not None:
        os.chown(path, account.pw_uid, account.pw_gid)


def _checked(account: pwd.struct_passwd | None, *command: Any) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=[] if account else None,
        cwd="/",
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.decode(errors='replace')[-2000:]}")
