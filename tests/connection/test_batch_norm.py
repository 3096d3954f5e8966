"""Batch normalisation of a shared batch, by processes that are threads here."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from cmcr.connection.batch_norm import normalized_batch
from cmcr.connection.peers import Peers
from cmcr.connection.projectors import Projector, ProjectorShape
from connection.together import together

TOTALS = ((4, 3), (1, 6), (0, 7), (3, 2, 2))


def made(width):
    norm = nn.BatchNorm1d(width)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in (norm.weight, norm.bias, norm.running_mean):
            value.copy_(torch.randn(width, generator=generator))
    return norm


@pytest.mark.parametrize("counts", TOTALS)
def test_processes_normalise_as_one_does(rng, counts):
    rows = torch.from_numpy(rng.normal(loc=30.0, size=(7, 5))).float()  # a mean that would cancel in E x^2 - (E x)^2
    slope = torch.from_numpy(rng.normal(size=(7, 5))).float()
    one, asked = made(5), rows.clone().requires_grad_()
    expected = one(asked)
    (expected * slope).sum().backward()
    parts, slopes = rows.split(counts), slope.split(counts)

    def work(peers):
        norm, own = made(5), parts[peers.rank].clone().requires_grad_()
        result = normalized_batch(norm, own, peers)
        (result * slopes[peers.rank]).sum().backward()
        return norm, result.detach(), own.grad

    done = together(len(counts), work)
    np.testing.assert_allclose(torch.cat([result for _, result, _ in done]), expected.detach(), rtol=0, atol=2e-5)
    np.testing.assert_allclose(torch.cat([grad for _, _, grad in done]), asked.grad, rtol=0, atol=2e-5)
    for parameter in ("weight", "bias"):
        summed = sum(getattr(norm, parameter).grad for norm, _, _ in done)
        np.testing.assert_allclose(summed, getattr(one, parameter).grad, rtol=0, atol=2e-5)
    for norm, _, _ in done:
        np.testing.assert_allclose(norm.running_mean, one.running_mean, rtol=1e-6)
        np.testing.assert_allclose(norm.running_var, one.running_var, rtol=1e-5)
        assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("batch_norm", ["together", "apart"])
def test_projectors_share_a_batch(rng, batch_norm):
    alone = Projector(4, ProjectorShape(3, (6,))).double().train()
    overlap, consistent = (torch.from_numpy(rng.normal(size=(7, 4)) + gap) for gap in (0.0, 2.0))
    slope = torch.from_numpy(rng.normal(size=(2, 7, 3)))
    copies = [copy.deepcopy(alone) for _ in range(2)]
    expected = torch.stack(alone.project_both(torch.cat([overlap, consistent]), batch_norm))
    (expected * slope).sum().backward()

    def work(peers):
        part = peers.part_of(7)
        both = torch.cat([overlap[part], consistent[part]])
        projected = torch.stack(copies[peers.rank].project_both(both, batch_norm, peers))
        (projected * slope[:, part]).sum().backward()
        return projected.detach()

    done = together(2, work)
    np.testing.assert_allclose(torch.cat(done, dim=1), expected.detach(), rtol=0, atol=1e-12)
    for name, parameter in alone.named_parameters():
        if parameter.requires_grad:
            summed = sum(dict(one.named_parameters())[name].grad for one in copies)
            np.testing.assert_allclose(summed, parameter.grad, rtol=0, atol=1e-12, err_msg=name)
    for name, value in alone.state_dict().items():
        np.testing.assert_allclose(copies[0].state_dict()[name], value, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("training", [True, False])
def test_one_process_takes_torchs_own(rng, training):
    rows = torch.from_numpy(rng.normal(size=(7, 5))).float()
    norm, own = made(5).train(training), made(5).train(training)
    for peers in (None, Peers()):
        assert torch.equal(normalized_batch(own, rows, peers), norm(rows))
    if not training:
        assert torch.equal(normalized_batch(own, rows, Peers(0, 2)), norm(rows))
