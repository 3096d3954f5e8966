"""Published CLAP files: written here in their layout from models whose outputs are known, tower by tower."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import CAPTIONS, clap_config, clap_tokenizer, random_clap, sound

from cmcr.errors import ArtefactNotFoundError, FormatError, WriteError
from cmcr.spaces.clap import ClapSpace
from cmcr.spaces.clap_convert import convert

transformers = pytest.importorskip("transformers")


def published_from(model):
    """The weights of a `ClapModel` under the keys of LAION's own classes, written down from those classes."""
    published = {}
    for key, value in model.state_dict().items():
        if key.endswith(("position_ids", "token_type_ids")):
            continue
        if (named := published_key(key)) is not None:
            published[named] = value.clone()
        elif ".query." in key:
            parts = [model.state_dict()[key.replace(".query.", f".{part}.")] for part in ("query", "key", "value")]
            published[published_key(key.replace(".query.", ".qkv."))] = torch.cat(parts)
    return published


def published_key(key):
    """One key by string surgery from the end to the front, so as not to be the converter's table read backwards."""
    if key.startswith("text_model."):
        return "text_branch." + key.removeprefix("text_model.")
    if key.startswith(("text_projection.", "audio_projection.")):
        tower, layer, kind = key.split(".")
        return f"{tower}.{ {'linear1': 0, 'linear2': 2}[layer] }.{kind}"
    if not key.startswith("audio_model."):
        return key  # the two temperatures
    parts = key.split(".")[2:]
    if parts[0] == "batch_norm":
        return f"audio_branch.bn0.{parts[1]}"
    if "blocks" not in parts:
        return ".".join(["audio_branch", *parts])
    block, inside, last = parts[:4], parts[4:-1], parts[-1]
    if inside in (["attention", "self", "query"], ["attention", "self", "key"], ["attention", "self", "value"]):
        return None
    names = {
        "attention.self": "attn",
        "attention.self.qkv": "attn.qkv",
        "attention.output.dense": "attn.proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
    }
    return ".".join(["audio_branch", *block, names[".".join(inside)], last])


def left_over():
    """What else the published files hold, in small."""
    return {
        "audio_branch.spectrogram_extractor.stft.conv_real.weight": torch.zeros(3, 1, 4),
        "audio_branch.logmel_extractor.melW": torch.zeros(3, 64),
        "audio_branch.tscam_conv.weight": torch.zeros(2, 3, 2, 3),
        "audio_branch.head.bias": torch.zeros(2),
        "audio_branch.layers.0.blocks.1.attn_mask": torch.zeros(4, 4, 4),
        "audio_transform.sequential.0.weight": torch.zeros(2, 2),
        "text_transform.sequential.3.bias": torch.zeros(2),
        "text_branch.embeddings.position_ids": torch.arange(130)[None],
    }


def save(path, weights, **bookkeeping):
    state = {f"module.{key}": value for key, value in weights.items()}
    torch.save({"epoch": 14, "name": "a run", "state_dict": state, **bookkeeping}, path)
    return path


@pytest.fixture(scope="module", params=["fused", "unfused"])
def model(request):
    return random_clap(clap_config(fused=request.param == "fused", seconds=10), seed=3)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("roberta")
    clap_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def published(model, tmp_path):
    return save(tmp_path / "published.pt", published_from(model) | left_over(), best=np.float64(0.5), step=np.int64(3))


def test_the_layout_is_the_published_one(model):
    keys = set(published_from(model))
    assert {
        "logit_scale_a",
        "text_branch.encoder.layer.0.attention.self.query.weight",
        "audio_branch.bn0.running_mean",
        "audio_branch.patch_embed.proj.weight",
        "audio_branch.layers.0.blocks.1.attn.qkv.weight",
        "audio_branch.layers.0.blocks.1.attn.relative_position_index",
        "audio_branch.layers.1.blocks.0.mlp.fc2.bias",
        "audio_branch.layers.0.downsample.reduction.weight",
        "audio_branch.norm.weight",
        "audio_projection.2.bias",
    } <= keys
    assert not [key for key in keys if re.search(r"audio_model|layernorm|\.dense\.|query", key) and "text" not in key]


def test_both_towers_give_the_same_outputs(model, published, tokenizer, tmp_path):
    out = convert(published, tmp_path / "clap", tokenizer=tokenizer)
    assert out == tmp_path / "clap"
    clap = ClapSpace(out, device="cpu")
    network = clap._model
    assert network.config.audio_config.enable_fusion == model.config.audio_config.enable_fusion
    mels = torch.randn(3, 4 if clap._fused else 1, 1001, 64, generator=torch.Generator().manual_seed(0)) * 20 - 40
    longer = torch.tensor([[True], [False], [True]])
    tokens = clap_tokenizer()(CAPTIONS, padding=True, return_tensors="pt")
    with torch.no_grad():
        for ours, theirs in [
            (network.get_audio_features(mels, longer), model.get_audio_features(mels, longer)),
            (network.get_text_features(**tokens), model.get_text_features(**tokens)),
        ]:
            assert torch.equal(ours.pooler_output, theirs.pooler_output)
    assert clap.encode([sound(12, 1)], "audio").shape == (1, 24)
    state, before = network.state_dict(), model.state_dict()
    assert set(state) == set(before)
    assert all(torch.equal(state[key], before[key]) for key in state)


