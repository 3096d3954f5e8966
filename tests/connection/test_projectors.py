"""The projectors against their equations, in training and in inference."""

import numpy as np
import pytest
import torch

import reference.projectors as twin
from cmcr.connection.projectors import Projector
from cmcr.connection.settings import CLAP_CLIP_SHAPE, ULIP_CLIP_SHAPE, ProjectorShape
from cmcr.connection.training import project_both
from cmcr.errors import DimensionError
from connection.trained import layers_of
from engine.rows import random_rows
from reference.enhancement import normalize

SMALL = {
    "single layer": ProjectorShape(width=3),
    "single layer, ReLU": ProjectorShape(width=6, final_relu=True),
    "two layers": ProjectorShape(width=3, hidden=(6,)),
    "two layers, ReLU": ProjectorShape(width=6, hidden=(4,), final_relu=True),
    "three layers": ProjectorShape(width=2, hidden=(5, 4)),
}
PUBLISHED = {"CLAP-CLIP": CLAP_CLIP_SHAPE, "ULIP-CLIP": ULIP_CLIP_SHAPE}


def drawn(width_in, shape, seed=0):
    """A projector none of whose numbers is at its usual start, so that each of them shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    projector = Projector(width_in, shape)
    for name, value in projector.state_dict().items():
        if value.is_floating_point():
            numbers = torch.randn(value.shape, generator=generator)
            value.copy_(numbers.abs() + 0.5 if name.endswith("running_var") else numbers)
    return projector


@pytest.mark.parametrize("name", [*SMALL, *PUBLISHED])
@pytest.mark.parametrize("batch", [1, 5])
def test_inference_equals_its_twin(name, batch):
    width_in = 512 if name in PUBLISHED else 4
    projector = drawn(width_in, {**SMALL, **PUBLISHED}[name]).eval()
    x = random_rows(batch, width_in, 0)
    layers = layers_of(projector)
    expected = twin.project(x, layers)
    with torch.no_grad():
        np.testing.assert_allclose(projector(x.float()).numpy(), expected, atol=1e-5)
        found = projector.double()(x).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-12)
        one_by_one = torch.cat([projector(row[None]) for row in x]).numpy()
        np.testing.assert_allclose(one_by_one, found, atol=1e-12)
    without = [{**layer, "bias": np.zeros_like(layer["bias"])} for layer in layers]
    assert np.abs(twin.project(x, without) - found).max() > 0.01  # published biases count in inference


@pytest.mark.parametrize("shape", SMALL)
@pytest.mark.parametrize("batch_norm", ["together", "apart"])
def test_training_equals_its_twin(shape, batch_norm):
    projector = drawn(4, SMALL[shape]).double().train()
    # A gap between the modalities, so that their statistics differ.
    overlap, consistent = random_rows(6, 4, 0).numpy(), normalize(random_rows(6, 4, 1).numpy() + 0.7)
    first, second, layers = twin.project_both(overlap, consistent, layers_of(projector), batch_norm)
    found = project_both(projector, torch.from_numpy(overlap), torch.from_numpy(consistent), batch_norm)
    np.testing.assert_allclose(found[0].detach().numpy(), first, atol=1e-12)
    np.testing.assert_allclose(found[1].detach().numpy(), second, atol=1e-12)
    for expected, kept in zip(layers, layers_of(projector), strict=True):
        np.testing.assert_allclose(kept["mean"], expected["mean"], atol=1e-12)
        np.testing.assert_allclose(kept["variance"], expected["variance"], atol=1e-12)


def test_a_row_that_the_last_relu_empties_stays_zero():
    projector = Projector(2, ProjectorShape(width=2, final_relu=True)).eval()
    with torch.no_grad():
        projector.linears[0].weight.copy_(torch.eye(2))
        result = projector(torch.tensor([[-0.6, -0.8], [0.6, -0.8]]))
    np.testing.assert_allclose(result.numpy(), [[0.0, 0.0], [1.0, 0.0]], atol=1e-6)


@pytest.mark.parametrize("shape", SMALL)
def test_biases_before_a_batch_normalisation_start_at_zero_and_are_frozen(shape):
    projector = Projector(4, SMALL[shape])
    frozen = {name for name, parameter in projector.named_parameters() if not parameter.requires_grad}
    assert frozen == {f"linears.{number}.bias" for number in range(len(projector.linears))}
    assert not any(linear.bias.any() for linear in projector.linears)
    assert all(linear.weight.all() for linear in projector.linears)


def test_published_shapes_are_those_of_the_published_weights():
    def widths(shape):
        return [(layer.in_features, layer.out_features) for layer in Projector(512, shape).linears]

    assert widths(CLAP_CLIP_SHAPE) == [(512, 1024), (1024, 512)]
    assert not CLAP_CLIP_SHAPE.final_relu
    assert widths(ULIP_CLIP_SHAPE) == [(512, 512)]
    assert ULIP_CLIP_SHAPE.final_relu


@pytest.mark.parametrize("rows", [torch.ones(2, 3), torch.ones(2, 5), torch.ones(4), torch.ones(1, 2, 4)])
def test_rows_of_another_shape_are_refused(rows):
    with pytest.raises(DimensionError, match=r"expected shape \(B, 4\)"):
        Projector(4, SMALL["two layers"])(rows)
