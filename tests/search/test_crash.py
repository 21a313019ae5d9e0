"""Nothing is lost and nothing is done twice, wherever the scheduler is killed."""

import json
import random
import shutil
import signal
import sqlite3
import subprocess
import time

import optuna
import pytest

from nash_search.files import sqlite_url
from nash_search.latency_table import LatencyTable
from nash_search.storage import recovery
from nash_search.storage.study import Study, open_storage
from tests import failpoints
from tests.crash import Driver
from tests.patience import NEVER_S, stretched
from tests.synthetic_evaluator import HERE, ORDERS

TRIALS = 14


def start(results, *, trials=TRIALS, seconds=0.0, failpoint="", changes=None, orders=""):
    arguments = [str(results), str(trials), json.dumps(changes or {})]
    return Driver(arguments, failpoint=failpoint, environment=HERE | {ORDERS: f"trial_s={seconds},{orders}"})


def finish(results, **options):
    process = start(results, **options)
    out, err = process.communicate(timeout=NEVER_S)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def rows(results):
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{results}/s/study.db")
    return study.get_trials(deepcopy=False)


def history(results):
    """What was decided, in order, without numbers and stamps."""
    done = [r for r in rows(results) if r.state.name in ("COMPLETE", "PRUNED")]
    return [(r.params["encoder_sparsity_pct"], r.params["decoder_layers"], r.state.name, r.values) for r in done]


def timeless(document):
    return {key: value for key, value in document.items() if key != "elapsed_s"} | {
        "front": [{k: v for k, v in p.items() if k != "number"} for p in document["front"]]
    }


def check_same(results, document, reference):
    expected_document, expected_history = reference
    assert all(r.state.is_finished() for r in rows(results)), "no row may stay RUNNING"
    found = history(results)
    assert found == expected_history
    assert len({point[:2] for point in found}) == len(found), "nothing may be done twice"
    text = json.dumps(timeless(document)).replace(str(results), "")
    assert text == expected_document
    names = {path.name for path in (results / "s" / "trials").iterdir()}
    assert not [name for name in names if name.startswith(".")], "no litter"
    assert len(names) == len(found)


def recovery_s(results, copy):
    """CPU seconds that putting a killed study right takes (on a copy of it)."""
    if not (results / "s" / "study.db").exists():  # killed before it began
        return 0.0
    shutil.copytree(results / "s", copy)
    began = time.process_time()
    recovery.check_database(copy / "study.db")
    study = Study(open_storage(sqlite_url(copy / "study.db")), "s", copy, None)
    recovery.reconcile(study, LatencyTable.model_validate_json((copy / "probe.json").read_bytes()))
    assert all(row.state.is_finished() for row in study.trials())
    study.close()
    return time.process_time() - began


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    results = tmp_path_factory.mktemp("undisturbed")
    document = finish(results)
    return json.dumps(timeless(document)).replace(str(results), ""), history(results)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "nth"), [(step, 1) for step in failpoints.PLACES] + [(s, 4) for s in failpoints.PLACES if s != "export"]
)
def test_killed_at_each_step_of_a_commit(tmp_path, reference, step, nth):
    process = start(tmp_path, failpoint=f"{step}:{nth}")
    process.communicate(timeout=NEVER_S)
    assert process.returncode == -signal.SIGKILL
    assert failpoints.place_of(tmp_path / "s") == step
    check_same(tmp_path, finish(tmp_path), reference)


@pytest.mark.slow
@pytest.mark.parametrize(
    "step", ["artefact:17", "manifest:16", "rename:18"]
)  # 15 are the dense model's and the trials'
def test_killed_while_finalists_train(tmp_path, step):
    changes = {"finalist_seeds": 3}
    undisturbed = finish(tmp_path / "undisturbed", changes=changes)
    process = start(tmp_path / "killed", failpoint=step, changes=changes)
    process.communicate(timeout=NEVER_S)
    assert process.returncode == -signal.SIGKILL
    assert failpoints.place_of(tmp_path / "killed" / "s") == step.partition(":")[0]
    found = finish(tmp_path / "killed", changes=changes)
    texts = [
        json.dumps(timeless(document)).replace(str(tmp_path / name), "")
        for document, name in ((undisturbed, "undisturbed"), (found, "killed"))
    ]
    assert texts[0] == texts[1]
    both = [{p.name for p in (tmp_path / name / "s" / "finalists").iterdir()} for name in ("undisturbed", "killed")]
    assert both[0] == both[1] and len(both[0]) == 4


@pytest.mark.slow
def test_killed_at_twenty_random_moments(tmp_path, reference):
    rng = random.Random(0)
    killed, studies = 0, 1
    while killed < 20:
        process = start(tmp_path / str(studies), seconds=0.1)
        try:
            process.communicate(timeout=rng.uniform(0.1, 2.5))
            studies += 1  # it finished first: go on with another
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            killed += 1
    for number in range(1, studies + 1):
        assert recovery_s(tmp_path / str(number), tmp_path / f"copy-{number}") < 5
        check_same(tmp_path / str(number), finish(tmp_path / str(number)), reference)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_and_it_goes_on(tmp_path, reference, number):
    process = start(tmp_path, seconds=2.0)
    while not (tmp_path / "s" / "trials").is_dir() or not list((tmp_path / "s" / "trials").glob("[!.]*")):
        time.sleep(0.1)
        assert process.poll() is None
    time.sleep(1)
    began = time.monotonic()
    process.send_signal(number)
    process.communicate(timeout=NEVER_S)
    assert time.monotonic() - began < stretched(10)
    assert process.returncode == 128 + number
    states = [r.state.name for r in rows(tmp_path)]
    assert "RUNNING" not in states and "FAIL" in states
    check_same(tmp_path, finish(tmp_path), reference)


@pytest.mark.slow
def test_the_second_driver_is_refused_and_told_who_works(tmp_path):
    first = start(tmp_path, seconds=30)
    while not (tmp_path / "s" / "study.db").exists():
        time.sleep(0.1)
    second = start(tmp_path)
    _, err = second.communicate(timeout=NEVER_S)
    assert second.returncode == 4 and f"pid {first.pid}" in err
    first.kill()
    first.communicate()
    finish(tmp_path, trials=2)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "empty", "foreign", "newer", "text"])
def test_a_damaged_database_is_refused_and_recovered(tmp_path, reference, damage):
    finish(tmp_path)
    path = tmp_path / "s" / "study.db"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("no database")
    else:
        path.unlink() if damage == "foreign" else None
        with sqlite3.connect(path) as connection:
            if damage == "foreign":
                connection.execute("CREATE TABLE t (x)")
            else:
                connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0'")
        connection.close()
    process = start(tmp_path)
    _, err = process.communicate(timeout=NEVER_S)
    assert process.returncode == 5 and len(err.strip().splitlines()) == 1, err
    from nash_search.storage.recovery import rebuild

    assert rebuild(tmp_path / "s", "s") == len(reference[1])
    check_same(tmp_path, finish(tmp_path), reference)
