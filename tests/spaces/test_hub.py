"""Published models that are not there, not whole, not what they should be, or only to be had elsewhere."""

import json
import os
import pickle
import shutil
import sys
from zipfile import ZipFile

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import KINDS, save_published

import cmcr
from cmcr.errors import ArtefactNotFoundError, ConfigError, FormatError, MissingDependencyError
from cmcr.spaces.dual_encoders import PINS
from cmcr.spaces.hub import MODEL_FILES, find_snapshot, fingerprint, read_published_tensors

pytest.importorskip("transformers")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def whole(spaces):
    assert spaces["clip"]
    return spaces.root / "clip"


@pytest.fixture
def folder(copy_of):
    return copy_of("clip")


def put_into(cache, whole, repository="someone/small-clip"):
    stored = cache / f"models--{repository.replace('/', '--')}"
    shutil.copytree(whole, stored / "snapshots" / COMMIT)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(COMMIT)
    return repository


@pytest.mark.parametrize("local_files_only", [True, False])
def test_weights_that_are_not_at_hand_are_asked_for_in_one_message(cache, local_files_only):
    for model, commit in PINS.items():
        with pytest.raises(ArtefactNotFoundError, match=f"hf download {model} --revision {commit} --include"):
            cmcr.space(model, local_files_only=local_files_only)


def test_the_pin_is_of_the_default_model_only(cache):
    for options, asked in [({"model": "openai/clip-vit-large-patch14"}, "main"), ({"revision": "abc"}, "abc")]:
        with pytest.raises(ArtefactNotFoundError, match=rf"\(revision {asked}\)"):
            cmcr.space("clip", **options)


def test_a_model_in_the_cache_is_found_and_its_commit_recorded(cache, whole):
    space = cmcr.space(put_into(cache, whole), device="cpu")
    assert (space.name, space.source, space.revision) == ("small-clip", "someone/small-clip", COMMIT)
    in_place = find_snapshot(cache / "models--someone--small-clip" / "snapshots" / COMMIT)
    for found in (in_place, find_snapshot("someone/small-clip", COMMIT, local_files_only=True)):
        assert (found.folder, found.revision) == (in_place.folder, COMMIT)


@pytest.mark.parametrize("missing", ["nothing", "weights", "shards", "a named file"])
def test_the_hub_is_asked_only_if_a_pinned_model_is_not_whole_in_the_cache(cache, whole, monkeypatch, missing):
    import huggingface_hub

    put_into(cache, whole)
    files = (*MODEL_FILES, "history.json") if missing == "a named file" else MODEL_FILES
    weights = next(cache.rglob("model.safetensors"))
    if missing in ("weights", "shards"):
        weights.unlink()
    if missing == "shards":  # their index comes first
        index = {"weight_map": {"logit_scale": "model-00001-of-00002.safetensors"}}
        weights.with_name("model.safetensors.index.json").write_text(json.dumps(index))
    asked = []
    download = huggingface_hub.snapshot_download

    def recording(*args, local_files_only, **kwargs):
        asked.append(local_files_only)
        return download(*args, local_files_only=True, **kwargs)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", recording)
    assert find_snapshot("someone/small-clip", COMMIT, files=files).revision == COMMIT
    assert asked == ([True] if missing == "nothing" else [True, False])


