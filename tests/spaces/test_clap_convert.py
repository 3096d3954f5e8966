"""Published CLAP files: written here in their layout from models whose outputs are known, tower by tower."""

import re

import numpy as np
import pytest
import torch
from small_models import clap_model, clap_tokenizer, save_published, sound
from small_parts import CLAP_PIECES, randomised

import cmcr
from cmcr.errors import ArtefactNotFoundError, FormatError, WriteError
from cmcr.spaces.clap_convert import convert

transformers = pytest.importorskip("transformers")

CAPTIONS = ["a dog barks in the rain", "water runs", "meat sizzles over the fire"]
IN_A_BLOCK = {
    "attention.self": "attn",
    "attention.self.qkv": "attn.qkv",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
}


def published_from(model):
    """The weights of a `ClapModel` under the keys of LAION's own classes, written down from those classes."""
    state, published = model.state_dict(), {}
    for key, value in state.items():
        if key.startswith("audio_model") and ".query." in key:
            value = torch.cat([state[key.replace(".query.", f".{part}.")] for part in ("query", "key", "value")])
            key = key.replace(".query.", ".qkv.")
        elif (key.startswith("audio_model") and re.search(r"\.(key|value)\.", key)) or key.endswith("_ids"):
            continue
        published[published_key(key)] = value.clone()
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
    if "blocks" in parts:
        parts = [*parts[:4], IN_A_BLOCK[".".join(parts[4:-1])], parts[-1]]
    return ".".join(["audio_branch", *parts])


LEFT_OVER = {
    "audio_branch.spectrogram_extractor.stft.conv_real.weight": torch.zeros(3, 1, 4),
    "audio_branch.logmel_extractor.melW": torch.zeros(3, 64),
    "audio_branch.tscam_conv.weight": torch.zeros(2, 3, 2, 3),
    "audio_branch.head.bias": torch.zeros(2),
    "audio_branch.layers.0.blocks.1.attn_mask": torch.zeros(4, 4, 4),
    "audio_transform.sequential.0.weight": torch.zeros(2, 2),
    "text_transform.sequential.3.bias": torch.zeros(2),
    "text_branch.embeddings.position_ids": torch.arange(130)[None],
}  # what else the published files hold, in small


@pytest.fixture(scope="module")
def weights():
    return published_from(clap_model(fused=True, bands=64))


@pytest.fixture
def converted(tmp_path):
    """Convert weights by published key."""
    clap_tokenizer().save_pretrained(tmp_path / "roberta")

    def convert_them(weights, out="clap", tokenizer=tmp_path / "roberta", **options):
        path = save_published(tmp_path / "published.pt", weights)
        return convert(path, tmp_path / out, tokenizer=tokenizer, **options)

    return convert_them


def test_the_layout_is_the_published_one(weights):
    assert {
        "logit_scale_a",
        "text_branch.encoder.layer.0.attention.self.query.weight",
        "audio_branch.bn0.running_mean",
        "audio_branch.layers.0.blocks.1.attn.qkv.weight",
        "audio_branch.layers.1.blocks.0.mlp.fc2.bias",
        "audio_branch.layers.0.downsample.reduction.weight",
        "audio_projection.2.bias",
    } <= set(weights)


@pytest.mark.parametrize("fused", [True, False])
def test_the_converted_model_is_the_same_and_random_states_stay(converted, tmp_path, fused):
    model = clap_model(fused=fused, bands=64, seed=3)
    random_states = np.random.get_state()[1].copy(), torch.get_rng_state()
    out = converted(published_from(model) | LEFT_OVER)
    np.testing.assert_array_equal(np.random.get_state()[1], random_states[0])
    assert torch.equal(torch.get_rng_state(), random_states[1])
    network = transformers.ClapModel.from_pretrained(out).eval()
    mels = torch.randn(3, 4 if fused else 1, 1001, 64, generator=torch.Generator().manual_seed(0)) * 20 - 40
    longer = torch.tensor([[True], [False], [True]])
    tokens = clap_tokenizer()(CAPTIONS, padding=True, return_tensors="pt")
    with torch.no_grad():
        for ours, theirs in [
            (network.get_audio_features(mels, longer), model.get_audio_features(mels, longer)),
            (network.get_text_features(**tokens), model.get_text_features(**tokens)),
        ]:
            assert torch.equal(ours.pooler_output, theirs.pooler_output)
    assert out == tmp_path / "clap"
    assert cmcr.space("clap", model=out, device="cpu").encode([sound(12, 1)], "audio").shape == (1, 24)


