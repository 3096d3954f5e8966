"""CLAP: what it hears and reads, and that the same item gives the same row whatever stands around it."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import CAPTIONS, clap_extractor, clap_tokenizer, reference_demo, sound, write_clap

from cmcr.errors import FormatError
from cmcr.spaces.clap import MOST_WINDOWS, ClapSpace, fused_windows, log_mel, repeat_padded, unfused_windows

pytest.importorskip("transformers")

SECONDS = [0.3, 0.7, 1.0, 1.005, 1.3, 2.5, 9.0]  # windows of the small models are one second long
SOUNDS = [sound(seconds, seed) for seed, seconds in enumerate(SECONDS)]


@pytest.fixture(scope="module", params=["clap-fused", "clap-unfused"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def clap(spaces, kind):
    return spaces[kind]


@pytest.fixture
def folder(spaces, kind, tmp_path):
    assert spaces[kind]
    return shutil.copytree(spaces.root / kind, tmp_path / kind)


def change_settings(folder, **changed):
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


class TestDeterminism:
    @settings(max_examples=10)
    @given(seconds=st.floats(0.001, 4.0), seed=st.integers(0, 99), random_state=st.integers(0, 2**32 - 1))
    def test_a_sound_of_any_length_is_the_same_every_time(self, clap, seconds, seed, random_state):
        item = sound(seconds, seed)
        once = clap.encode([item], "audio")
        np.random.seed(random_state)
        torch.manual_seed(random_state)
        np.testing.assert_allclose(clap.encode([SOUNDS[5], item, SOUNDS[0]], "audio")[1:2], once, atol=1e-5)

    def test_the_length_alone_marks_a_sound_as_longer(self, spaces, monkeypatch):
        clap, seen = spaces["clap-fused"], []
        features = clap._model.get_audio_features
        monkeypatch.setattr(
            clap._model, "get_audio_features", lambda **given: seen.append(given["is_longer"]) or features(**given)
        )
        clap.encode(SOUNDS, "audio")
        clap.encode(SOUNDS[:3], "audio")
        assert seen[0].squeeze(1).tolist() == [False, False, False, False, True, True, True]
        assert seen[1].squeeze(1).tolist() == [False, False, False]


class TestSpectrograms:
    @pytest.mark.parametrize("fused", [True, False])
    @pytest.mark.parametrize("samples", [1, 4_801, 240_000, 479_999, 480_000, 480_479])
    def test_up_to_a_window_they_are_those_of_transformers(self, fused, samples):
        extractor = clap_extractor(fused=fused, seconds=10)
        item = sound(samples / 48_000, 3)["array"]
        ours = (fused_windows if fused else unfused_windows)(item, extractor)
        if not fused and samples > 480_000:
            assert ours.windows.shape == (2, 1, 1001, 64)
            return
        theirs = np.asarray(extractor(item, sampling_rate=48_000)["input_features"][0])
        assert ours.windows.shape == (1, *theirs.shape)
        assert not ours.longer
        np.testing.assert_allclose(ours.windows[0], theirs, atol=1e-5)

    def test_a_longer_sound_is_heard_whole_and_in_the_middle_of_its_thirds(self, monkeypatch):
        extractor = clap_extractor(fused=True, seconds=10)
        item = sound(14.2, 4)["array"]
        monkeypatch.setattr(np.random, "choice", lambda places: places[len(places) // 2])
        monkeypatch.setattr(np.random, "randint", lambda *_: 0)
        theirs = extractor(item, sampling_rate=48_000)
        ours = fused_windows(item, extractor)
        np.testing.assert_allclose(ours.windows[0], theirs["input_features"][0], atol=1e-4)  # dB; shrunk in float32
        assert ours.longer
        assert theirs["is_longer"] == [[True]]

    def test_unfused_windows_spread_from_the_start_to_the_end(self):
        extractor = clap_extractor(fused=False, seconds=1)
        item = sound(2.5, 1)["array"]
        windows = unfused_windows(item, extractor).windows
        filters = extractor.mel_filters_slaney
        expected = [log_mel(item[start : start + 48_000], extractor, filters) for start in (0, 36_000, 72_000)]
        np.testing.assert_array_equal(windows[:, 0], expected)
        assert len(unfused_windows(sound(10, 1)["array"], extractor).windows) == MOST_WINDOWS

    def test_repeat_padding(self):
        padded = repeat_padded(np.array([1, 2, 3], dtype=np.float32), 8)
        assert padded.tolist() == [1, 2, 3, 1, 2, 3, 0, 0]


def test_silence_and_a_single_sample_are_sounds(clap):
    for samples in (np.zeros(99_000), np.full(1, 0.5)):
        assert np.isfinite(clap.encode({"array": samples, "sampling_rate": 48_000}, "audio")).all()
    rows = clap.encode([{"array": np.zeros(n), "sampling_rate": 48_000} for n in (1, 48_000)], "audio")
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)


def test_texts_are_cut_at_77_tokens_as_the_tokenizer_would(clap):
    text = "~" * 75
    clap.encode(text, "text")  # with both end marks 77 tokens: a warning would be an error
    with pytest.warns(UserWarning, match="1 text"):
        clap.encode(text + "~", "text")
    long = "the dog barks " * 60
    with pytest.warns(UserWarning, match="longer than the 77 tokens"):
        row = clap.encode(long, "text")
    tokens = clap._tokenizer(long, truncation=True, max_length=77, return_tensors="pt")
    with torch.no_grad():
        expected = clap._model.get_text_features(**tokens).pooler_output[0]
    np.testing.assert_allclose(row, expected.numpy(), atol=1e-5)


@settings(max_examples=15)
@given(st.text(min_size=1, max_size=20).filter(lambda text: text.strip() and "\0" not in text))
def test_any_unicode_is_a_text(clap, text):
    assert np.isfinite(clap.encode(["a", text], "text")).all()


def test_other_padding_is_refused(folder):
    change_settings(folder, padding="repeat")
    with pytest.raises(FormatError, match="'repeatpad', got 'repeat'"):
        ClapSpace(folder, device="cpu")


def test_the_fingerprint_follows_preprocessing_and_precision(clap, folder):
    half = ClapSpace(folder, dtype="bfloat16", device="cpu")
    rows = half.encode(SOUNDS[:3], "audio")
    assert rows.dtype == np.float32
    assert (rows * clap.encode(SOUNDS[:3], "audio")).sum(axis=1).min() > 0.9  # random weights magnify rounding
    found = {clap.fingerprint, half.fingerprint}
    for changed in ({"hop_length": 240}, {"frequency_min": 0}, {"max_length_s": 2, "nb_max_samples": 96_000}):
        change_settings(folder, **changed)
        found.add(ClapSpace(folder, device="cpu").fingerprint)
    words = clap_tokenizer()
    words.add_tokens(["<another>"])
    words.save_pretrained(folder)
    found.add(ClapSpace(folder, device="cpu").fingerprint)
    assert len(found) == 6


def test_real_sounds_go_through_the_model_of_full_size(tmp_path):
    from transformers import ClapConfig

    demo = sorted(reference_demo().glob("*.wav"))
    text = {"vocab_size": 300, "num_hidden_layers": 2}  # of twelve
    config = ClapConfig(audio_config={"enable_fusion": True, "fusion_type": "aff_2d"}, text_config=text)
    clap = ClapSpace(write_clap(tmp_path, fused=True, seconds=10, config=config), device="cpu")
    rows = clap.encode([*demo, sound(14, 0)], "audio")
    assert rows.shape == (4, 512)
    np.testing.assert_allclose(rows[1], clap.encode(demo[1], "audio"), atol=1e-5)
    assert (rows @ rows.T)[np.triu_indices(4, 1)].max() < 0.9999
    assert clap.encode(CAPTIONS, "text").shape == (4, 512)
