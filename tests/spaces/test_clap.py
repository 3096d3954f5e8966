"""CLAP: what it hears and reads, and that the same item gives the same row whatever stands around it."""

import json
import os
import subprocess
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported: no test may ask the network

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file
from small_clap import CAPTIONS, extractor, small_tokenizer, sound, write_model
from transformers import ClapConfig

import cmcr.spaces.clap as clap_module
from cmcr.errors import (
    ArtefactNotFoundError,
    ConfigError,
    DeviceError,
    FormatError,
    MissingDependencyError,
    SampleError,
)
from cmcr.spaces.clap import TEXT_TOKENS, ClapSpace
from cmcr.spaces.clap_sounds import MOST_WINDOWS, hear_fused, hear_unfused, log_mel, mel_settings, repeat_padded
from cmcr.spaces.protocol import Space

SECONDS = [0.3, 0.7, 1.0, 1.005, 1.3, 2.5, 9.0]  # windows of the small models are one second long
LENGTHS = {"short": [0, 1, 2, 3], "long": [4, 5, 6], "mixed": range(len(SECONDS))}
SOUNDS = [sound(seconds, seed) for seed, seconds in enumerate(SECONDS)]


KINDS = ("fused", "unfused")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: write_model(tmp_path_factory.mktemp(kind), fused=kind == "fused") for kind in KINDS}


@pytest.fixture(scope="module", params=KINDS)
def folder(request, folders):
    return folders[request.param]


@pytest.fixture(scope="module")
def elsewhere(folders, tmp_path_factory):
    """What another process, with other threads and another hash seed, makes of everything, backwards: a file a folder."""
    script = (
        "import sys, json, numpy as np, torch\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "torch.set_num_threads(2)\n"
        "from cmcr.spaces.clap import ClapSpace\n"
        "from small_clap import CAPTIONS, sound\n"
        "items = [sound(seconds, seed) for seed, seconds in enumerate(json.loads(sys.argv[2]))]\n"
        "for folder, there in json.loads(sys.argv[3]).items():\n"
        "    clap = ClapSpace(folder, device='cpu')\n"
        "    audio = clap.encode(items[::-1], 'audio', batch_size=3)[::-1]\n"
        "    np.savez(there, audio=audio, text=clap.encode(CAPTIONS, 'text', batch_size=3), mark=clap.fingerprint)\n"
    )
    out = tmp_path_factory.mktemp("elsewhere")
    written = {str(folder): str(out / f"{kind}.npz") for kind, folder in folders.items()}
    arguments = [str(Path(__file__).parent), json.dumps(SECONDS), json.dumps(written)]
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, env=environment)
    return written


@pytest.fixture(scope="module")
def clap(folder):
    return ClapSpace(folder, device="cpu")


@pytest.fixture(scope="module")
def alone(clap):
    return {
        "audio": np.concatenate([clap.encode([item], "audio") for item in SOUNDS]),
        "text": np.concatenate([clap.encode([item], "text") for item in CAPTIONS]),
    }


