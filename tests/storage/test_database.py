"""PostgreSQL as the storage: a private cluster of Debian's server, or a skip that says why."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import optuna
import pytest

from nash_search.errors import Locked
from nash_search.storage import locks
from tests.patience import NEVER_S
from tests.search.test_crash import start

pytestmark = pytest.mark.slow


def binary(name):
    found = shutil.which(name)
    if found:
        return found
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / name).exists():
            return str(folder / name)
    return None


def user():
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


@pytest.fixture(scope="module")
def postgres():
    """URL of an empty database; the server refuses to run as root, so it runs as another user."""
    initdb, server = binary("initdb"), binary("postgres")
    if initdb is None or server is None:
        pytest.skip("PostgreSQL's initdb and postgres are not installed")
    pytest.importorskip("psycopg", reason="the scheduler psycopg is not installed")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    as_user = {}
    if os.getuid() == 0:
        found = user()
        if found is None:
            pytest.skip("no user but root to run PostgreSQL as")
        os.chown(folder, found.pw_uid, found.pw_gid)
        as_user = {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(folder)}
    options = {**as_user, "env": environment, "cwd": str(folder)}
    data = folder / "data"
    subprocess.run(
        [initdb, "-D", str(data), "-U", "search", "--auth=trust", "--no-sync", "-E", "UTF8"],
        check=True, capture_output=True, **options,
    )  # fmt: skip
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [server, "-D", str(data), "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-k", str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, **options)
    url = f"postgresql+psycopg://search:secret-word@127.0.0.1:{port}/postgres"
    try:
        import psycopg

        for _ in range(1000):
            try:
                psycopg.connect(url.replace("+psycopg", ""), connect_timeout=1).close()
                break
            except psycopg.OperationalError:
                assert process.poll() is None, (folder / "log").read_text()
                subprocess.run(["sleep", "0.2"], check=True)
        yield url
    finally:
        process.send_signal(signal.SIGINT)  # fast: open connections are cut
        process.wait(NEVER_S)
        shutil.rmtree(folder, ignore_errors=True)


def trials(name, url):
    storage = optuna.storages.RDBStorage(url)
    found = optuna.load_study(study_name=name, storage=storage).trials
    storage.engine.dispose()
    return found


def test_a_study_lives_in_postgresql_and_its_password_nowhere_else(rehearse, postgres, capfd):
    first = rehearse(trials=5, storage=postgres)
    assert first.exit_code == 0 and not (first.folder / "study.db").exists()
    again = rehearse(trials=8, storage=postgres)
    assert again.document["trials"]["complete"] + again.document["trials"]["stopped"] == 8
    assert all(t.state.is_finished() for t in trials("s", postgres))
    for path in first.folder.rglob("*"):
        if path.is_file():
            assert b"secret-word" not in path.read_bytes(), path
    out, err = capfd.readouterr()
    assert "secret-word" not in out + err


def test_sqlite_and_postgresql_propose_the_same(rehearse, postgres, tmp_path):
    def decided(url):
        return [(t.params, t.values) for t in trials("t", url)]

    one = rehearse(trials=10, study="t", results=tmp_path / "a")
    rehearse(trials=10, study="t", results=tmp_path / "b", storage=postgres)
    assert decided(f"sqlite:///{one.folder}/study.db") == decided(postgres)


def test_two_machines_with_one_storage_run_one_driver_until_it_is_killed(postgres, tmp_path):
    mine, theirs = tmp_path / "a", tmp_path / "b"  # no folder is shared, only the storage
    first = start(mine, seconds=30, changes={"storage": postgres, "study": "one"})
    while not list(mine.glob("one/trials/*")):
        time.sleep(0.1)
        assert first.poll() is None
    second = start(theirs, changes={"storage": postgres, "study": "one"})
    out, err = second.communicate(timeout=NEVER_S)
    assert second.returncode == 4 and f"pid {first.pid} on {socket.gethostname()[:22]}" in err, err
    assert out == "" and "secret-word" not in err and len(err.strip().splitlines()) == 1
    another = start(theirs, trials=1, changes={"storage": postgres, "study": "two"})
    assert another.communicate(timeout=NEVER_S) and another.returncode == 0, "another study is free"
    first.kill()
    first.communicate()
    with locks.only_driver_in(postgres, "one"), pytest.raises(Locked, match=f"pid {os.getpid()} on"):
        with locks.only_driver_in(postgres, "one"):
            pass
