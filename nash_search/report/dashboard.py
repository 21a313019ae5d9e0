"""The Optuna dashboard behind a small guard, on this machine only.

    request -> Host on the list?      no -> 421   (DNS rebinding)
            -> Origin ours, or none?  no -> 403   (another page in the same browser)
            -> token (link once, then a cookie)?  no -> 403   (another user of this machine)
            -> GET or HEAD?           no -> 405 unless writable, and then only with our Origin
            -> optuna-dashboard

The dashboard itself has no authentication, checks neither Host nor Origin, and deletes studies
for any page that asks. Its CSV is passed on with formulas neutralised, its artifacts without
permission to run scripts.
"""

from __future__ import annotations

import csv
import hmac
import io
import secrets
import threading
from collections.abc import Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from nash_search.errors import InvalidInput, StorageDamaged
from nash_search.files import csv_cell, sqlite_path, sqlite_url

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

LOOPBACK = "127.0.0.1"
ARTIFACTS = "artifacts"
"""Folder of a study where its trials' artifacts lie."""
READS = frozenset(("GET", "HEAD"))
HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)


class Guard:
    """WSGI middleware that lets only our own browser tab through."""

    def __init__(
        self, app: Application, *, port: int, token: str, start: str = "/dashboard", writable: bool = False
    ) -> None:
        self._app, self._token, self._start, self._writable = app, token, start, writable
        self._hosts = frozenset(f"{name}:{port}" for name in (LOOPBACK, "localhost"))
        self._cookie = f"nash-search-{port}"  # cookies are shared between ports of a host

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        origin = environ.get("HTTP_ORIGIN")
        ours = origin is not None and origin in {f"http://{host}" for host in self._hosts}
        if environ.get("HTTP_HOST", "").lower() not in self._hosts:
            return _refuse(start_response, "421 Misdirected Request", "this host name is not served here")
        if origin is not None and not ours:
            return _refuse(start_response, "403 Forbidden", "requests from other origins are refused")
        if method in READS and environ["PATH_INFO"] == "/" and "token=" in environ.get("QUERY_STRING", ""):
            return self._enter(environ, start_response)
        if not self._knows(environ):
            return _refuse(start_response, "403 Forbidden", "open the link with the token that nash-search printed")
        if method not in READS and not (self._writable and ours):
            rule = "needs this page's own Origin" if self._writable else "needs --writable"
            return _refuse(start_response, "405 Method Not Allowed", f"the dashboard is read-only: a write {rule}")
        if environ["PATH_INFO"].startswith("/csv/"):
            return self._csv(environ, start_response)
        return self._app(environ, _hardened(start_response, artifact=environ["PATH_INFO"].startswith("/artifacts/")))

    def _enter(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """The printed link: trade its token for a cookie, so that the token leaves the address bar."""
        given = parse_qs(environ["QUERY_STRING"]).get("token", [""])[0]
        if not self._matches(given):
            return _refuse(start_response, "403 Forbidden", "the token is wrong or of an earlier run")
        cookie = f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/"
        start_response("303 See Other", [("Location", self._start), ("Set-Cookie", cookie), *HEADERS])
        return [b""]

    def _knows(self, environ: Environ) -> bool:
        try:
            found = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(self._cookie)
        except CookieError:
            return False
        return found is not None and self._matches(found.value)

    def _matches(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())

    def _csv(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """The dashboard's CSV export, every cell neutralised."""
        status: list[str] = []

        def caught(line: str, headers: Any, exc_info: Any = None) -> None:
            status.append(line)

        body = b"".join(self._app(environ, caught)).decode("utf-8")
        if not status[0].startswith("200"):
            return _refuse(start_response, status[0], "there is no such study")
        out = io.StringIO()
        csv.writer(out).writerows([csv_cell(cell) for cell in row] for row in csv.reader(io.StringIO(body)))
        kind = ("Content-Type", "text/csv; charset=utf-8")
        start_response("200 OK", [kind, ("Content-Disposition", "attachment; filename=trials.csv"), *HEADERS])
        return [out.getvalue().encode("utf-8")]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """The terminal belongs to the search's table."""


class Dashboard:
    """A guarded loopback port; `url` carries the token. It says "not ready" until `show` gives it a study."""

    def __init__(self, *, port: int = 0, writable: bool = False) -> None:
        """`port` 0 takes any free one.

        Raises:
            InvalidInput: when the port is taken.
        """
        self._token, self._writable = secrets.token_urlsafe(16), writable
        try:
            self._server = make_server(LOOPBACK, port, _unserved, server_class=_Server, handler_class=_Silent)
        except OSError as error:
            raise InvalidInput(f"port must be free, but got {port} ({error.strerror})") from None
        self._thread: threading.Thread | None = None
        self.port = int(self._server.server_port)
        self.url = f"http://{LOOPBACK}:{self.port}/?token={self._token}"

    def show(self, storage: Any, study_name: str, artifacts: Path | None = None) -> None:
        """Serve a study.

        Args:
            storage: the Optuna storage that holds it.
            study_name: its name.
            artifacts: folder of its artifacts (None: they are not shown).

        Raises:
            InvalidInput: when there is no such study.
        """
        from optuna.artifacts import FileSystemArtifactStore
        from optuna_dashboard import wsgi

        try:
            study_id = storage.get_study_id_from_name(study_name)
        except KeyError:
            raise InvalidInput(f"study must be in the storage, but got {study_name!r}") from None
        store = FileSystemArtifactStore(str(artifacts)) if artifacts is not None else None
        start = f"/dashboard/studies/{study_id}"
        app = wsgi(storage, artifact_store=store)
        self._server.set_app(Guard(app, port=self.port, token=self._token, start=start, writable=self._writable))

    def start(self) -> None:
        """Serve in a background thread (during a search)."""
        self._thread = threading.Thread(target=self.serve, name="dashboard", daemon=True)
        self._thread.start()

    def serve(self) -> None:
        """Serve until interrupted (`nash-search dashboard`)."""
        self._server.serve_forever(poll_interval=0.5)  # it wakes beside timings: rarely

    def close(self) -> None:
        """Stop serving and free the port."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


def open_dashboard(
    storage_url: str, study_name: str, *, port: int = 8080, writable: bool = False, artifacts: Path | None = None
) -> Dashboard:
    """A dashboard of a study in a storage; call `serve` or `start` on it.

    Raises:
        InvalidInput: when there is no such database or study, or the port is taken.
        StorageDamaged: when the database cannot be read.
    """
    storage = open_storage(storage_url)
    dashboard = Dashboard(port=port, writable=writable)
    try:
        dashboard.show(storage, study_name, artifacts)
    except InvalidInput:
        dashboard.close()
        raise
    return dashboard


def database_url(asked: str | None, study: Path) -> str:
    """URL of the storage that holds a study: the one asked for, else the database in its folder."""
    return asked or sqlite_url((study / "study.db").resolve())


def open_storage(storage_url: str) -> Any:
    """The storage behind a URL.

    Raises:
        InvalidInput: when there is no such database.
        StorageDamaged: when it cannot be read.
    """
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import DatabaseError

    options: dict[str, Any] = {}
    path = sqlite_path(storage_url)
    if path is not None:
        # an empty or missing file would silently become a new database
        if not path.is_file() or path.stat().st_size == 0:
            raise InvalidInput(f"study must have a database, but got no file at {path}")
        options["connect_args"] = {"timeout": 60}
    try:
        return RDBStorage(storage_url, engine_kwargs=options)
    except DatabaseError:
        raise StorageDamaged("storage must hold an Optuna database, but it could not be read") from None


def serve(
    storage_url: str,
    study_name: str,
    port: int = 8080,
    writable: bool = False,
    *,
    artifacts: Path | None = None,
    on_ready: Callable[[str], None] = print,
) -> None:
    """Serve a study's dashboard until interrupted; `on_ready` is told the link with its token."""
    dashboard = open_dashboard(storage_url, study_name, port=port, writable=writable, artifacts=artifacts)
    on_ready(dashboard.url)
    try:
        dashboard.serve()
    except KeyboardInterrupt:
        pass
    finally:
        dashboard.close()


def _unserved(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    return _refuse(start_response, "503 Service Unavailable", "not ready")


def _refuse(start_response: StartResponse, status: str, why: str) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), *HEADERS])
    return [f"{why}\n".encode()]


def _hardened(start_response: StartResponse, *, artifact: bool) -> StartResponse:
    """Add our headers; an artifact may be looked at but runs nothing and is read by no other origin."""

    def started(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        names = {name.lower() for name, _ in HEADERS} | {"access-control-allow-origin"}
        kept = [(name, value) for name, value in headers if name.lower() not in names]
        if artifact:
            kept.append(
                ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox")
            )
        return start_response(status, [*kept, *HEADERS], exc_info)

    return started
