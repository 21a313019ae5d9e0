"""What a speech model's folder and the flags say together, without torch."""

import json

import pytest

from nash_search.config import SearchConfig, TaskConfig, WorkloadRequest
from nash_search.config_loader import load_config
from nash_search.errors import InvalidInput
from nash_search.search import remeasure
from nash_search.tasks import models, preflight, starter
from nash_search.tasks.g2p import teacher_folder
from nash_search.tasks.speech_settings import EXTRACTOR, PROCESSOR, speech_settings_of
from tests.speech import write_clips, write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("speech") / "model")


def heard(folder, **asked):
    return speech_settings_of(models.vet(folder), TaskConfig(**{"name": "mine", "data": "data", **asked}))


def test_the_prompt_is_what_generate_begins_with_and_the_window_what_was_asked_for(folder):
    ids = json.loads((folder / "generation_config.json").read_text())
    languages, tasks = ids["lang_to_id"], ids["task_to_id"]
    start, last = ids["decoder_start_token_id"], ids["no_timestamps_token_id"]
    found = heard(folder, language="de", audio_seconds=1)
    assert found.prompt == (start, languages["<|de|>"], tasks["transcribe"], last)
    assert (found.seconds, found.own_seconds, found.positions, found.english) == (1, 2, 50, False)
    assert found.generation == {"language": "de", "task": "transcribe"} and found.longest_output == 32 - 4
    english = heard(folder, language="de", name="translate")
    assert english.prompt[2] == tasks["translate"] and english.english and english.positions == 100


def test_a_model_of_one_language_needs_no_word_for_it(tmp_path):
    found = heard(write_model(tmp_path / "model", several=False))
    assert len(found.prompt) == 2 and found.generation == {} and found.english
    with pytest.raises(InvalidInput, match=r"must know several languages.*got 'de'.*\(--language\)"):
        heard(tmp_path / "model", language="de")
    with pytest.raises(InvalidInput, match=r"must know several languages.*got translate.*\(--task\)"):
        heard(tmp_path / "model", name="translate")


def test_a_text_model_has_no_ears_and_no_settings_of_them():
    found = models.vet(teacher_folder())
    assert speech_settings_of(found, TaskConfig()) is None
    with pytest.raises(InvalidInput, match=r"audio_seconds must be left out for a model of text, but got 5"):
        speech_settings_of(found, TaskConfig(audio_seconds=5))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, r"language must be given for a model of 2 languages, but got none \(--language\): e\.g\. --language en"),
        ({"language": "klingon"}, r"language must be one of the model's 2 .*, but got 'klingon' \(--language\)"),
        ({"language": "en", "audio_seconds": 3}, r"at most 2 \(the model's window\), but got 3 \(--audio-seconds\)"),
        ({"language": "en", "prefix": "say: "}, r"prefix must be left out for a model of speech, but got 'say: '"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(folder, asked, words):
    with pytest.raises(InvalidInput, match=words):
        heard(folder, **asked)


def test_the_extractor_may_lie_in_a_processor_s_file_but_must_be_there(tmp_path):
    folder = write_model(tmp_path / "model")
    stored = json.loads((folder / EXTRACTOR).read_text())
    (folder / PROCESSOR).write_text(json.dumps({"feature_extractor": stored}))
    (folder / EXTRACTOR).unlink()
    assert heard(folder, language="en").rate == 16_000
    (folder / PROCESSOR).write_text(json.dumps({"feature_extractor": stored | {"feature_size": 80}}))
    with pytest.raises(InvalidInput, match="must make the 8 features that config.json says, but got 80"):
        heard(folder, language="en")
    (folder / PROCESSOR).unlink()
    with pytest.raises(InvalidInput, match="must hold a feature extractor"):
        heard(folder, language="en")


def test_a_window_that_is_not_the_config_s_is_no_whole_model(tmp_path):
    folder = write_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_source_positions": 1500}))
    with pytest.raises(InvalidInput, match=r"embed_positions.weight must have the shape \(1500, 16\)"):
        models.vet(folder)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"workload": WorkloadRequest(runtime="onnxruntime")},
            "runtime must be one of eager, ctranslate2 for whisper, but got onnxruntime",
        ),
        (
            {"workload": WorkloadRequest(runtime="compile")},
            "runtime must be one of eager, ctranslate2 for whisper, but got compile",
        ),
        (
            {"workload": WorkloadRequest(input_tokens=7)},
            r"input_tokens must be 100 \(the window's positions\), but got 7",
        ),
        ({"workload": WorkloadRequest(output_tokens=29)}, "output_tokens must be at most 28"),
        ({"trim_vocab": True}, "trim_vocab must be left out for a model of speech"),
        ({"task": TaskConfig(language="en")}, "a model of speech needs your recordings, but got none"),
    ],
)
def test_preflight_refuses_by_name_what_speech_has_not_got(folder, tmp_path, changed, words):
    asked = {"task": TaskConfig(name="mine", data=str(tmp_path), language="en"), "model": str(folder), **changed}
    with pytest.raises(InvalidInput, match=words):
        preflight.check(SearchConfig(**asked))


def test_a_starter_for_it_speaks_of_recordings_and_is_accepted(folder, tmp_path):
    text = starter.search_space_text(str(folder))
    assert "# recording in" in text and "metric: wer" in text and "prefix" not in text
    (tmp_path / "space.yaml").write_text(text)
    config = load_config(tmp_path / "space.yaml", {"task.data": str(write_clips(tmp_path / "data", train=20))})
    config = config.model_copy(update={"task": config.task.model_copy(update={"language": "en"})})
    assert preflight.check(config)


def test_a_folder_that_is_only_timed_has_its_own_window_in(folder):
    for given, words in (
        ({}, "the model's window in; out assumed"),
        ({"output_tokens": 7}, "one as given, the other the"),
    ):
        asked = {f"workload.{name}": value for name, value in given.items()}
        workload, source = remeasure.workload_of(folder, load_config(None, asked))
        assert workload.input_tokens == 100 and source.startswith(words)
    with pytest.raises(InvalidInput, match=r"input_tokens must be 100 \(the model's window\), but got 7"):
        preflight.check_workload(WorkloadRequest(input_tokens=7), models.vet_timed(folder))


def test_preflight_names_the_row_whose_recording_is_not_there(folder, tmp_path):
    data = write_clips(tmp_path / "data", train=20)
    (data / "clips" / "validation-3.wav").unlink()
    task = TaskConfig(name="mine", data=str(data), language="en")
    with pytest.raises(InvalidInput, match=r"got 'clips/validation-3\.wav' \(.*validation\.jsonl, line 4\)"):
        preflight.check(SearchConfig(task=task, model=str(folder)))
