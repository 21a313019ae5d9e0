"""What goes wrong around a search has a name, and nothing that was trained is lost by it."""

import shutil

import pytest
from safetensors import SafetensorError

from nash_search.errors import StorageDamaged, Unfinished
from nash_search.latency.fresh import MeasurementFailed
from nash_search.storage import recovery
from nash_search.trial.run import reason_of
from nash_search.trial.synthetic_evaluator import SyntheticEvaluator


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
        StorageDamaged, match=r"folder must be whole, but .* is missing or altered: run `nash-search recover s`"
    ):
        rehearse(trials=4)
    assert recovery.rebuild(folder, "s") >= 2
    assert rehearse(trials=4).exit_code == 0


def test_a_full_disk_is_told_from_an_error_however_it_was_written(tmp_path):
    full = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert reason_of(full)[0] == reason_of(OSError(28, "No space left on device"))[0] == "disk_full"
    assert reason_of(SafetensorError("Error while serializing: I/O error: no (os error 2)"))[0] == "error"
