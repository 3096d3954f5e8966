"""Published models that are not there, not whole, not what they should be, or only to be had elsewhere."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from published import pictures, write_clip
from safetensors.torch import load_file, save_file

from cmcr.errors import ArtefactNotFoundError, ConfigError, FormatError, MissingDependencyError
from cmcr.spaces.clip import CLIP_REVISION, ClipSpace
from cmcr.spaces.hub import find_snapshot, fingerprint

pytest.importorskip("transformers")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("published") / "clip")


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "clip")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache of the hub, which is out of reach."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def put_into(cache, whole, repository="someone/small-clip"):
    stored = cache / f"models--{repository.replace('/', '--')}"
    shutil.copytree(whole, stored / "snapshots" / COMMIT)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(COMMIT)
    return repository


@pytest.mark.parametrize("local_files_only", [True, False])
def test_weights_that_are_not_at_hand_are_asked_for_in_one_message(cache, local_files_only):
    with pytest.raises(ArtefactNotFoundError) as caught:
        ClipSpace(local_files_only=local_files_only)
    assert str(caught.value) == (
        f"openai/clip-vit-base-patch32 (revision {CLIP_REVISION}) is not on this machine and could not be fetched.\n"
        "On a machine with a network run\n"
        f"    hf download openai/clip-vit-base-patch32 --revision {CLIP_REVISION} --include '*.json' --include '*.txt' "
        "--include '*.model' --include 'model*.safetensors' --local-dir clip-vit-base-patch32\n"
        "then copy the folder clip-vit-base-patch32 here and give its path instead of the name. Or leave out --local-dir "
        f"and copy models--openai--clip-vit-base-patch32 from the cache there into the cache here, {cache}."
    )


def test_the_pin_is_of_the_default_model_only(cache):
    with pytest.raises(ArtefactNotFoundError, match=r"openai/clip-vit-large-patch14 \(revision main\)"):
        ClipSpace("openai/clip-vit-large-patch14")
    with pytest.raises(ArtefactNotFoundError, match=r"clip-vit-base-patch32 \(revision abc\)"):
        ClipSpace(revision="abc")


def test_a_model_in_the_cache_is_found_and_its_commit_recorded(cache, whole):
    space = ClipSpace(put_into(cache, whole), device="cpu")
    assert space.revision == COMMIT
    assert space.source == "someone/small-clip"
    assert repr(space) == "ClipSpace('someone/small-clip' at 0123456789ab: image 24, text 24)"
    same = ClipSpace(space.source, revision=COMMIT, device="cpu", local_files_only=True)
    in_place = ClipSpace(cache / "models--someone--small-clip" / "snapshots" / COMMIT, device="cpu")
    assert space.fingerprint == same.fingerprint == in_place.fingerprint
    assert in_place.revision == COMMIT
    np.testing.assert_array_equal(space.encode(pictures(2), "image"), same.encode(pictures(2), "image"))


def test_a_pinned_model_in_the_cache_is_opened_without_asking_the_hub(cache, whole, monkeypatch):
    import huggingface_hub

    put_into(cache, whole)
    asked = []
    download = huggingface_hub.snapshot_download

    def recording(*args, local_files_only, **kwargs):
        asked.append(local_files_only)
        return download(*args, local_files_only=local_files_only, **kwargs)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", recording)
    assert find_snapshot("someone/small-clip", COMMIT).revision == COMMIT
    assert asked == [True]


def test_a_pinned_model_that_is_half_in_the_cache_is_asked_for(cache, whole, monkeypatch):
    import huggingface_hub

    put_into(cache, whole)
    next(cache.rglob("model.safetensors")).unlink()
    asked = []
    download = huggingface_hub.snapshot_download

    def recording(*args, local_files_only, **kwargs):
        asked.append(local_files_only)
        return download(*args, local_files_only=True, **kwargs)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", recording)
    find_snapshot("someone/small-clip", COMMIT)
    assert asked == [True, False]


def test_the_hub_client_keeps_its_retries_to_itself(caplog, monkeypatch):
    import logging

    import huggingface_hub
    from huggingface_hub import errors

    def fail(*args, **kwargs):
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        raise errors.LocalEntryNotFoundError("not here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    before = logging.getLogger("huggingface_hub").level
    with pytest.raises(ArtefactNotFoundError, match="is not on this machine"):
        find_snapshot("someone/small-clip")
    assert caplog.text == ""
    assert logging.getLogger("huggingface_hub").level == before


def test_a_folder_has_no_revision(folder):
    assert ClipSpace(folder, device="cpu").revision is None
    assert ClipSpace(str(folder), device="cpu").source == str(folder)
    with pytest.raises(ConfigError, match=r"revision: the folder .* has none, got 'main'"):
        ClipSpace(folder, revision="main")


def answer(monkeypatch, kind):
    """Let the hub's client fail as it does when the hub answers."""
    import huggingface_hub
    from huggingface_hub import errors

    def fail(*args, **kwargs):
        error = getattr(errors, kind).__new__(getattr(errors, kind))  # its __init__ differs between versions
        error.args = ("it says no\nat length",)
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)


