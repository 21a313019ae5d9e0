"""The guard: who gets through to the Optuna dashboard, and who does not."""

from __future__ import annotations

import csv
import http.client
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import optuna
import pytest
from optuna_dashboard import get_note, save_note
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
from optuna_dashboard._note import get_note_from_system_attrs
from optuna_dashboard.artifact._backend import list_trial_artifacts

from nash_search.errors import InvalidInput, StorageDamaged
from nash_search.report import dashboard, learning_curve, optuna_artifacts, view
from nash_search.summaries import Plan
from tests.patience import NEVER_S

Open = Callable[..., dashboard.Dashboard]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "study.db"
    study = optuna.create_study(storage=f"sqlite:///{path}", study_name="g2p", directions=["minimize", "maximize"])
    study.set_metric_names(["latency_ms", "100-PER"])
    trial = study.ask({"decoder_layers": optuna.distributions.IntDistribution(1, 6)})
    trial.set_user_attr("message", '=HYPERLINK("http://example.invalid")')
    study.tell(trial, [34.0, 90.0])
    return path


@pytest.fixture
def database(original: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(original, tmp_path / 'study.db')}"


@pytest.fixture
def opened(database: str) -> Iterator[Open]:
    made = []

    def _open(**options: Any) -> dashboard.Dashboard:
        found = dashboard.open_dashboard(database, "g2p", port=0, **options)
        found.start()
        made.append(found)
        return found

    yield _open
    for found in made:
        found.close()


def ask(board: dashboard.Dashboard, method: str, path: str, body: Any = None, **headers: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", board.port, timeout=NEVER_S)
    sent = {"Host": f"127.0.0.1:{board.port}", "Content-Type": "application/json", "Accept-Encoding": ""}
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, sent | {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    answer.text = answer.read().decode("utf-8", "replace")  # type: ignore[attr-defined]
    connection.close()
    return answer


def enter(board: dashboard.Dashboard) -> str:
    answer = ask(board, "GET", board.url.partition(str(board.port))[2])
    assert answer.status == 303 and answer.headers["Location"].startswith("/dashboard/studies/")
    found = answer.headers["Set-Cookie"]
    assert "HttpOnly" in found and "SameSite=Strict" in found
    return str(found.split(";")[0])


def test_the_link_opens_the_dashboard(opened: Open) -> None:
    board = opened()
    cookie = enter(board)
    assert ask(board, "GET", "/dashboard", Cookie=cookie).status == 200
    listed = json.loads(ask(board, "GET", "/api/studies", Cookie=cookie).text)
    assert [s["study_name"] for s in listed["study_summaries"]] == ["g2p"]


def test_without_the_token_nothing_is_shown(opened: Open) -> None:
    board = opened()
    for path in ("/", "/dashboard", "/api/studies", "/csv/1", "/?token=", "/?token=wrong", "/static/bundle.js"):
        assert ask(board, "GET", path).status == 403, path
    assert ask(board, "GET", "/api/studies", Cookie=f"nash-search-{board.port}=wrong").status == 403
    assert ask(board, "GET", "/api/studies", Cookie="not a cookie;;=").status == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}", "0.0.0.0:{port}", ""]
)
def test_a_foreign_host_is_refused_even_with_the_token(opened: Open, host: str) -> None:
    board = opened()
    cookie = enter(board)
    assert ask(board, "GET", "/api/studies", Cookie=cookie, Host=host.format(port=board.port)).status == 421


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1", ""]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_foreign_origin_is_refused_even_with_the_token(opened: Open, origin: str, method: str) -> None:
    board = opened(writable=True)
    cookie = enter(board)
    answer = ask(board, method, "/api/studies", {}, Cookie=cookie, Origin=origin.format(port=board.port))
    assert answer.status == 403


WRITES = [
    ("POST", "/api/studies", {"study_name": "x", "directions": ["minimize"]}),
    ("DELETE", "/api/studies/1", {}),
    ("POST", "/api/studies/1/rename", {"study_name": "x"}),
    ("PUT", "/api/studies/1/note", {"version": 1, "body": "x"}),
    ("POST", "/api/trials/1/tell", {"state": "fail"}),
    ("POST", "/api/trials/1/user-attrs", {"user_attrs": {"a": 1}}),
    ("POST", "/incompatible-rdb-schema", {}),
    ("OPTIONS", "/api/studies", {}),
    ("TRACE", "/", {}),
]


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_no_write_gets_through(opened: Open, database: str, method: str, path: str, body: Any) -> None:
    closed, writable = opened(), opened(writable=True)
    own = f"http://127.0.0.1:{closed.port}"
    assert ask(closed, method, path, body, Cookie=enter(closed), Origin=own).status == 405, "read-only"
    assert ask(writable, method, path, body, Cookie=enter(writable)).status == 405, "no Origin"
    own = f"http://127.0.0.1:{writable.port}"
    assert ask(writable, method, path, body, Origin=own).status == 403, "no token"
    assert ask(writable, method, path, body, Origin=own, Cookie=enter(closed)).status == 403, "another run's token"
    assert optuna.get_all_study_names(database) == ["g2p"]


