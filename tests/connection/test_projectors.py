from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import reference.projectors as twin
from cmcr.connection.projectors import CLAP_CLIP_SHAPE, ULIP_CLIP_SHAPE, Projector, ProjectorShape
from cmcr.errors import ConfigError, DimensionError
from reference.enhancement import normalize

SMALL = {
    "single layer": ProjectorShape(3),
    "single layer, ReLU": ProjectorShape(6, final_relu=True),
    "two layers": ProjectorShape(3, (6,)),
    "two layers, ReLU": ProjectorShape(6, (4,), final_relu=True),
    "three layers": ProjectorShape(2, (5, 4)),
}
PUBLISHED = {"CLAP-CLIP": CLAP_CLIP_SHAPE, "ULIP-CLIP": ULIP_CLIP_SHAPE}


def made(width_in, shape, seed=0):
    """A projector none of whose numbers is at its usual start, so that each of them shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    projector = Projector(width_in, shape)
    for name, value in projector.state_dict().items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=generator)
            value.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else drawn)
    return projector


def layers_of(projector):
    state = {name: value.double().numpy().copy() for name, value in projector.state_dict().items()}
    return twin.layers_from(state, final_relu=projector.shape.final_relu)


@pytest.mark.parametrize("shape", SMALL)
@pytest.mark.parametrize("batch", [1, 5])
def test_inference_equals_its_twin(rng, shape, batch):
    projector = made(4, SMALL[shape]).eval()
    x = normalize(rng.normal(size=(batch, 4)))
    expected = twin.project(x, layers_of(projector))
    with torch.no_grad():
        np.testing.assert_allclose(projector(torch.from_numpy(x).float()).numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(projector.double()(torch.from_numpy(x)).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("name", PUBLISHED)
def test_inference_of_the_published_shapes_equals_its_twin(rng, name):
    projector = made(512, PUBLISHED[name]).eval()
    x = normalize(rng.normal(size=(3, 512)))
    expected = twin.project(x, layers_of(projector))
    with torch.no_grad():
        np.testing.assert_allclose(projector(torch.from_numpy(x).float()).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("shape", SMALL)
@pytest.mark.parametrize("batch_norm", ["together", "apart"])
def test_training_equals_its_twin(rng, shape, batch_norm):
    projector = made(4, SMALL[shape]).double().train()
    overlap = normalize(rng.normal(size=(6, 4)))
    consistent = normalize(
        rng.normal(size=(6, 4)) + 2.0
    )  # a gap between the modalities, so that their statistics differ
    first, second, layers = twin.project_both(overlap, consistent, layers_of(projector), batch_norm)
    got = projector.project_both(torch.from_numpy(np.concatenate([overlap, consistent])), batch_norm)
    np.testing.assert_allclose(got[0].detach().numpy(), first, atol=1e-12)
    np.testing.assert_allclose(got[1].detach().numpy(), second, atol=1e-12)
    for expected, kept in zip(layers, layers_of(projector), strict=True):
        np.testing.assert_allclose(kept["mean"], expected["mean"], atol=1e-12)
        np.testing.assert_allclose(kept["variance"], expected["variance"], atol=1e-12)


def test_together_and_apart_differ_in_training_only(rng):
    overlap, consistent = normalize(rng.normal(size=(6, 4))), normalize(rng.normal(size=(6, 4)) + 2.0)
    both = torch.from_numpy(np.concatenate([overlap, consistent])).float()
    with torch.no_grad():
        together = torch.cat(made(4, SMALL["two layers"]).train().project_both(both, "together"))
        apart = torch.cat(made(4, SMALL["two layers"]).train().project_both(both, "apart"))
        assert (together - apart).abs().max() > 0.1
        projector = made(4, SMALL["two layers"]).eval()
        together = torch.cat(projector.project_both(both, "together"))
        apart = torch.cat(projector.project_both(both, "apart"))
        np.testing.assert_allclose(together.numpy(), apart.numpy(), atol=1e-6)


def test_inference_does_not_depend_on_the_batch(rng):
    projector = made(4, SMALL["two layers"]).eval()
    x = torch.from_numpy(normalize(rng.normal(size=(5, 4)))).float()
    with torch.no_grad():
        one_by_one = torch.cat([projector(row[None]) for row in x])
        np.testing.assert_allclose(projector(x).numpy(), one_by_one.numpy(), atol=1e-6)


def test_a_row_that_the_last_relu_empties_stays_zero():
    projector = Projector(2, ProjectorShape(2, final_relu=True)).eval()
    with torch.no_grad():
        projector.linears[0].weight.copy_(torch.eye(2))
        projector.linears[0].bias.zero_()
        result = projector(torch.tensor([[-0.6, -0.8], [0.6, -0.8]]))
    np.testing.assert_allclose(result.numpy(), [[0.0, 0.0], [1.0, 0.0]], atol=1e-6)


@pytest.mark.parametrize("shape", SMALL)
def test_biases_before_a_batch_normalisation_start_at_zero_and_are_frozen(shape):
    projector = Projector(4, SMALL[shape])
    frozen = {name for name, parameter in projector.named_parameters() if not parameter.requires_grad}
    assert frozen == {f"linears.{number}.bias" for number in range(len(projector.linears))}
    for linear in projector.linears:
        assert torch.count_nonzero(linear.bias) == 0
        assert torch.count_nonzero(linear.weight) == linear.weight.numel()


@pytest.mark.parametrize("shape", SMALL)
def test_weights_with_biases_can_be_loaded(rng, shape):
    state = made(4, SMALL[shape], seed=1).state_dict()
    projector = Projector(4, SMALL[shape])
    projector.load_state_dict(state, strict=True)
    for number, linear in enumerate(projector.linears):
        assert torch.equal(linear.bias, state[f"linears.{number}.bias"])
        assert torch.count_nonzero(linear.bias) == linear.bias.numel()
        assert not linear.bias.requires_grad
    x = normalize(rng.normal(size=(5, 4)))
    numbers = {name: value.double().numpy() for name, value in state.items()}
    layers = twin.layers_from(numbers, final_relu=SMALL[shape].final_relu)
    with torch.no_grad():
        got = projector.eval()(torch.from_numpy(x).float()).numpy()
    np.testing.assert_allclose(got, twin.project(x, layers), atol=1e-5)
    without = [{**layer, "bias": np.zeros_like(layer["bias"])} for layer in layers]
    assert np.abs(twin.project(x, without) - got).max() > 0.01  # inference does not cancel them


def test_published_shapes_are_those_of_the_published_weights():
    def widths(shape):
        return [(layer.in_features, layer.out_features) for layer in Projector(512, shape).linears]

    assert widths(CLAP_CLIP_SHAPE) == [(512, 1024), (1024, 512)]
    assert not CLAP_CLIP_SHAPE.final_relu
    assert widths(ULIP_CLIP_SHAPE) == [(512, 512)]
    assert ULIP_CLIP_SHAPE.final_relu


FIXTURES = Path(__file__).parents[2].parent / "shared" / "fixtures" / "projectors"


@pytest.mark.skipif(not FIXTURES.is_dir(), reason=f"the published projectors are not at {FIXTURES}")
@pytest.mark.parametrize(
    ("file", "shape", "head", "space"),
    [
        ("ulip_clip", ULIP_CLIP_SHAPE, "Head_A", "clip"),
        ("ulip_clip", ULIP_CLIP_SHAPE, "Head_B", "ulip"),
        ("clap_clip.random", CLAP_CLIP_SHAPE, "Head_A", "clap"),
        ("clap_clip.random", CLAP_CLIP_SHAPE, "Head_B", "clip"),
    ],
)
def test_published_weights_give_the_published_outputs(file, shape, head, space):
    weights = torch.load(FIXTURES / f"{file}.pt", weights_only=True, map_location="cpu")
    samples = load_file(FIXTURES / f"{file.split('.')[0]}.expected.safetensors")
    state = twin.published_names(weights, head)
    projector = Projector(512, shape)
    assert all(torch.count_nonzero(value) for name, value in state.items() if name.endswith("bias"))
    projector.load_state_dict(state, strict=True)
    with torch.no_grad():
        result = projector.eval()(torch.from_numpy(samples[space])).numpy()
    expected = samples[f"{space}_projected"]
    np.testing.assert_allclose(result, expected, atol=1e-6)
    layers = twin.layers_from(state, final_relu=shape.final_relu)
    np.testing.assert_allclose(twin.project(samples[space], layers), expected, atol=1e-6)


@pytest.mark.parametrize("width", [3, 5])
def test_another_width_is_refused(width):
    with pytest.raises(DimensionError, match=rf"^expected shape \(B, 4\), got \(2, {width}\)\.$"):
        Projector(4, SMALL["two layers"])(torch.ones(2, width))


def test_a_single_embedding_is_refused():
    with pytest.raises(DimensionError, match=r"^expected shape \(B, 4\), got \(4,\)\.$"):
        Projector(4, SMALL["two layers"])(torch.ones(4))


@pytest.mark.parametrize(("width", "hidden"), [(0, ()), (-1, ()), (2.0, ()), (3, (0,)), (3, (4, 1.5))])
def test_impossible_widths_are_refused(width, hidden):
    with pytest.raises(ConfigError) as caught:
        ProjectorShape(width, hidden)
    assert str(caught.value) == f"projector widths must be whole numbers of at least 1, got {hidden} and {width}."
