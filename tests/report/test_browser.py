"""The report in a real browser: headless Chromium, driven over its DevTools protocol.

Every request that leaves the page, every console error and every dialog counts. Screenshots are
kept in `tests/artifacts/` to be looked at.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import optuna_dashboard
import pytest

from nash_search.report import card, card_metadata, dashboard, markdown, optuna_artifacts, page, view
from tests.patience import NEVER_S

BINARY = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARTIFACTS = Path(__file__).parents[1] / "artifacts"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--remote-debugging-port=0",
        "--hide-scrollbars",
    ),
)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BINARY is None, reason="no Chromium on this machine")]


class Tab:
    """One page of a browser: commands out, events in."""

    def __init__(self, address: str) -> None:
        import websocket

        self._socket = websocket.create_connection(address, timeout=NEVER_S, suppress_origin=True)
        self._numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == number:
                assert "error" not in message, message
                found: dict[str, Any] = message["result"]
                return found
            self.events.append(message)
            if message.get("method") == "Page.javascriptDialogOpening":
                self._socket.send(
                    json.dumps(
                        {
                            "id": next(self._numbers),
                            "method": "Page.handleJavaScriptDialog",
                            "params": {"accept": False},
                        }
                    )
                )

    def size(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        self.send(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )

    def open(self, address: str, ready: str = "document.readyState === 'complete'") -> None:
        self.events.clear()
        self.send("Page.navigate", url=address)
        self.wait(f"location.href !== 'about:blank' && ({ready})")

    def wait(self, condition: str, seconds: float = NEVER_S) -> None:
        end = time.monotonic() + seconds
        while not self.value(f"Boolean({condition})"):
            assert time.monotonic() < end, f"never true: {condition}; {self.errors()}"
            time.sleep(0.05)

    def value(self, expression: str, **more: Any) -> Any:
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, **more)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def errors(self) -> list[str]:
        """Console errors and warnings of the page, uncaught exceptions, and dialogs."""
        said = []
        for event in self.events:
            name, detail = event.get("method"), event.get("params", {})
            if name == "Runtime.exceptionThrown":
                said.append(detail["exceptionDetails"]["text"])
            elif name == "Runtime.consoleAPICalled" and detail["type"] in ("error", "assert"):
                said.append(str([a.get("value", a.get("description")) for a in detail["args"]]))
            elif name == "Log.entryAdded" and detail["entry"]["level"] == "error":
                said.append(detail["entry"]["text"])
            elif name == "Page.javascriptDialogOpening":
                said.append(f"dialog: {detail['message']}")
        return said

    def requests(self) -> list[str]:
        """Addresses asked for; data: and blob: never leave the page, and what the policy blocked never left."""
        asked = {
            e["params"]["requestId"]: e["params"]["request"]["url"]
            for e in self.events
            if e.get("method") == "Network.requestWillBeSent"
        }
        for event in self.events:
            if event.get("method") == "Network.loadingFailed" and event["params"].get("blockedReason") == "csp":
                asked.pop(event["params"]["requestId"], None)
        return [url for url in asked.values() if not url.startswith(("data:", "blob:"))]

    def picture(self, name: str, *, whole: bool = True) -> Path:
        ARTIFACTS.mkdir(exist_ok=True)
        found = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path = ARTIFACTS / name
        path.write_bytes(base64.b64decode(found["data"]))
        return path

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Tab]:
    """A fresh browser with one tab; ended by its own process id."""
    process = subprocess.Popen(
        [str(BINARY), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        found = profile / "DevToolsActivePort"
        end = time.monotonic() + NEVER_S
        while not (found.exists() and found.read_text().count("\n")):
            assert process.poll() is None and time.monotonic() < end, "Chromium did not start"
            time.sleep(0.05)
        port = found.read_text().split("\n")[0]
        import urllib.request

        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=NEVER_S) as answer:
            [target] = [t for t in json.load(answer) if t["type"] == "page"]
        tab = Tab(target["webSocketDebuggerUrl"])
        yield tab
        tab.close()
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    with chromium(tmp_path / "profile") as found:
        yield found


OURS = "document.querySelectorAll('[id=\"user-defined-plot:front\"] .legendtext').length >= 5"
DRAWN = "document.querySelectorAll('.js-plotly-plot').length === 5"


def test_report_is_complete_silent_and_asks_nobody(study: Any, tmp_path: Path, tab: Tab) -> None:
    page.write(view.build(*study), tmp_path)
    address = (tmp_path / "report.html").as_uri()
    for name, width, dark, phone in (
        ("report-light", 1180, False, False),
        ("report-dark", 1180, True, False),
        ("report-phone", 320, False, True),
        ("report-phone-dark", 320, True, True),
    ):
        tab.size(width, 900, dark=dark, phone=phone)
        tab.open(address, DRAWN)
        time.sleep(0.3)  # Plotly fits its text once more after drawing
        tab.picture(f"{name}.png")
        assert tab.errors() == []
        assert tab.requests() == [address]
        assert tab.value(f"document.documentElement.scrollWidth <= {width}"), "nothing may stick out sideways"
        legend = tab.value("[...document.querySelectorAll('#plot-front .legendtext')].map(e => e.textContent)")
        assert {"on the front", "dominated", "a budget's pick", "dense"} <= set(legend)
        assert tab.value("document.querySelectorAll('#plot-front .point').length") >= 15
        paper = tab.value("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(17, 22, 28)" if dark else "rgb(255, 255, 255)")


def test_theme_button_and_sorting_work(study: Any, tmp_path: Path, tab: Tab) -> None:
    page.write(view.build(*study), tmp_path)
    tab.size(1180, 900)
    tab.open((tmp_path / "report.html").as_uri(), DRAWN)
    tab.value("document.getElementById('theme').click()")
    assert tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(17, 22, 28)"
    column = "[...document.querySelectorAll('#trials tbody tr')].map(r => r.cells[3].dataset.value)"
    for order in (1, -1):
        tab.value("document.querySelectorAll('#trials th')[3].firstElementChild.click()")
        values = tab.value(column)
        numbers = [float(v) for v in values if v]
        assert numbers == sorted(numbers, reverse=order < 0)
        assert values[-2:] == ["", ""], "trials without a latency stay last"
    assert tab.errors() == []


def test_policy_refuses_eval_inline_scripts_and_network(study: Any, tmp_path: Path, tab: Tab) -> None:
    page.write(view.build(*study), tmp_path)
    tab.open((tmp_path / "report.html").as_uri(), DRAWN)
    refused = """(async () => {
        const found = [];
        try { new Function("return 1")(); } catch (e) { found.push("eval"); }
        const script = document.createElement("script");
        script.textContent = "window.injected = true";
        document.body.append(script);
        if (!window.injected) found.push("inline");
        try { await fetch("https://example.invalid/"); } catch (e) { found.push("fetch"); }
        const image = new Image();
        image.src = "https://example.invalid/x.png";
        await new Promise(done => { image.onerror = image.onload = done; });
        return found;
    })()"""
    assert tab.value(refused, allowUnsafeEvalBlockedByCSP=False) == ["eval", "inline", "fetch"]
    blocked = [e for e in tab.events if e.get("method") == "Network.loadingFailed"]
    assert all(e["params"].get("blockedReason") == "csp" for e in blocked)


HARMLESS = "window.pwned === undefined && document.querySelector('main, table, h1') !== null"


def test_hostile_text_executes_nothing_in_the_report(hostile: Any, tmp_path: Path, tab: Tab) -> None:
    page.write(view.build(*hostile), tmp_path)
    address = (tmp_path / "report.html").as_uri()
    tab.size(1180, 900)
    tab.open(address, DRAWN)
    tab.value("document.querySelectorAll('button').forEach(b => b.click())")
    hover = "e.dispatchEvent(new MouseEvent('mouseover', {bubbles: true}))"
    tab.value(f"document.querySelectorAll('.point').forEach(e => {hover})")
    time.sleep(0.5)
    tab.picture("report-hostile.png")
    assert tab.value(HARMLESS)
    assert tab.errors() == []
    assert tab.requests() == [address]
    assert tab.value("document.querySelectorAll('a, iframe, form, object, base, img:not(noscript img)').length") == 0
    assert tab.value("document.body.textContent.includes('<script>window.pwned=1</script>')"), "it is shown as text"


def test_hostile_markdown_executes_nothing_without_any_policy(
    hostile: Any, export_at: Any, payloads: Any, tmp_path: Path, tab: Tab
) -> None:
    seen = view.build(*hostile)
    sources = [markdown.render(seen)]
    for p in payloads:
        source = card_metadata.Source(teacher=p, data=p, license=p)
        sources.append(card.card(seen, export_at(hostile[2], 4, p), source, examples=[(p, p, p)]))
    body = "\n".join(_markdown(source.removeprefix("---").split("\n---\n")[-1]) for source in sources)
    (tmp_path / "cards.html").write_text(f"<!doctype html><meta charset=utf-8><body>{body}", "utf-8")
    for name in ("front.png", "front-dark.png"):
        (tmp_path / name).write_bytes(b"")
    address = (tmp_path / "cards.html").as_uri()
    tab.open(address)
    tab.value("document.querySelectorAll('a').forEach(a => a.href.startsWith('https://arxiv') || a.click())")
    time.sleep(0.5)
    assert tab.value(HARMLESS)
    assert all(url.startswith(tmp_path.as_uri()) for url in tab.requests())
    assert set(tab.value("[...document.querySelectorAll('a')].map(a => a.href)")) == {
        "https://arxiv.org/abs/2310.10054"
    }


def _markdown(source: str) -> str:
    from markdown_it import MarkdownIt

    return str(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(source))


def test_dashboard_shows_our_front_and_runs_nothing_hostile(
    hostile: Any, payloads: Any, tmp_path: Path, tab: Tab
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(storage=url, study_name=payloads[0], directions=["minimize", "maximize"])
    study.set_metric_names(["latency_ms", payloads[3]])
    for payload in payloads:
        trial = study.ask({"decoder_layers": optuna.distributions.IntDistribution(1, 6)})
        trial.set_user_attr("message", payload)
        optuna_dashboard.save_note(trial, payload)
        study.tell(trial, [float(trial.number), 90.0])
    optuna_dashboard.save_note(study, "\n\n".join(payloads))
    optuna_artifacts.save_to_study(study, view.build(*hostile))
    board = dashboard.open_dashboard(url, payloads[0], port=0)
    board.start()
    try:
        own = f"http://127.0.0.1:{board.port}/"
        tab.size(1400, 3000)
        tab.open(board.url, OURS)
        assert "token" not in tab.value("location.href"), "the token leaves the address bar"
        time.sleep(2)
        tab.picture("dashboard-hostile.png", whole=False)
        for path in ("", "/trials", "/note", "/analytics"):
            tab.open(tab.value("location.href").split("/studies/")[0] + f"/studies/{study._study_id}{path}")
            time.sleep(1.5)
            assert tab.value("window.pwned === undefined")
            assert not [e for e in tab.errors() if "dialog" in e]
            assert all(asked.startswith(own) for asked in tab.requests()), tab.requests()
    finally:
        board.close()


def test_dashboard_is_silent_and_stays_at_home(study: Any, tmp_path: Path, tab: Tab) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    made = optuna.create_study(storage=url, study_name="g2p", directions=["minimize", "maximize"])
    made.set_metric_names(["latency_ms", "100-PER"])
    seen = view.build(*study)
    for point in seen.drawn:
        trial = made.ask({"decoder_layers": optuna.distributions.IntDistribution(1, 6)})
        made.tell(trial, point.xy)
    optuna_artifacts.save_to_study(made, seen)
    board = dashboard.open_dashboard(url, "g2p", port=0)
    board.start()
    try:
        tab.size(1400, 3000)
        tab.open(board.url, OURS)
        time.sleep(2)
        tab.picture("dashboard.png", whole=False)
        assert tab.errors() == []
        assert all(asked.startswith(f"http://127.0.0.1:{board.port}/") for asked in tab.requests())
    finally:
        board.close()
