"""A trial ends with a record that says why."""

from safetensors import SafetensorError

from nash_search.trial.run import reason_of


def test_a_full_disk_is_told_from_an_error_however_it_was_written(tmp_path):
    full = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert reason_of(full)[0] == reason_of(OSError(28, "No space left on device"))[0] == "disk_full"
    assert reason_of(SafetensorError("Error while serializing: I/O error: no (os error 2)"))[0] == "error"
