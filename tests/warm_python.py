"""A Python that has imported torch and transformers already: a test's process starts in a tenth of a second, not ten.

    test --sys.executable--> client (this file, run as a script) --socket--> server --fork--> the process

`executable()` is the client's path; it takes `-c`, `-m`, a file and `-W` as Python does, passes its own environment,
folder, streams and signals on, and ends as the process ends. The process ends when its client is killed. What a
process that starts cold does is held by tests that leave `sys.executable` alone (tests/latency/test_fresh.py).
"""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys

PRELOADED = (
    "multiprocessing.spawn", "optuna", "torch", "torch._dynamo", "transformers", "nash_search.cli",
    "nash_search.latency.alone", "nash_search.latency.timing", "nash_search.modeling_nash", "nash_search.search.run",
    "nash_search.storage.study", "nash_search.trial.nash_evaluator",
)  # fmt: skip
CLASSES = "AutoModelForSeq2SeqLM AutoTokenizer BartForConditionalGeneration MarianMTModel T5ForConditionalGeneration"
_server: list[tuple[subprocess.Popen, str]] = []


def executable() -> str:
    """The client's path, a stand-in for `sys.executable`; its server starts once per test process and ends with it."""
    if not _server:
        import tempfile

        folder = tempfile.mkdtemp(prefix="nash-search-warm-")
        client = os.path.join(folder, "python")
        with open(client, "w") as script:  # isolated and without site-packages: it starts in 20 ms
            script.write(f"#!{sys.executable} -SI\nimport sys\nsys.path.insert(0, {os.path.dirname(__file__)!r})\n")
            script.write(f"import warm_python\nsys.exit(warm_python.ask({folder!r}))\n")
        os.chmod(client, 0o700)
        roots = os.pathsep.join([os.path.dirname(os.path.dirname(os.path.abspath(__file__))), *sys.path])
        server = subprocess.Popen(
            [sys.executable, __file__, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": roots},
        )  # fmt: skip
        assert server.stdout is not None and server.stdout.readline(), "the warm Python did not start"
        _server.append((server, client))
    return _server[0][1]


def ask(folder: str) -> int:
    """The client: hand everything over, pass signals on, end as the process ended."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(os.path.join(folder, "socket"))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda n, _: line.send(bytes([n])))
        asked = json.dumps({"argv": sys.argv, "environment": dict(os.environ), "folder": os.getcwd()}).encode()
        socket.send_fds(line, [len(asked).to_bytes(4, "big")], [0, 1, 2])
        line.sendall(asked)
        status = int(line.recv(16) or b"70")
    if status < 0:  # by a signal: so does the client
        signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
        os.kill(os.getpid(), -status)
    return status


def serve(folder: str) -> dict:
    """The server: fork for every client; returns in the forked process alone, with what that was asked."""
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(os.path.join(folder, "socket"))
        door.listen(64)
        print("ready", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the guards
        while True:
            ready, _, _ = select.select([door, 0], [], [])
            if 0 in ready:  # the test process has ended
                shutil.rmtree(folder, ignore_errors=True)
                os._exit(0)
            line, _ = door.accept()
            if os.fork() == 0:
                door.close()
                return _guarded(line)
            line.close()


def _guarded(line: socket.socket) -> dict:
    """Between client and process: signals one way, the exit status the other; returns in the process alone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, streams, _, _ = socket.recv_fds(line, 4, 3)
    left, said = int.from_bytes(length, "big"), b""
    while len(said) < left:
        said += line.recv(left - len(said))
    process = os.fork()
    if process == 0:
        line.close()
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        return json.loads(said)
    for stream in (0, 1, 2, *streams):
        os.close(stream)
    ended = os.pidfd_open(process)
    while ended not in (ready := select.select([line, ended], [], [])[0]):
        number = (line.recv(1) if ready else b"")[:1]
        os.kill(process, number[0]) if number else os.killpg(process, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    try:
        line.sendall(str(status).encode())
    except OSError:
        pass  # its client was killed
    os._exit(0)


def run(asked: dict) -> None:
    """In the process: what Python itself would do with these arguments."""
    import random
    import runpy
    import types
    import warnings

    client, *words = asked["argv"]
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    sys.executable = client
    random.seed()
    while words[0] == "-W":
        warnings.simplefilter(words[1])
        words = words[2:]
    kind, what, *rest = words if words[0] in ("-c", "-m") else ["file", *words]
    path = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    first = os.path.dirname(os.path.abspath(what)) if kind == "file" else asked["folder"]
    sys.path[:0] = [*([] if os.environ.get("PYTHONSAFEPATH") else [first]), *path]
    sys.argv = [kind if kind == "-c" else what, *rest]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    elif kind == "file":
        runpy.run_path(what, run_name="__main__")
    else:
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), main.__dict__)


if __name__ == "__main__":
    import atexit
    import gc
    import importlib
    import threading
    import traceback

    for name in PRELOADED:
        importlib.import_module(name)
    for name in CLASSES.split():
        getattr(sys.modules["transformers"], name)
    gc.freeze()
    asked = serve(sys.argv[1])
    try:
        run(asked)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        print(end.code, file=sys.stderr) if isinstance(end.code, str) else None
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking torch down, module by module, takes a second