def test_the_text_tower_is_roberta_as_the_published_class_builds_it(weights, converted):
    config = transformers.RobertaConfig(
        vocab_size=len(CLAP_PIECES), type_vocab_size=1, hidden_size=128, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=130, layer_norm_eps=1e-5,
    )  # fmt: skip
    with torch.random.fork_rng():
        tower = randomised(transformers.RobertaModel(config), 1)
        head = randomised(torch.nn.Sequential(torch.nn.Linear(128, 24), torch.nn.ReLU(), torch.nn.Linear(24, 24)), 2)
    weights = {key: value for key, value in weights.items() if not key.startswith("text_")}
    weights |= {f"text_branch.{key}": value for key, value in tower.state_dict().items()}
    weights |= {f"text_projection.{key}": value for key, value in head.state_dict().items()}
    clap = cmcr.space("clap", model=converted(weights), device="cpu")
    tokens = clap_tokenizer()(CAPTIONS, padding="max_length", max_length=77, return_tensors="pt")
    with torch.no_grad():
        expected = torch.nn.functional.normalize(head(tower(**tokens).pooler_output), dim=-1)
    np.testing.assert_allclose(clap.encode(CAPTIONS, "text"), expected.numpy(), atol=1e-6)


def test_depths_and_widths_are_read_from_weights_of_half_precision(converted):
    model = clap_model(fused=False, bands=64, depths=[1, 3], num_attention_heads=[8, 2])
    half = {key: v.half() if v.is_floating_point() else v for key, v in published_from(model).items()}
    network = transformers.ClapModel.from_pretrained(converted(half))
    assert network.dtype == torch.float32
    read = network.config.audio_config
    assert (read.depths, read.num_attention_heads) == ([1, 3], [8, 2])


def test_unknown_and_missing_keys_are_named(weights, converted, tmp_path):
    wrong = weights | {"audio_branch.extra.weight": torch.zeros(1), "image_branch.w": torch.zeros(1)}
    del wrong["audio_branch.norm.bias"]
    with pytest.raises(FormatError) as caught:
        converted(wrong)
    for key in ("audio_encoder.extra.weight", "image_branch.w", "audio_model.audio_encoder.norm.bias"):
        assert key in str(caught.value)
    assert not (tmp_path / "clap").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("audio_branch.bn0.weight", torch.zeros(32), "size mismatch"),
        ("audio_branch.layers.0.blocks.0.attn.qkv.weight", torch.zeros(47, 16), "size mismatch"),
        ("text_projection.0.weight", torch.zeros(5, 5), "size mismatch"),
        ("audio_branch.layers.1.blocks.0.attn.relative_position_bias_table", torch.zeros(9), "do not fit together"),
        ("audio_branch.norm.weight", None, r"missing .*audio_encoder\.norm\.weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights, converted, key, value, message):
    others = {name: tensor for name, tensor in weights.items() if name != key}
    with pytest.raises(FormatError, match=re.compile(message, re.DOTALL)):
        converted(others if value is None else others | {key: value})


def test_other_files_say_what_to_fetch(converted):
    with pytest.raises(FormatError, match=r"not a published CLAP checkpoint.*630k-fusion-best"):
        converted({"a.weight": torch.zeros(2)})


def test_nothing_is_replaced_and_nothing_half_written(weights, converted, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(WriteError, match="already"):
        converted(weights, "taken")
    with pytest.raises(WriteError, match="could not write"):
        converted(weights, "taken/file/clap")
    assert not list(tmp_path.glob("**/.*"))


def test_the_tokenizer_must_be_there_and_be_the_right_one(weights, converted, cache, tmp_path):
    other = clap_tokenizer()
    other.add_tokens(["<another>"])
    other.save_pretrained(tmp_path / "other")
    for error, message, tokenizer in [
        (ArtefactNotFoundError, "hf download FacebookAI/roberta-base", "FacebookAI/roberta-base"),
        (FormatError, "262 tokens", tmp_path / "other"),
    ]:
        with pytest.raises(error, match=message):
            converted(weights, tokenizer=tokenizer, local_files_only=True)