def test_the_text_tower_is_roberta_as_the_published_class_builds_it(model, tokenizer, tmp_path):
    text = clap_config(fused=False, seconds=10).text_config
    sizes = "hidden_size num_hidden_layers num_attention_heads intermediate_size max_position_embeddings layer_norm_eps"
    config = transformers.RobertaConfig(
        vocab_size=300, type_vocab_size=1, **{name: getattr(text, name) for name in sizes.split()}
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        tower = transformers.RobertaModel(config).eval()
        head = torch.nn.Sequential(torch.nn.Linear(128, 24), torch.nn.ReLU(), torch.nn.Linear(24, 24))
    weights = {key: value for key, value in published_from(model).items() if not key.startswith("text_")}
    weights |= {f"text_branch.{key}": value for key, value in tower.state_dict().items()}
    weights |= {f"text_projection.{key}": value for key, value in head.state_dict().items()}
    clap = ClapSpace(convert(save(tmp_path / "p.pt", weights), tmp_path / "clap", tokenizer=tokenizer), device="cpu")
    tokens = clap_tokenizer()(CAPTIONS, padding="max_length", max_length=77, return_tensors="pt")
    with torch.no_grad():
        expected = torch.nn.functional.normalize(head(tower(**tokens).pooler_output), dim=-1)
    np.testing.assert_allclose(clap.encode(CAPTIONS, "text"), expected.numpy(), atol=1e-6)


def test_depths_and_widths_are_read_from_bare_weights_of_half_precision(tokenizer, tmp_path):
    config = clap_config(fused=False, seconds=10)
    config.audio_config.depths, config.audio_config.num_attention_heads = [1, 3], [8, 2]
    config.audio_config.window_size, config.audio_config.mlp_ratio = 4, 2.0
    model = random_clap(config)
    half = {key: v.half() if v.is_floating_point() else v for key, v in published_from(model).items()}
    torch.save(half, tmp_path / "p.pt")
    network = ClapSpace(convert(tmp_path / "p.pt", tmp_path / "clap", tokenizer=tokenizer), device="cpu")._model
    assert network.dtype == torch.float32
    read = network.config.audio_config
    assert (read.depths, read.num_attention_heads, read.window_size, read.mlp_ratio) == ([1, 3], [8, 2], 4, 2.0)


def test_unknown_and_missing_keys_are_named(model, tokenizer, tmp_path):
    weights = published_from(model) | {"audio_branch.extra.weight": torch.zeros(1), "image_branch.w": torch.zeros(1)}
    del weights["audio_branch.norm.bias"]
    with pytest.raises(FormatError) as caught:
        convert(save(tmp_path / "p.pt", weights), tmp_path / "clap", tokenizer=tokenizer)
    for key in ("audio_encoder.extra.weight", "image_branch.w", "audio_model.audio_encoder.norm.bias"):
        assert key in str(caught.value)
    assert not (tmp_path / "clap").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("audio_branch.bn0.weight", torch.zeros(32), "64 mel bands"),
        ("audio_branch.layers.0.blocks.0.attn.qkv.weight", torch.zeros(47, 16), "three equal parts"),
        ("text_projection.0.weight", torch.zeros(5, 5), "size mismatch"),
        ("audio_branch.patch_embed.proj.weight", torch.zeros(5), "do not fit together"),
        ("audio_branch.layers.1.blocks.0.attn.relative_position_bias_table", torch.zeros(9, 5), "do not fit together"),
        ("audio_branch.norm.weight", None, r"missing .*audio_encoder\.norm\.weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused(model, tokenizer, tmp_path, key, value, message):
    weights = published_from(model)
    weights.pop(key)
    path = save(tmp_path / "p.pt", weights if value is None else weights | {key: value})
    with pytest.raises(FormatError, match=re.compile(message, re.DOTALL)):
        convert(path, tmp_path / "clap", tokenizer=tokenizer)


def test_other_files_say_what_to_fetch(tokenizer, tmp_path):
    with pytest.raises(ArtefactNotFoundError, match="630k-fusion-best"):
        convert(tmp_path / "p.pt", tmp_path / "clap", tokenizer=tokenizer)
    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "p.pt")
    with pytest.raises(FormatError, match=r"not a published CLAP checkpoint.*630k-fusion-best"):
        convert(tmp_path / "p.pt", tmp_path / "clap", tokenizer=tokenizer)


def test_nothing_is_replaced_and_nothing_half_written(published, tokenizer, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").touch()
    with pytest.raises(WriteError, match="already"):
        convert(published, tmp_path / "taken", tokenizer=tokenizer)
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="could not write"):
        convert(published, tmp_path / "file" / "clap", tokenizer=tokenizer)
    assert not list(Path(tmp_path).glob(".*"))


def test_the_tokenizer_must_be_there_and_be_the_right_one(published, cache, tmp_path):
    def refused(error, message, **options):
        with pytest.raises(error, match=message):
            convert(published, tmp_path / "clap", **options)

    refused(ArtefactNotFoundError, "none: no such folder", tokenizer=tmp_path / "none")
    refused(ArtefactNotFoundError, "hf download FacebookAI/roberta-base", local_files_only=True)
    (tmp_path / "empty").mkdir()
    refused(FormatError, r"lacks tokenizer\.json", tokenizer=tmp_path / "empty")
    other = clap_tokenizer()
    other.add_tokens(["<another>"])
    other.save_pretrained(tmp_path / "other")
    refused(FormatError, "301 tokens", tokenizer=tmp_path / "other")


def test_random_states_stay_as_they_were(published, tokenizer, tmp_path):
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()
    convert(published, tmp_path / "clap", tokenizer=tokenizer)
    assert torch.equal(torch.get_rng_state(), torch_before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)