def test_writable_lets_its_own_page_write(opened: Open, database: str) -> None:
    board = opened(writable=True)
    own = f"http://127.0.0.1:{board.port}"
    answer = ask(board, "PUT", "/api/studies/1/note", {"version": 1, "body": "seen"}, Cookie=enter(board), Origin=own)
    assert answer.status == 204


def test_csv_runs_no_formula_and_nothing_is_framed(opened: Open) -> None:
    board = opened()
    answer = ask(board, "GET", "/csv/1", Cookie=enter(board))
    [_, row] = csv.reader(io.StringIO(answer.text))
    assert any(cell.startswith("'=HYPERLINK") for cell in row)
    assert not any(cell.startswith(("=", "@")) for cell in row)
    assert answer.headers["X-Frame-Options"] == "DENY" and answer.headers["X-Content-Type-Options"] == "nosniff"
    assert ask(board, "GET", "/csv/99", Cookie=enter(board)).status == 404


def test_artifacts_run_nothing(tmp_path: Path, database: str, opened: Open) -> None:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    store = optuna.artifacts.FileSystemArtifactStore(str(folder))
    page = tmp_path / "card.html"
    page.write_text("<script>alert(1)</script>")
    study = optuna.load_study(storage=database, study_name="g2p")
    name = optuna.artifacts.upload_artifact(artifact_store=store, file_path=str(page), study_or_trial=study)
    board = opened(artifacts=folder)
    answer = ask(board, "GET", f"/artifacts/{study._study_id}/{name}", Cookie=enter(board))
    assert answer.status == 200 and "sandbox" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Access-Control-Allow-Origin"] is None


def test_it_listens_on_loopback_only(opened: Open) -> None:
    board = opened()
    assert board._server.server_address[0] == "127.0.0.1"


def test_what_is_not_there_is_said(tmp_path: Path, database: str) -> None:
    with pytest.raises(InvalidInput, match="must have a database"):
        dashboard.open_dashboard(f"sqlite:///{tmp_path / 'none.db'}", "g2p")
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "text.db").write_text("no database at all, only text " * 40)
    with pytest.raises(StorageDamaged):
        dashboard.open_dashboard(f"sqlite:///{tmp_path / 'text.db'}", "g2p")
    with pytest.raises(InvalidInput, match="must be in the storage"):
        dashboard.open_dashboard(database, "other", port=0)


def test_a_taken_port_is_said(opened: Open, database: str) -> None:
    with pytest.raises(InvalidInput, match="port must be free"):
        dashboard.open_dashboard(database, "g2p", port=opened().port)


@pytest.fixture
def told(tmp_path: Path, study: Any) -> Any:
    """A database with the study's trials told, and its records and document."""
    records, document, _ = study
    url = f"sqlite:///{tmp_path / 'told.db'}"
    made = optuna.create_study(storage=url, study_name="g2p", directions=["minimize", "maximize"])
    for record in records:
        trial = made.ask({"decoder_layers": optuna.distributions.IntDistribution(1, 6)})
        done = record.latency is not None and record.quality is not None
        made.tell(
            trial,
            [record.latency.median_ms, record.quality.value] if done else None,
            state=None if done else optuna.trial.TrialState.FAIL,
        )
    (tmp_path / "g2p").mkdir()
    return url, records, document


def listen(url: str, results: Path, document: Any) -> optuna_artifacts.StudyPlots:
    listener = optuna_artifacts.StudyPlots(lambda name: optuna.load_study(storage=url, study_name=name), results)
    listener.on_stage("workload", {"study": "g2p"})
    listener.on_stage("plan", {k: v for k, v in document.to_json().items() if k in Plan.model_fields and k != "trials"})
    return listener


def attached(url: str) -> list[list[str]]:
    """File names of each trial's artifacts, as the dashboard lists them."""
    found = optuna.load_study(storage=url, study_name="g2p")
    attributes = found._storage.get_study_system_attrs(found._study_id)
    return [[a["filename"] for a in list_trial_artifacts(attributes, {}, t)] for t in found.get_trials()]


def test_the_listener_keeps_plots_notes_and_artifacts_up_to_date(told: Any, tmp_path: Path) -> None:
    url, records, document = told
    listener = listen(url, tmp_path, document)
    for count in (1, 2):
        state = SimpleNamespace(records=tuple(records[:count]), hypervolume=1.0, eta_s=None)
        listener.on_trial(records[count - 1], state)
    found = optuna.load_study(storage=url, study_name="g2p")
    attributes = found._storage.get_study_system_attrs(found._study_id)
    assert sorted(get_plotly_graph_objects(attributes)) == ["front", "hypervolume"]
    body = get_note_from_system_attrs(attributes, found.trials[0]._trial_id)["body"]
    assert "44.8 ms" in body or "44.9 ms" in body
    assert "at step 600" in body
    assert attached(url)[:3] == [["curve.svg", "card.md"]] * 2 + [[]]


