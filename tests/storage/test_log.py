"""Libraries' words go into the study's log, ours to the terminal, and nothing stays changed."""

import logging
import warnings

from nash_search.errors import NashSearchWarning
from nash_search.storage import log


def test_warnings_from_before_the_folder_are_kept_for_it_and_ours_are_said_aloud(tmp_path, capsys):
    before = {name: log._settings(logging.getLogger(name)) for name in log.LIBRARIES}
    with log.hushed():
        warnings.warn("early", UserWarning, stacklevel=1)
        warnings.warn("two\nlines", NashSearchWarning, stacklevel=1)
        log.to_file(tmp_path)
        log.to_file(tmp_path)
        logging.getLogger("optuna").warning("late")
        logging.getLogger("optuna").info("chatter")
    text = (tmp_path / log.NAME).read_text()
    assert text.count("early") == text.count("late") == 1 and "chatter" not in text
    assert capsys.readouterr().err == "nash-search: warning: two lines\n"
    assert {name: log._settings(logging.getLogger(name)) for name in log.LIBRARIES} == before


def test_no_warning_leaves_no_file(tmp_path):
    with log.hushed():
        log.to_file(tmp_path)
    assert not (tmp_path / log.NAME).exists()
