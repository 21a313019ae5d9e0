"""Recordings are found, looked at and decoded, or refused in one line."""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nash_search.errors import InvalidInput
from nash_search.tasks.clips import Clips
from tests.speech import RATE, spoken


@pytest.fixture
def clips(tmp_path):
    return Clips(folders=(tmp_path, tmp_path / "test"), seconds=2, rate=RATE)


def test_a_recording_is_one_channel_at_the_model_s_rate(clips, tmp_path):
    sound = spoken("alpha", seed=1, seconds=1.0)
    soundfile.write(tmp_path / "plain.wav", sound, RATE, subtype="FLOAT")
    assert clips.check("plain.wav") == 1.0
    heard, rate, channels = clips.sound("plain.wav")
    assert (rate, channels) == (RATE, 1) and np.array_equal(heard, sound)
    (tmp_path / "test").mkdir()
    both = np.stack([sound, np.zeros_like(sound)], axis=1)
    soundfile.write(tmp_path / "test" / "both.flac", both, RATE)
    heard, _, channels = clips.sound("both.flac")
    assert channels == 2 and np.abs(heard - sound / 2).max() < 1e-3
    soundfile.write(tmp_path / "slow.wav", spoken("alpha", seed=1, seconds=1.0, rate=8000), 8000)
    heard, rate, _ = clips.sound("slow.wav")
    assert rate == 8000 and abs(len(heard) - RATE) <= 2
    loudest = np.abs(np.fft.rfft(heard)).argmax() * RATE / len(heard)
    assert min(abs(loudest - tone) for tone in (300, 500)) < 5  # the tones are where they were


@pytest.mark.parametrize(
    ("name", "made", "words"),
    [
        ("none.wav", None, "must name a recording that is there"),
        ("empty.wav", np.zeros(0), "must hold sound, but got no samples"),
        ("long.wav", np.full(3 * RATE, 0.1), r"must fit the window of 2 s, but got 3\.00 s"),
        ("text.wav", b"file,text\n", "must be readable sound, but got 'Format not recognised'"),
        ("cut.flac", b"fLaC\0\0\0\x22", "must be readable sound"),
    ],
)
def test_what_its_header_tells_is_refused(clips, tmp_path, name, made, words):
    if isinstance(made, bytes):
        (tmp_path / name).write_bytes(made)
    elif made is not None:
        soundfile.write(tmp_path / name, made, RATE)
    with pytest.raises(InvalidInput, match=words) as refused:
        clips.check(name)
    assert name in str(refused.value)


@pytest.mark.parametrize(("value", "words"), [(0.0, "but got silence"), (np.nan, "but got NaN or infinity")])
def test_what_only_decoding_tells_is_refused(clips, tmp_path, value, words):
    soundfile.write(tmp_path / "a.wav", np.full(RATE, value, np.float32), RATE, subtype="FLOAT")
    with pytest.raises(InvalidInput, match=f"{words} .* 'a.wav'|{words} in 'a.wav'"):
        clips.sound("a.wav")


def test_without_its_libraries_it_says_how_to_get_them(clips, tmp_path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(InvalidInput, match=r"pip install nash-search\[speech\]"):
        clips.check("a.wav")


REAL = Path(__file__).parent / "young_man.ogg"
"""A second of speech: LibriVox's Sense and Sensibility (public domain), of Debian's pocketsphinx-testdata."""


def test_real_speech_is_heard_alike_in_every_form_it_comes_in(clips, tmp_path):
    import soxr
    from transformers import WhisperFeatureExtractor

    sound, rate = soundfile.read(REAL, dtype="float32")
    assert rate == RATE and 0.9 < len(sound) / rate < 1.1
    forms = {
        "stereo.wav": (np.stack([sound] * 2, axis=1), RATE),
        "24bit.flac": (sound, RATE),
        "cd.wav": (soxr.resample(sound, RATE, 44_100), 44_100),
        "telephone.wav": (soxr.resample(sound, RATE, 8000), 8000),
    }
    for name, (samples, hertz) in forms.items():
        soundfile.write(tmp_path / name, samples, hertz, subtype="PCM_24")
    extractor = WhisperFeatureExtractor(chunk_length=2)
    heard = {name: clips.sound(name)[0] for name in forms}
    made = extractor([sound, *heard.values()], sampling_rate=RATE, return_tensors="np").input_features
    expected, features = made[0], dict(zip(forms, made[1:], strict=True))
    below = 50  # mel bins of up to 3 kHz of 80
    for name, found in features.items():
        kept = slice(None) if name != "telephone.wav" else slice(0, below)
        assert np.abs(found[kept] - expected[kept]).mean() < 0.02, name
    assert np.ptp(expected[:below]) > 1.5, "it is silence"
    assert features["telephone.wav"][-10:].mean() < expected[-10:].mean()  # nothing is up there
