"""What a step changes: as torch's own AdamW would, bit for bit, and never a view of the file that it was read from."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from cmcr.connection.learner import AdamW, Learner
from cmcr.connection.losses import LossTerms
from cmcr.connection.peers import Peers
from cmcr.connection.projectors import Projector, ProjectorShape
from cmcr.connection.settings import Settings


def learner(seed=0, total=9):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        projectors = tuple(Projector(width, ProjectorShape(width=4, hidden=(5,))).train() for width in (3, 6))
    return Learner(projectors, Settings(learning_rate=0.1), total, Peers())


def descended(made, steps):
    """Take steps on a loss that depends on the step alone."""
    for _ in range(steps):
        drawn = torch.Generator().manual_seed(made.step)
        left, right = (p(torch.randn(7, p.width_in, generator=drawn)) for p in made.projectors)
        made.descend(LossTerms(*[(left * right).sum() / 5] * len(LossTerms._fields)))
    return made


@pytest.mark.parametrize("weight_decay", [0.0, 0.01, 0.5])
def test_its_steps_are_those_of_torch_bit_for_bit(weight_decay):
    drawn = torch.Generator().manual_seed(0)
    own = [torch.nn.Parameter(torch.randn(shape, generator=drawn)) for shape in ((3, 4), (5,), (1, 1))]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in own]
    optimizer = AdamW(own, weight_decay)
    reference = torch.optim.AdamW(theirs, weight_decay=weight_decay, fused=True)
    for step in range(25):
        rate = 0.3 / (step + 1)
        for one, other in zip(own, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=drawn) * 10.0 ** (step % 5 - 2)
            other.grad = one.grad.clone()
        reference.param_groups[0]["lr"] = rate
        optimizer.step(rate)
        reference.step()
        assert all(torch.equal(one, other) for one, other in zip(own, theirs, strict=True))
    for name, values in optimizer.moments.items():
        assert all(torch.equal(v, reference.state[p][name]) for v, p in zip(values, theirs, strict=True))


def test_a_restored_learner_goes_on_as_if_it_had_never_stopped(tmp_path):
    expected = descended(learner(), 9).state()
    save_file(descended(learner(), 4).state(), tmp_path / "state")
    resumed = learner(seed=1)
    resumed.restore(load_file(tmp_path / "state"))
    found = descended(resumed, 5).state()
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_nothing_of_a_learner_is_a_view_of_the_state_it_was_restored_from(tmp_path):
    save_file(descended(learner(), 4).state(), tmp_path / "state")
    read = load_file(tmp_path / "state")
    resumed = learner()
    resumed.restore(read)
    before = {name: value.clone() for name, value in resumed.state().items()}
    for value in read.values():
        value.zero_()
    assert all(torch.equal(value, before[name]) for name, value in resumed.state().items())
    assert {v.untyped_storage().data_ptr() for v in read.values()}.isdisjoint(
        v.untyped_storage().data_ptr() for v in resumed.state().values()
    )


def test_connecting_does_not_wait_for_the_compiler_of_torch():
    script = """
import sys, numpy, cmcr
rows = numpy.eye(4, dtype=numpy.float32)
cmcr.connect(cmcr.Memories("a", text=rows, image=rows), cmcr.Memories("b", text=rows, audio=rows), epochs=1, device="cpu")
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
