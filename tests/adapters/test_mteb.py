"""MTEB runs a connection, and a space, on tasks of its own format, and finds what `cmcr.evaluation` finds."""

import dataclasses
import importlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import cmcr
from cmcr.adapters.mteb import MtebEncoder, undecoded_sounds
from cmcr.data.numbers import SEEN_NUMBERS
from cmcr.errors import ConfigError, SampleError
from cmcr.evaluation.miniature import draw_items

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = [
    pytest.mark.skipif(find_spec("mteb") is None, reason="MTEB is not installed"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning"),  # of MTEB's other scores
]


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The benchmark's tasks, made of the miniature world. Libraries are imported where they are used: seconds a process."""
    import datasets

    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(BENCHMARKS)
        patched.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        module = importlib.import_module("mteb_tasks")
        patched.setattr(module, "SEEN_NUMBERS", SEEN_NUMBERS[::2])  # that the connection is fitted on
        yield module


@pytest.fixture(scope="module")
def connection(local):
    return local._connected("ridge")


@pytest.fixture(scope="module")
def small(local):
    return {case.name: case for case in local.cases(limit=40)}


class Loader:
    """What an encoder uses of MTEB's data loader."""

    def __init__(self, **columns):
        import datasets

        self.dataset = datasets.Dataset.from_dict(columns)


def encode(model, modalities, **columns):
    task = type("Task", (), {"name": "task", "modalities": modalities})
    return model.encode(Loader(**columns), task_metadata=task, hf_split="test", hf_subset="default")


def sounds(count):
    return draw_items("audio", SEEN_NUMBERS[:count], "test", np.random.default_rng(0))


class TestTasks:
    def test_main_scores_are_those_of_cmcr(self, local, connection, small, tmp_path):
        import datasets
        import mteb

        model, cache = MtebEncoder(connection), mteb.ResultCache(tmp_path / "cache")
        tasks = [local.task_of(case, tmp_path) for case in small.values()]
        decode = datasets.Audio.decode_example
        with undecoded_sounds():
            found = mteb.evaluate(model, tasks, cache=cache, show_progress_bar=False)
        assert datasets.Audio.decode_example is decode
        for result in found.task_results:
            score = result.scores["test"][0]["main_score"]
            assert score == pytest.approx(local.own_score(connection, small[result.task_name]), abs=1e-5)
            assert 0.2 < score < 1
        assert {path.parent.name for path in (tmp_path / "cache").rglob("Mini*.json")} == {
            model.mteb_model_meta.revision
        }

    def test_a_space_alone_runs_on_its_own_tasks(self, local, small, tmp_path):
        import mteb

        model = MtebEncoder(cmcr.space("mini-clip"), "me/mini-clip")
        task = local.task_of(small["MiniI2TRetrieval"], tmp_path)
        found = mteb.evaluate(model, task, cache=None, show_progress_bar=False)
        assert found.task_results[0].scores["test"][0]["main_score"] > 0.5
        with pytest.raises(ValueError, match="none overlap"):
            mteb.evaluate(model, local.task_of(small["MiniAudioZeroShot"], tmp_path), cache=None)


class TestEncode:
    def test_text_goes_to_the_space_that_embeds_the_rest_of_the_task(self, connection):
        model, texts = MtebEncoder(connection), ["407", "nine"]
        for beside, space in (("audio", "mini-clap"), ("image", "mini-clip")):
            rows = encode(model, [beside, "text"], text=texts)
            np.testing.assert_array_equal(rows, connection.encode(texts, "text", space=space))
        chosen = MtebEncoder(connection, spaces={"text": "mini-clap"})
        rows = encode(chosen, ["image", "text"], text=texts)
        np.testing.assert_array_equal(rows, connection.encode(texts, "text", space="mini-clap"))

    def test_sounds_are_read_at_any_rate_and_from_files(self, connection, tmp_path):
        import soundfile

        model, given = MtebEncoder(connection), sounds(2)
        twice = [{"array": np.repeat(each["array"], 2), "sampling_rate": 16_000} for each in given]
        rows = encode(model, ["audio"], audio=[dict(each, array=each["array"].tolist()) for each in twice])
        np.testing.assert_allclose(rows, connection.encode(twice, "audio"), atol=1e-6)
        for number, each in enumerate(given):
            soundfile.write(tmp_path / f"{number}.wav", each["array"], each["sampling_rate"], subtype="FLOAT")
        files = [{"bytes": None, "path": str(tmp_path / f"{number}.wav")} for number in range(2)]
        np.testing.assert_array_equal(encode(model, ["audio"], audio=files), connection.encode(given, "audio"))

    def test_items_of_two_modalities_are_summed(self, connection):
        texts, given = ["407", "nine"], sounds(2)
        rows = encode(
            MtebEncoder(connection),
            ["audio", "text"],
            text=texts,
            audio=[dict(s, array=s["array"].tolist()) for s in given],
        )
        expected = connection.encode(texts, "text", space="mini-clap") + connection.encode(given, "audio")
        np.testing.assert_allclose(rows, expected, atol=1e-6)

    def test_bad_items_are_named_by_their_position(self, connection):
        with pytest.raises(SampleError, match="item 1: "):
            encode(MtebEncoder(connection), ["text"], text=["407", " "])
        with pytest.raises(ConfigError, match="got video"):
            encode(MtebEncoder(connection), ["video"], video=["x"])


class TestModelMeta:
    def test_says_what_the_model_embeds_and_which_one_it_is(self, connection):
        meta = MtebEncoder(connection, "me/mini").mteb_model_meta
        assert (meta.name, meta.embed_dim) == ("me/mini", connection.width)
        assert set(meta.modalities) == {"text", "image", "audio"}
        assert MtebEncoder(connection).mteb_model_meta.revision == meta.revision
        other = dataclasses.replace(connection, own_share=0.5)
        assert MtebEncoder(other).mteb_model_meta.revision != meta.revision
        space = cmcr.space("mini-clap")
        assert MtebEncoder(space).mteb_model_meta.revision == space.fingerprint
        ulip = MtebEncoder(cmcr.space("mini-ulip")).mteb_model_meta
        assert (ulip.name, ulip.modalities) == ("cmcr/mini-ulip", ["image"])

    def test_models_that_mteb_cannot_run_are_refused(self, connection):
        clouds = cmcr.CustomSpace("clouds", point_cloud=np.asarray, fingerprint="1")
        for model, name, message in (
            (clouds, None, "point_cloud only"),
            (dataclasses.replace(connection, encoders={}), None, "no encoders"),
            (connection, "mine", "owner/name"),
        ):
            with pytest.raises(ConfigError, match=message):
                MtebEncoder(model, name)
