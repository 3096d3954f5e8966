"""CLAP: what it hears and reads, and that the same sound gives the same row whatever stands around it."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import clap_extractor, clap_tokenizer, sound

import cmcr
from cmcr.errors import FormatError
from cmcr.spaces.clap import MOST_WINDOWS, fused_windows, log_mel, repeat_padded, unfused_windows

pytest.importorskip("transformers")

SECONDS = [0.3, 0.7, 1.0, 1.005, 1.3, 2.5, 9.0]  # windows of the small models are one second long
SOUNDS = [sound(seconds, seed) for seed, seconds in enumerate(SECONDS)]


@pytest.fixture(params=["clap-fused", "clap-unfused"])
def kind(request):
    return request.param


def change_settings(folder, **changed):
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


@settings(max_examples=6)
@given(seconds=st.floats(0.001, 4.0), seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("name", ["clap-fused", "clap-unfused"])
def test_a_sound_of_any_length_is_the_same_every_time(spaces, name, seconds, seed):
    item = sound(seconds, seed)
    once = spaces[name].encode([item], "audio")
    np.random.seed(seed)  # the state of which the published extractor draws its windows
    found = spaces[name].encode([SOUNDS[5], item, SOUNDS[0]], "audio")
    np.testing.assert_allclose(found[1:2], once, atol=1e-5)


def test_sounds_embed_as_the_model_embeds_their_windows(spaces, kind):
    from transformers import ClapModel

    fused, model = kind == "clap-fused", ClapModel.from_pretrained(spaces.root / kind).eval()
    for item, row in zip(SOUNDS, spaces[kind].encode(SOUNDS, "audio"), strict=True):
        given = (fused_windows if fused else unfused_windows)(item["array"], clap_extractor(fused=fused, seconds=1))
        longer = fused and len(item["array"]) > 48_479  # a second, and half a hop, with which another frame begins
        windows = torch.from_numpy(given.windows.copy())
        with torch.no_grad():
            rows = model.get_audio_features(windows, torch.tensor([[longer]] * len(windows))).pooler_output
        np.testing.assert_allclose(row, torch.nn.functional.normalize(rows.mean(dim=0), dim=0), atol=1e-5)


class TestSpectrograms:
    @pytest.mark.parametrize("fused", [True, False])
    @pytest.mark.parametrize("samples", [1, 4_801, 240_000, 480_000, 480_479])
    def test_up_to_a_window_they_are_those_of_transformers(self, fused, samples):
        extractor = clap_extractor(fused=fused, seconds=10)
        item = sound(samples / 48_000, 3)["array"]
        ours = (fused_windows if fused else unfused_windows)(item, extractor)
        if not fused and samples > 480_000:
            assert ours.windows.shape == (2, 1, 1001, 64)
            return
        theirs = np.asarray(extractor(item, sampling_rate=48_000)["input_features"][0])
        assert not ours.longer
        np.testing.assert_allclose(ours.windows, theirs[None], atol=1e-5)

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
        filters = extractor.mel_filters_slaney
        expected = [log_mel(item[start : start + 48_000], extractor, filters) for start in (0, 36_000, 72_000)]
        np.testing.assert_array_equal(unfused_windows(item, extractor).windows[:, 0], expected)
        assert len(unfused_windows(sound(10, 1)["array"], extractor).windows) == MOST_WINDOWS

    def test_repeat_padding(self):
        padded = repeat_padded(np.array([1, 2, 3], dtype=np.float32), 8)
        assert padded.tolist() == [1, 2, 3, 1, 2, 3, 0, 0]


def test_silence_and_a_single_sample_are_sounds(spaces, kind):
    given = [np.zeros(1), np.zeros(48_000), np.zeros(99_000), np.full(1, 0.5)]
    rows = spaces[kind].encode([{"array": samples, "sampling_rate": 48_000} for samples in given], "audio")
    assert np.isfinite(rows).all()
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)


def test_texts_are_cut_at_77_tokens_as_the_tokenizer_would(spaces):
    clap, text = spaces["clap-fused"], "~" * 75
    clap.encode(text, "text")  # with both end marks 77 tokens: a warning would be an error
    with pytest.warns(UserWarning, match="the 77 tokens"):
        row = clap.encode(text + "dog", "text")
    np.testing.assert_allclose(row, clap.encode(text, "text"), atol=1e-5)


def test_other_padding_is_refused(copy_of):
    folder = copy_of("clap-fused")
    change_settings(folder, padding="repeat")
    with pytest.raises(FormatError, match="'repeatpad', got 'repeat'"):
        cmcr.space("clap", model=folder, device="cpu")


def test_the_fingerprint_follows_preprocessing_and_precision(spaces, copy_of, kind):
    clap, folder = spaces[kind], copy_of(kind)
    half = cmcr.space("clap", model=folder, dtype="bfloat16", device="cpu")
    assert (half.encode(SOUNDS[:3], "audio") * clap.encode(SOUNDS[:3], "audio")).sum(axis=1).min() > 0.99
    found = {clap.fingerprint, half.fingerprint}
    for changed in ({"hop_length": 240}, {"frequency_min": 0}, {"fft_window_size": 512}):
        change_settings(folder, **changed)
        found.add(cmcr.space("clap", model=folder, device="cpu").fingerprint)
    words = clap_tokenizer()
    words.add_tokens(["<another>"])
    words.save_pretrained(folder)
    found.add(cmcr.space("clap", model=folder, device="cpu").fingerprint)
    assert len(found) == 6