class TestContract:
    def test_is_a_space(self, clap, folder):
        assert isinstance(clap, Space)
        assert (clap.name, clap.widths, clap.revision) == ("clap", {"audio": 24, "text": 24}, None)
        assert repr(clap) == f"ClapSpace({str(folder)!r}: audio 24, text 24)"

    def test_rows_are_unit_rows_that_tell_items_apart(self, alone):
        for rows in alone.values():
            assert rows.dtype == np.float32
            np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-6)
            cosines = rows @ rows.T
            assert cosines[np.triu_indices(len(rows), 1)].min() < 0.9

    def test_conventions_of_the_return_value(self, clap):
        rows = clap.encode(SOUNDS[:2], "audio")
        tensor = clap.encode(SOUNDS[:2], "audio", convert_to_tensor=True)
        assert isinstance(tensor, torch.Tensor)
        np.testing.assert_allclose(tensor.numpy(), rows, atol=1e-6)
        np.testing.assert_allclose(clap.encode(SOUNDS[0], "audio"), rows[0], atol=1e-5)
        assert clap.encode(CAPTIONS[0], "text", device="cpu").shape == (24,)
        assert clap.encode([], "audio").shape == (0, 24)

    def test_unknown_modality_and_dtype_and_device(self, clap, folder):
        with pytest.raises(ConfigError, match=r"unknown modality of clap 'adio'\. Did you mean 'audio'\?"):
            clap.encode([], "adio")
        with pytest.raises(ConfigError, match=r"unknown dtype 'float23'\. Did you mean 'float32'\?"):
            ClapSpace(folder, dtype="float23")
        with pytest.raises(DeviceError, match="unknown device 'gpu'"):
            ClapSpace(folder, device="gpu")

    def test_without_a_device_the_best_of_the_machine_is_taken(self, folder, monkeypatch):
        asked = []
        monkeypatch.setattr(clap_module, "choose_device", lambda device: asked.append(device) or torch.device("cpu"))
        ClapSpace(folder)
        ClapSpace(folder, device="cuda:1")
        assert asked == ["auto", "cuda:1"]


class TestDeterminism:
    @pytest.mark.parametrize("lengths", LENGTHS)
    @settings(max_examples=8)
    @given(data=st.data(), batch_size=st.integers(1, 9))
    def test_sounds_do_not_depend_on_batch_order_or_neighbours(self, clap, alone, lengths, data, batch_size):
        chosen = data.draw(st.lists(st.sampled_from(LENGTHS[lengths]), min_size=1, max_size=8))
        rows = clap.encode([SOUNDS[i] for i in chosen], "audio", batch_size=batch_size)
        np.testing.assert_allclose(rows, alone["audio"][chosen], atol=1e-5)

    @settings(max_examples=10)
    @given(st.lists(st.integers(0, len(CAPTIONS) - 1), min_size=1, max_size=8), st.integers(1, 9))
    def test_texts_do_not_depend_on_batch_order_or_neighbours(self, clap, alone, chosen, batch_size):
        rows = clap.encode([CAPTIONS[i] for i in chosen], "text", batch_size=batch_size)
        np.testing.assert_allclose(rows, alone["text"][chosen], atol=1e-5)

    @settings(max_examples=10)
    @given(seconds=st.floats(0.001, 4.0), seed=st.integers(0, 99), random_state=st.integers(0, 2**32 - 1))
    def test_a_sound_of_any_length_is_the_same_every_time(self, clap, seconds, seed, random_state):
        item = sound(seconds, seed)
        once = clap.encode([item], "audio")
        np.random.seed(random_state)
        torch.manual_seed(random_state)
        np.testing.assert_allclose(clap.encode([SOUNDS[5], item, SOUNDS[0]], "audio")[1:2], once, atol=1e-5)

    def test_the_length_alone_marks_a_sound_as_longer(self, tmp_path):
        clap = ClapSpace(write_model(tmp_path, fused=True), device="cpu")
        seen = []
        network = clap._network.get_audio_features
        clap._network.get_audio_features = lambda **inputs: seen.append(inputs["is_longer"]) or network(**inputs)
        clap.encode(SOUNDS, "audio")
        clap.encode(SOUNDS[:3], "audio")
        assert seen[0].squeeze(1).tolist() == [False, False, False, False, True, True, True]
        assert seen[1].squeeze(1).tolist() == [False, False, False]

    def test_random_states_stay_as_they_were(self, folder):
        np.random.seed(5)
        numpy_before, torch_before = np.random.get_state(), torch.get_rng_state()
        clap = ClapSpace(folder, device="cpu")
        clap.encode(SOUNDS, "audio", batch_size=2)
        clap.encode(CAPTIONS, "text")
        assert torch.equal(torch.get_rng_state(), torch_before)
        for before, after in zip(numpy_before, np.random.get_state(), strict=True):
            np.testing.assert_array_equal(before, after)

    def test_another_process_with_other_threads_gives_the_same_rows(self, folder, clap, alone, elsewhere):
        rows = np.load(elsewhere[str(folder)])
        np.testing.assert_allclose(rows["audio"], alone["audio"], atol=1e-5)
        np.testing.assert_allclose(rows["text"], alone["text"], atol=1e-5)
        assert str(rows["mark"]) == clap.fingerprint