def test_what_the_hub_does_not_have(monkeypatch):
    answer(monkeypatch, "RevisionNotFoundError")
    with pytest.raises(ConfigError, match="revision: someone/clip has no commit, tag or branch 'v9'"):
        ClipSpace("someone/clip", revision="v9")
    answer(monkeypatch, "RepositoryNotFoundError")
    with pytest.raises(ArtefactNotFoundError, match="someone/clip: the hub has no such repository, or it is private"):
        ClipSpace("someone/clip")
    answer(monkeypatch, "HfHubHTTPError")
    with pytest.raises(ArtefactNotFoundError, match=r"could not be fetched \(it says no\)\.\nOn a machine"):
        ClipSpace("someone/clip")


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./clip", "a b", "a/b/c", ""])
def test_names_that_can_be_neither_folder_nor_repository(name):
    if name:
        with pytest.raises(ArtefactNotFoundError, match=f"{name}: no such folder, and not the name of a repository"):
            ClipSpace(name)
    else:
        with pytest.raises(FormatError, match="not a model"):
            ClipSpace(name)  # the empty path is the working directory


def test_another_kind_of_model_is_named(folder):
    from transformers import BertConfig

    BertConfig().save_pretrained(folder)
    with pytest.raises(FormatError, match="ClipSpace reads models of type 'clip', but this one is 'bert'"):
        ClipSpace(folder)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "has no config.json"),
        (
            "model.safetensors",
            r"lacks model\.safetensors or model\.safetensors\.index\.json\. Weights are read from safe",
        ),
        ("preprocessor_config.json", r"lacks preprocessor_config\.json or processor_config\.json\.$"),
        ("tokenizer.json", r"lacks tokenizer\.json or vocab\.json and merges\.txt\.$"),
    ],
)
def test_what_is_missing_is_named(folder, file, message):
    (folder / file).unlink()
    with pytest.raises(FormatError, match=message):
        ClipSpace(folder)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"])
def test_damaged_files_are_refused(folder, file):
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match=r"cannot be read|not a description of a model"):
        ClipSpace(folder)


def test_pickled_weights_are_never_read(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FormatError, match=r"never from pickled files such as pytorch_model\.bin"):
        ClipSpace(folder)


def test_weights_that_do_not_fit_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    some = "visual_projection.weight"
    save_file({name: tensor for name, tensor in weights.items() if name != some}, folder / "model.safetensors")
    with pytest.raises(FormatError, match=rf"not a CLIPModel, 1 missing keys, first {some}"):
        ClipSpace(folder)
    save_file({**weights, "more": torch.ones(2)}, folder / "model.safetensors")
    with pytest.raises(FormatError, match="not a CLIPModel, 1 unexpected keys, first more"):
        ClipSpace(folder)
    save_file({**weights, some: torch.ones(3, 3)}, folder / "model.safetensors")
    with pytest.raises(FormatError, match="cannot be read"):
        ClipSpace(folder)


def test_weights_of_old_versions_with_position_indices_are_taken(folder):
    weights = load_file(folder / "model.safetensors")
    old = {**weights, "text_model.embeddings.position_ids": torch.arange(24)[None]}
    save_file(old, folder / "model.safetensors")
    assert ClipSpace(folder, device="cpu").widths["text"] == 24


def test_code_of_a_model_repository_is_not_run(folder):
    ran = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Evil: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"}
    (folder / "config.json").write_text(json.dumps(config))
    ClipSpace(folder, device="cpu")
    assert not ran.exists()


def test_an_unknown_dtype(folder):
    with pytest.raises(ConfigError, match=r"unknown dtype 'float31'\. Did you mean 'float32'\?"):
        ClipSpace(folder, dtype="float31")


def test_transformers_is_asked_for(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        MissingDependencyError, match=r"transformers is not installed; .*pip install 'cmcr\[encoders\]'"
    ):
        ClipSpace(folder)


def test_the_fingerprint_knows_names_shapes_types_and_values():
    weights = {"a": torch.arange(6.0), "b": torch.tensor(1.0)}
    first = fingerprint(weights, {"x": 1, "y": [2]})
    assert first == fingerprint(dict(reversed(weights.items())), {"y": [2], "x": 1})
    others = [
        fingerprint({"a": weights["a"], "c": weights["b"]}, {"x": 1, "y": [2]}),
        fingerprint({**weights, "a": weights["a"].reshape(2, 3)}, {"x": 1, "y": [2]}),
        fingerprint({**weights, "a": weights["a"].view(torch.int32)}, {"x": 1, "y": [2]}),
        fingerprint({**weights, "b": torch.tensor(1.5)}, {"x": 1, "y": [2]}),
        fingerprint(weights, {"x": 1, "y": [3]}),
    ]
    assert len({first, *others}) == 6
    assert fingerprint({"a": torch.ones(4, 6)[:, ::2]}, {}) == fingerprint({"a": torch.ones(4, 3)}, {})


def test_the_home_folder_is_written_as_a_tilde(monkeypatch, folder):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert find_snapshot("~/clip").folder == folder
