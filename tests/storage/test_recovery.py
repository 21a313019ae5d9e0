"""What goes wrong around a study has a name, and nothing that was trained is lost by it."""

import json
import shutil

import pytest

from nash_search.errors import StorageDamaged, Unfinished
from nash_search.latency.fresh_process import MeasurementFailed
from nash_search.storage import recovery
from tests.opened import study_of
from tests.synthetic_evaluator import SyntheticEvaluator


def test_recovery_takes_up_again_what_lost_its_folder_and_adopts_what_the_backup_does_not_know(rehearse, notebook):
    from nash_search.storage import recovery

    result = rehearse(trials=8)
    before = [(r.architecture, r.quality) for r in notebook.trials]
    backups = sorted((result.folder / "backups").glob("*.db"))
    for newer in backups[1:]:  # two trials newer than the backup
        newer.unlink()
    gone = next(r.architecture for r in notebook.trials[1:] if r.status == "complete")
    keys = {trial_folder: json.loads((trial_folder / "record.json").read_text())["architecture"] for trial_folder in
            (result.folder / "trials").iterdir()}  # fmt: skip
    (lost,) = [path for path, architecture in keys.items() if architecture == gone.model_dump(mode="json")]
    shutil.rmtree(lost)
    (result.folder / "study.db").write_bytes(b"")
    with pytest.raises(StorageDamaged, match="recover .*/s`"):
        rehearse(trials=8)
    assert recovery.rebuild(result.folder, "s") == len(before) - 1
    again = rehearse(trials=8)
    assert [r.architecture for r in notebook.trials[len(before) :]] == [gone]
    assert again.document["trials"] == result.document["trials"] and lost.is_dir()
    assert sorted(t.values for t in study_of(again).trials if t.values) == sorted(
        t.values for t in study_of(result).trials if t.values
    )
    assert {t.state.name for t in study_of(again).trials} <= {"COMPLETE", "PRUNED", "FAIL"}


def test_a_front_that_others_kept_from_being_timed_is_an_error_of_its_own(rehearse, monkeypatch):
    time_fresh = SyntheticEvaluator.time_fresh

    def none_taken(self, folders, budgets, **timing):
        found = time_fresh(self, folders, budgets, **timing)
        return {name: latency.model_copy(update={"rounds": ()}) for name, latency in found.items()}

    with monkeypatch.context() as patched, pytest.raises(Unfinished, match="front must be timed within") as told:
        patched.setattr(SyntheticEvaluator, "time_fresh", none_taken)
        rehearse(trials=3)
    assert isinstance(told.value.__cause__, MeasurementFailed) and told.value.exit_code == 5
    assert rehearse(trials=3).exit_code == 0, "nothing that was trained is lost"


@pytest.mark.parametrize("damage", ["deleted", "record deleted", "record cut"])
def test_a_trial_whose_folder_is_damaged_is_named_with_what_mends_it(rehearse, damage):
    folder = rehearse(trials=3).folder
    trial = next(path for path in sorted((folder / "trials").iterdir()) if (path / "record.json").is_file())
    if damage == "deleted":
        shutil.rmtree(trial)
    elif damage == "record deleted":
        (trial / "record.json").unlink()
    else:
        (trial / "record.json").write_text('{"number": ')
    with pytest.raises(
        StorageDamaged, match=r"folder must be whole, but .* is missing or altered: run `nash-search recover .*/s`"
    ):
        rehearse(trials=4)
    assert recovery.rebuild(folder, "s") >= 2
    assert rehearse(trials=4).exit_code == 0