def test_a_later_start_adds_what_is_missing_and_nothing_twice(told: Any, tmp_path: Path) -> None:
    url, records, document = told
    state = SimpleNamespace(records=tuple(records), hypervolume=1.0, eta_s=None)
    for _ in range(2):
        listen(url, tmp_path, document).on_trial(records[-1], state)
    names = attached(url)
    for record, found in zip(records, names, strict=True):
        assert found == ["curve.svg"] * bool(record.curve) + ["card.md"] * bool(record.latency and record.quality)
    files = list((tmp_path / "g2p" / "artifacts").iterdir())
    assert len(files) == sum(map(len, names)) and all(f.stat().st_size < 20_000 for f in files)
    versions = optuna.load_study(storage=url, study_name="g2p")
    attributes = versions._storage.get_study_system_attrs(versions._study_id)
    assert {value for key, value in attributes.items() if key.endswith(":note_ver")} == {1}


def test_a_certified_trial_shows_its_export_s_card(told: Any, tmp_path: Path) -> None:
    url, records, document = told
    listener = listen(url, tmp_path, document)
    listener.on_trial(records[0], SimpleNamespace(records=tuple(records), hypervolume=1.0, eta_s=None))
    listener.finish(view.build(records, document), {3: "the export's card"})
    found = optuna.load_study(storage=url, study_name="g2p")
    attributes = found._storage.get_study_system_attrs(found._study_id)
    [_, card] = list_trial_artifacts(attributes, {}, found.trials[3])
    folder = tmp_path / "g2p" / "artifacts"
    assert (folder / card["artifact_id"]).read_text() == "the export's card"
    assert get_note(found).startswith("# g2p") and "✓ 50%" in get_note(found), "the answers are the study's note"
    save_note(found, "what somebody thought of it")
    listener.finish(view.build(records, document), {})
    assert get_note(found) == "what somebody thought of it"
    [_, other] = list_trial_artifacts(attributes, {}, found.trials[4])
    assert "not certified" in (folder / other["artifact_id"]).read_text()


def test_the_dashboard_serves_a_trial_s_artifacts(told: Any, tmp_path: Path) -> None:
    url, records, document = told
    state = SimpleNamespace(records=tuple(records), hypervolume=1.0, eta_s=None)
    listen(url, tmp_path, document).on_trial(records[0], state)
    board = dashboard.open_dashboard(url, "g2p", port=0, artifacts=tmp_path / "g2p" / "artifacts")
    board.start()
    try:
        cookie = enter(board)
        [trial, *_] = json.loads(ask(board, "GET", "/api/studies/1?after=0", Cookie=cookie).text)["trials"]
        assert "ms" in trial["note"]["body"]
        for artifact, kind in zip(trial["artifacts"], ("image/svg+xml", "text/markdown"), strict=True):
            path = f"/artifacts/1/{trial['trial_id']}/{artifact['artifact_id']}"
            answer = ask(board, "GET", path, Cookie=cookie)
            assert answer.status == 200 and answer.headers["Content-Type"].startswith(kind)
            assert "sandbox" in answer.headers["Content-Security-Policy"]
    finally:
        board.close()


def test_a_curve_is_one_small_picture(study: Any, hostile: Any, payloads: Any) -> None:
    for found in (study, hostile):
        seen = view.build(*found)
        for p in seen.points:
            text = learning_curve.svg(p, seen)
            assert bool(text) == bool(p.record.curve)
            if text:
                root = ElementTree.fromstring(text)
                kinds = {e.tag.rpartition("}")[2] for e in root.iter()}
                assert kinds <= {"svg", "style", "rect", "text", "path", "polyline", "circle"}
                assert not [name for e in root.iter() for name in e.attrib if name.startswith("on") or "href" in name]


def test_before_its_study_exists_a_dashboard_asks_for_patience(database: str) -> None:
    board = dashboard.Dashboard()
    board.start()
    try:
        assert ask(board, "GET", "/").status == 503
        board.show(dashboard.open_storage(database), "g2p")
        assert ask(board, "GET", "/").status == 403
        assert ask(board, "GET", "/dashboard", Cookie=enter(board)).status == 200
    finally:
        board.close()


def test_a_storage_that_fails_does_not_end_the_search(
    study: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def broken(name: str) -> Any:
        raise OSError("gone")

    records, *_ = study
    listener = optuna_artifacts.StudyPlots(broken, tmp_path)
    state = SimpleNamespace(records=tuple(records), hypervolume=1.0, eta_s=None)
    listener.on_trial(records[0], state)
    listener.on_trial(records[1], state)
    assert caplog.text.count("not updated any more: gone") == 1


def test_our_plots_are_saved_once_each(database: str, study: Any) -> None:
    found = optuna.load_study(storage=database, study_name="g2p")
    for _ in range(2):
        optuna_artifacts.save_to_study(found, view.build(*study))
    saved = get_plotly_graph_objects(found._storage.get_study_system_attrs(found._study_id))
    assert sorted(saved) == ["front", "hypervolume"]