def test_a_folder_has_no_revision(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    found = find_snapshot("~/clip")
    assert (found.source, found.folder, found.revision) == ("~/clip", folder, None)
    with pytest.raises(ConfigError, match="revision: the folder"):
        cmcr.space("clip", model=folder, revision="main")


@pytest.mark.parametrize(
    ("kind", "refused", "message"),
    [
        ("RevisionNotFoundError", ConfigError, "'v9'"),
        ("RepositoryNotFoundError", ArtefactNotFoundError, "no such repository"),
        ("HfHubHTTPError", ArtefactNotFoundError, r"\(it says no\)"),
    ],
)
def test_what_the_hub_does_not_have(monkeypatch, kind, refused, message):
    import huggingface_hub
    from huggingface_hub import errors

    def fail(*args, **kwargs):
        error = getattr(errors, kind).__new__(getattr(errors, kind))  # its __init__ differs between versions
        error.args = ("it says no\nat length",)
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(refused, match=message):
        cmcr.space("someone/clip", revision="v9")


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./clip", "a b", "a/b/c"])
def test_names_that_can_be_neither_folder_nor_repository(name):
    with pytest.raises(ArtefactNotFoundError, match=f"{name}: no such folder"):
        cmcr.space("clip", model=name)


def test_another_kind_of_model_is_named(copy_of, whole):
    siglip = copy_of("siglip")
    for name, folder, message in [("clip", siglip, "clip, got 'siglip'"), ("clap", whole, "clap, got 'clip'")]:
        with pytest.raises(FormatError, match=message):
            cmcr.space(name, model=folder)
    (siglip / "spiece.model").unlink()
    with pytest.raises(FormatError, match=r"lacks tokenizer\.json or"):
        cmcr.space("siglip", model=siglip)
    for kind in ("bert", "embedding_gemma2"):  # the latter embeds through one language model, by a class of its own
        (siglip / "config.json").write_text(json.dumps({"model_type": kind}))
        with pytest.raises(FormatError, match=f"'{kind}' is no dual encoder"):
            cmcr.space(str(siglip))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"])
def test_what_is_missing_is_named_and_what_is_damaged_refused(folder, file):
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(FormatError, match=r"cannot be read"):
        cmcr.space("clip", model=folder)
    (folder / file).unlink()
    with pytest.raises(FormatError, match=file):
        cmcr.space("clip", model=folder)


def test_pickled_weights_are_never_read(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FormatError, match=r"never from pickled files"):
        cmcr.space("clip", model=folder)


def test_weights_that_do_not_fit_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    some = "visual_projection.weight"
    save_file({name: tensor for name, tensor in weights.items() if name != some}, folder / "model.safetensors")
    with pytest.raises(FormatError, match=f"1 missing keys, first {some}"):
        cmcr.space("clip", model=folder)
    save_file({**weights, "more": torch.ones(2)}, folder / "model.safetensors")
    with pytest.raises(FormatError, match="1 unexpected keys, first more"):
        cmcr.space("clip", model=folder)
    save_file({**weights, some: torch.ones(3, 3)}, folder / "model.safetensors")
    with pytest.raises(FormatError, match="cannot be read"):
        cmcr.space("clip", model=folder)


@pytest.mark.parametrize("kind", ["clip", "clap-fused"])
def test_counters_and_index_tables_may_be_there_or_not(spaces, kind, copy_of):
    space, folder = spaces[kind], copy_of(kind)
    weights = load_file(folder / "model.safetensors")
    derived = ("position_ids", "token_type_ids", "relative_position_index", "num_batches_tracked")
    kept = {name: tensor for name, tensor in weights.items() if not name.endswith(derived)}
    old = {} if kind != "clip" else {"text_model.embeddings.position_ids": torch.arange(24)[None]}
    for weights in (kept, kept | old):
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        assert KINDS[kind].open(folder).fingerprint == space.fingerprint


@pytest.mark.parametrize("kind", ["clip", "clap-unfused"])
def test_code_of_a_model_repository_is_not_run(spaces, kind, copy_of, tmp_path):
    folder, ran = copy_of(kind), tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Evil: pass\n")
    autos = ("AutoModel", "AutoConfig", "AutoImageProcessor", "AutoFeatureExtractor")
    for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json"):
        settings = json.loads((folder / name).read_text())
        settings["auto_map"] = {**dict.fromkeys(autos, "evil.Evil"), "AutoTokenizer": ["evil.Evil", "evil.Evil"]}
        (folder / name).write_text(json.dumps(settings))
    KINDS[kind].open(folder)
    assert not ran.exists()


def test_an_unknown_dtype_names_the_nearest(folder):
    with pytest.raises(ConfigError, match="Did you mean 'float32'"):
        cmcr.space("clip", model=folder, dtype="float33")


def test_transformers_is_asked_for(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"'cmcr\[encoders\]'"):
        cmcr.space("clip", model=folder)


def test_a_torchvision_of_another_build_is_named(monkeypatch, tmp_path, folder):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependencyError, match="pip uninstall torchvision"):
        cmcr.space("clip", model=folder)


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


class Trap:
    def __reduce__(self):
        return (os.mkdir, ("trapped",))


class TestPublishedTensors:
    @pytest.fixture
    def published(self, tmp_path):
        return save_published(tmp_path / "published.pt", {"a": torch.ones(2, 3), "steps": torch.tensor(7)})

    def test_tensors_are_read_whichever_numpy_wrote_the_numbers_beside_them(self, published, tmp_path):
        with ZipFile(published) as new, ZipFile(tmp_path / "old.pt", "w") as old:
            for name in new.namelist():
                content = new.read(name)
                assert b"numpy._core" in content or not name.endswith("data.pkl")
                old.writestr(name, content.replace(b"numpy._core", b"numpy.core"))
        for path in (published, tmp_path / "old.pt"):
            tensors = read_published_tensors(path, "")
            assert {name: tensor.tolist() for name, tensor in tensors.items()} == {"a": [[1] * 3] * 2, "steps": 7}

    def test_no_code_of_a_file_is_run(self, published, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        torch.save({"state_dict": {"a": torch.ones(1)}, "args": Trap()}, tmp_path / "trap.pt")
        with pytest.raises(FormatError, match=r"it names \w+\.mkdir\)") as caught:
            read_published_tensors(tmp_path / "trap.pt", "")
        assert "weights_only" not in str(caught.value)
        assert not (tmp_path / "trapped").exists()
        # What is allowed while a file is read is not allowed afterwards.
        with pytest.raises(pickle.UnpicklingError, match="not an allowed global"):
            torch.load(published, weights_only=True)

    def test_what_is_no_such_file_says_what_to_fetch(self, published, tmp_path):
        whole = published.read_bytes()
        damaged = (b"", b"\x80\x02}q\x00.", b"PK\x03\x04 nonsense", bytes(range(256)), whole[: len(whole) // 2])
        for name in ("x.pt", "x.safetensors"):
            with pytest.raises(ArtefactNotFoundError, match=r"Fetch it\."):
                read_published_tensors(tmp_path / name, "Fetch it.")
            for content in damaged:
                (tmp_path / name).write_bytes(content)
                with pytest.raises(FormatError, match=rf"{name}.* Fetch it\."):
                    read_published_tensors(tmp_path / name, "Fetch it.")
        for held in ([1, 2], {"state_dict": 5}, {"module": [torch.ones(1)]}):
            torch.save(held, tmp_path / "x.pt")
            with pytest.raises(FormatError, match="tensors by name"):
                read_published_tensors(tmp_path / "x.pt", "")