class TestSpectrograms:
    @pytest.mark.parametrize("fused", [True, False])
    @pytest.mark.parametrize("samples", [1, 7, 4_801, 200_000, 240_000, 479_999, 480_000, 480_479])
    def test_up_to_a_window_they_are_those_of_transformers(self, fused, samples):
        published = extractor(fused=fused, seconds=10)
        item = sound(samples / 48_000, 3)["array"]
        ours = (hear_fused if fused else hear_unfused)(item, mel_settings(published, fused=fused))
        if not fused and samples > 480_000:
            assert ours.windows.shape == (2, 1, 1001, 64)
            return
        theirs = np.asarray(published(item, sampling_rate=48_000)["input_features"][0])
        assert ours.windows.shape == (1, *theirs.shape)
        assert not ours.longer
        np.testing.assert_allclose(ours.windows[0], theirs, atol=1e-5)

    def test_a_longer_sound_is_heard_whole_and_in_the_middle_of_its_thirds(self, monkeypatch):
        published = extractor(fused=True, seconds=10)
        item = sound(14.2, 4)["array"]
        monkeypatch.setattr(np.random, "choice", lambda places: places[len(places) // 2])
        monkeypatch.setattr(np.random, "randint", lambda *_: 0)
        theirs = published(item, sampling_rate=48_000)
        ours = hear_fused(item, mel_settings(published, fused=True))
        np.testing.assert_allclose(ours.windows[0], theirs["input_features"][0], atol=1e-4)  # dB; shrunk in float32
        assert ours.longer
        assert theirs["is_longer"] == [[True]]

    def test_unfused_windows_spread_from_the_start_to_the_end(self):
        mel = mel_settings(extractor(fused=False, seconds=1), fused=False)
        item = sound(2.5, 1)["array"]
        windows = hear_unfused(item, mel).windows
        expected = [log_mel(item[start : start + 48_000], mel) for start in (0, 36_000, 72_000)]
        np.testing.assert_array_equal(windows[:, 0], expected)
        assert len(hear_unfused(sound(60, 1)["array"], mel).windows) == MOST_WINDOWS

    def test_a_long_sound_is_taken_in_blocks(self):
        mel = mel_settings(extractor(fused=True, seconds=1), fused=True)
        item = sound(45, 2)["array"]
        whole = log_mel(item, mel)
        assert whole.shape == (4501, 16)
        # Frame 3000 stands at sample 3000 * 480; away from edges a cut-out has the same frames.
        np.testing.assert_allclose(log_mel(item[960_000:1_920_000], mel)[10:-10], whole[2010:3991], atol=1e-4)

    def test_repeat_padding(self):
        padded = repeat_padded(np.array([1, 2, 3], dtype=np.float32), 8)
        assert padded.tolist() == [1, 2, 3, 1, 2, 3, 0, 0]


class TestSounds:
    def test_stereo_is_the_mean_of_its_channels_from_a_file(self, clap, tmp_path):
        left, right = (sound(1.4, seed)["array"] for seed in (1, 2))
        soundfile.write(tmp_path / "two.wav", np.stack([left, right], axis=1), 48_000, subtype="FLOAT")
        mean = {"array": (left + right) / 2, "sampling_rate": 48_000}
        np.testing.assert_allclose(clap.encode(tmp_path / "two.wav", "audio"), clap.encode(mean, "audio"), atol=1e-5)

    def test_other_rates_stay_near(self, clap, alone):
        import soxr

        slow = soxr.resample(SOUNDS[4]["array"], 48_000, 44_100)
        row = clap.encode({"array": slow, "sampling_rate": 44_100}, "audio")
        assert float(row @ alone["audio"][4]) > 0.99

    def test_silence_and_a_single_sample_are_sounds(self, clap):
        for samples in (np.zeros(1), np.zeros(30_000), np.zeros(99_000), np.full(1, 0.5)):
            row = clap.encode({"array": samples, "sampling_rate": 48_000}, "audio")
            assert np.isfinite(row).all()
            np.testing.assert_allclose(np.linalg.norm(row), 1.0, atol=1e-6)
        silent = [{"array": np.zeros(n), "sampling_rate": 48_000} for n in (1, 48_000)]
        rows = clap.encode(silent, "audio")
        np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)

    def test_what_is_no_sound_is_refused_with_its_position(self, clap):
        bad = {"array": np.array([0.1, np.nan]), "sampling_rate": 48_000}
        with pytest.raises(SampleError, match="item 1: the sound: holds NaN or infinity"):
            clap.encode([SOUNDS[0], bad], "audio")
        with pytest.raises(SampleError, match="item 0: the sound: holds no samples"):
            clap.encode([{"array": np.zeros(0), "sampling_rate": 48_000}], "audio")
        with pytest.raises(
            SampleError, match="item 0: the sound: 1 samples at 192000 Hz are less than one at 48000 Hz"
        ):
            clap.encode([{"array": np.ones(1), "sampling_rate": 192_000}], "audio")
        with pytest.raises(SampleError, match=r"item 0: nowhere\.wav: no such sound"):
            clap.encode(["nowhere.wav"], "audio")


class TestTexts:
    def test_over_long_ones_are_cut_as_the_tokenizer_would_and_it_is_said_once(self, clap):
        long, longer = "the dog barks " * 60, "rain and " * 90
        with pytest.warns(UserWarning, match="longer than the 77 tokens") as said:
            rows = clap.encode([CAPTIONS[0], long, longer], "text", batch_size=1)
        assert [str(warning.message) for warning in said] == [
            f"clap: 2 text(s) are longer than the {TEXT_TOKENS} tokens that this encoder reads; the rest of each was not "
            f"embedded. One begins with {longer[:40]!r}."
        ]
        assert said[0].filename == __file__
        tokens = clap._tokenizer(long, truncation=True, max_length=TEXT_TOKENS, return_tensors="pt")
        with torch.no_grad():
            expected = clap._network.get_text_features(**tokens).pooler_output[0]
        np.testing.assert_allclose(rows[1], expected.numpy(), atol=1e-5)

    def test_the_longest_that_fits_is_whole(self, clap):
        text = "~" * (TEXT_TOKENS - 2)
        assert len(clap._tokens(text)[1]) == TEXT_TOKENS
        clap.encode(text, "text")  # a warning would be an error
        with pytest.warns(UserWarning, match="1 text"):
            clap.encode(text + "~", "text")

    @settings(max_examples=15)
    @given(st.text(min_size=1, max_size=20).filter(lambda text: text.strip() and "\0" not in text))
    def test_any_unicode_is_a_text(self, clap, text):
        assert np.isfinite(clap.encode(["a", text], "text")).all()

    @pytest.mark.parametrize(
        ("item", "message"),
        [
            (b"a", "expected a string, got bytes"),
            (None, "expected a string, got NoneType"),
            ("", "empty; there is nothing to embed"),
            (" \n\t", "white space only; there is nothing to embed"),
            ("a\0b", "holds a NUL at character 1"),
            ("ab\ud800", r"holds a lone surrogate \(U\+D800\) at character 2"),
        ],
    )
    def test_what_is_no_text_is_refused_with_its_position(self, clap, item, message):
        with pytest.raises(SampleError, match=f"item 1: a text: {message}"):
            clap.encode(["a", item], "text")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache of the hub, which is out of reach."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


class TestOpening:
    @pytest.mark.parametrize("local_files_only", [True, False])
    def test_offline_without_weights_says_what_to_fetch(self, cache, local_files_only):
        for model, flag in [
            ("laion/clap-htsat-fused", " --revision cca9e288ab447cee67d9ada1f85ddb46500f1401"),
            ("laion/clap-htsat-unfused", " --revision 8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a"),
            ("someone/clap", ""),
        ]:
            with pytest.raises(ArtefactNotFoundError, match="is not on this machine and could not be") as caught:
                ClapSpace(model, local_files_only=local_files_only)
            folder = model.split("/")[1]
            assert f"hf download {model}{flag} --include '*.json'" in str(caught.value)
            assert f"--local-dir {folder}\nthen copy the folder {folder} here" in str(caught.value)
            assert str(cache) in str(caught.value)

    def test_a_model_in_the_cache_is_found_and_its_commit_recorded(self, cache):
        commit = "0123456789abcdef0123456789abcdef01234567"
        stored = cache / "models--someone--small-clap"
        snapshot = stored / "snapshots" / commit
        snapshot.mkdir(parents=True)
        write_model(snapshot, fused=False)
        (stored / "refs").mkdir()
        (stored / "refs" / "main").write_text(commit)
        clap = ClapSpace("someone/small-clap", device="cpu")
        assert (clap.source, clap.revision) == ("someone/small-clap", commit)
        assert repr(clap) == "ClapSpace('someone/small-clap' at 0123456789ab: audio 24, text 24)"
        assert clap.fingerprint == ClapSpace(snapshot, device="cpu").fingerprint

    def test_opening_is_quiet(self, folder, capfd):
        ClapSpace(folder, device="cpu")
        assert capfd.readouterr() == ("", "")

    def test_transformers_is_asked_for(self, folder, monkeypatch):
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(MissingDependencyError, match=r"transformers is not installed; .*'cmcr\[encoders\]'"):
            ClapSpace(folder)

    def test_a_path_that_is_not_there(self, tmp_path):
        with pytest.raises(ArtefactNotFoundError, match="no such folder"):
            ClapSpace(tmp_path / "nowhere")

    def test_another_kind_of_model_is_named(self, tmp_path):
        write_model(tmp_path, fused=False)
        path = tmp_path / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "clip"}))
        with pytest.raises(FormatError, match="ClapSpace reads models of type 'clap', but this one is 'clip'"):
            ClapSpace(tmp_path)

    @pytest.mark.parametrize(
        ("gone", "message"),
        [
            ("model.safetensors", r"lacks model\.safetensors or model\.safetensors\.index\.json"),
            ("preprocessor_config.json", r"lacks preprocessor_config\.json or processor_config\.json"),
            ("tokenizer.json", r"lacks tokenizer\.json or vocab\.json and merges\.txt"),
            ("config.json", r"has no config\.json"),
        ],
    )
    def test_incomplete_folders(self, tmp_path, gone, message):
        write_model(tmp_path, fused=False)
        (tmp_path / gone).unlink()
        with pytest.raises(FormatError, match=message):
            ClapSpace(tmp_path)

    def test_a_pickled_model_is_not_opened(self, tmp_path):
        write_model(tmp_path, fused=False)
        torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
        with pytest.raises(FormatError, match=r"never from pickled files such as pytorch_model\.bin"):
            ClapSpace(tmp_path)

    @pytest.mark.parametrize("damaged", ["model.safetensors", "tokenizer.json", "preprocessor_config.json"])
    def test_damaged_files(self, tmp_path, damaged):
        write_model(tmp_path, fused=False)
        content = (tmp_path / damaged).read_bytes()
        (tmp_path / damaged).write_bytes(content[: len(content) // 2])
        with pytest.raises(FormatError, match="cannot be read"):
            ClapSpace(tmp_path)

    def test_missing_weights_are_never_random(self, tmp_path):
        write_model(tmp_path, fused=False)
        weights = load_file(tmp_path / "model.safetensors")
        del weights["text_projection.linear1.weight"]
        save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(
            FormatError, match=r"not a ClapModel, 1 missing keys, first text_projection\.linear1\.weight"
        ):
            ClapSpace(tmp_path)

    def test_counters_and_index_tables_that_a_file_leaves_out_are_computed(self, clap, alone, tmp_path):
        write_model(tmp_path, fused=clap._fused)
        weights = load_file(tmp_path / "model.safetensors")
        derived = ("position_ids", "token_type_ids", "relative_position_index", "num_batches_tracked")
        kept = {name: tensor for name, tensor in weights.items() if not name.endswith(derived)}
        assert len(kept) < len(weights)
        save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
        without = ClapSpace(tmp_path, device="cpu")
        assert without.fingerprint == clap.fingerprint
        np.testing.assert_allclose(without.encode(CAPTIONS, "text"), alone["text"], atol=1e-5)

    def test_other_padding_is_refused(self, tmp_path):
        write_model(tmp_path, fused=False)
        path = tmp_path / "preprocessor_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "padding": "repeat"}))
        with pytest.raises(FormatError, match="pads by 'repeatpad', got 'repeat'"):
            ClapSpace(tmp_path, device="cpu")

    def test_the_fingerprint_follows_weights_and_preprocessing(self, clap, folder, tmp_path):
        assert ClapSpace(folder, device="cpu").fingerprint == clap.fingerprint
        assert ClapSpace(folder, dtype="bfloat16", device="cpu").fingerprint != clap.fingerprint
        write_model(tmp_path, fused=clap._fused)
        same = ClapSpace(tmp_path, device="cpu").fingerprint
        assert same == clap.fingerprint
        path = tmp_path / "preprocessor_config.json"
        published = json.loads(path.read_text())
        marks = {same}
        for setting in ({"hop_length": 240}, {"frequency_min": 0}, {"frequency_max": 9_000}, {"max_length_s": 2}):
            if "max_length_s" in setting:
                setting["nb_max_samples"] = 96_000
            path.write_text(json.dumps({**published, **setting}))
            marks.add(ClapSpace(tmp_path, device="cpu").fingerprint)
        assert len(marks) == 5
        path.write_text(json.dumps(published))
        words = small_tokenizer()
        words.add_tokens(["<another>"])
        words.save_pretrained(tmp_path)
        assert ClapSpace(tmp_path, device="cpu").fingerprint not in marks

    def test_half_precision_stays_near(self, folder, alone):
        rows = ClapSpace(folder, dtype="bfloat16", device="cpu").encode(SOUNDS[:3], "audio")
        assert rows.dtype == np.float32
        assert (rows * alone["audio"][:3]).sum(axis=1).min() > 0.9  # random weights magnify rounding


def demo_sounds():
    for parent in Path(__file__).resolve().parents:
        if (found := parent / "shared/data/reference_demo").is_dir():
            return sorted(found.glob("*.wav"))
    return []


@pytest.mark.skipif(not demo_sounds(), reason="shared/data/reference_demo is not beside this checkout")
def test_real_sounds_go_through_the_model_of_full_size(tmp_path):
    config = ClapConfig(audio_config={"enable_fusion": True, "fusion_type": "aff_2d"}, text_config={"vocab_size": 300})
    write_model(tmp_path, fused=True, seconds=10, config=config)
    clap = ClapSpace(tmp_path, device="cpu")
    items = [*demo_sounds(), sound(14, 0)]
    rows = clap.encode(items, "audio")
    assert rows.shape == (4, 512)
    for position in (1, 3):
        np.testing.assert_allclose(rows[position], clap.encode(items[position : position + 1], "audio")[0], atol=1e-5)
    assert (rows @ rows.T)[np.triu_indices(4, 1)].max() < 0.9999
    assert clap.encode(CAPTIONS, "text").shape == (4, 512)
