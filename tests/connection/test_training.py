"""The training against a plain replica, and what it promises: the seed decides, it can be resumed, errors are clear."""

import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import reference.training as twin
from cmcr.connection.projectors import Projector
from cmcr.connection.settings import Settings
from cmcr.connection.training import EnhancedSpace, train
from cmcr.errors import ConfigError, DimensionError, FormatError, NonFiniteError, TooFewRowsError, TrainingError
from connection.trained import completed_batches, initial_layers, layers_of
from engine.rows import Disk, random_rows


def spaces(rows=48, widths=(3, 4), dtype=torch.float32):
    """Two spaces of the same items: random linear views of one latent code, with a gap between the modalities."""
    latent = random_rows(rows, 3, 0)

    def view(width, seed, gap):
        return torch.nn.functional.normalize(latent @ random_rows(3, width, seed) + gap, dim=1).to(dtype)

    return tuple(EnhancedSpace(view(width, width, 0.0), view(width, 7 * width, 0.5)) for width in widths)


def fitted(rows=48, seed=0, given=None, after_step=None, resume_from=None, progress=None, **settings):
    left, right = given or spaces(rows)
    chosen = Settings(**({"epochs": 1} | settings))
    how = {"seed": seed, "after_step": after_step, "resume_from": resume_from, "progress": progress}
    return train(left, right, chosen, **how)


def weights(trained):
    projectors = {"left": trained.left, "right": trained.right}
    return {f"{side}.{name}": x for side, one in projectors.items() for name, x in one.state_dict().items()}


def assert_same(one, two):
    assert one.history == two.history
    assert all(torch.equal(value, weights(two)[name]) for name, value in weights(one).items())


def sets_of(given):
    return [rows for space in given for rows in (space.overlap, space.consistent)]


# ------------------------------------------------------------------------------------------- against the plain replica


@pytest.mark.parametrize(
    "changes",
    [
        {"noise_variance": 0.0},
        {
            "batch_norm": "apart",
            "final_relu": True,
            "weight_decay": 0.5,
            "intra_distance": "squared",
            "ttc_weight": 0.5,
            "avc_weight": 1.5,
            "intra_weight": 0.7,
            "rescale_noise": False,
        },
    ],
)
def test_every_step_equals_the_plain_replica(changes):
    losses = {"ttc_temperature": 0.2, "avc_temperature": 0.3}
    changes = {"learning_rate": 0.02, "batch_size": 5, "width": 3, "hidden": (4,), **losses, **changes}
    settings = Settings(epochs=1, **changes)
    # A step of next to no length leaves the initial weights.
    start = fitted(rows=40, seed=5, **{**changes, "learning_rate": 1e-30, "weight_decay": 0.0})
    trained = fitted(rows=40, seed=5, **changes)
    steps = list(completed_batches(sets_of(spaces(40)), settings, 5))
    assert [len(batch[0]) for batch in steps] == [5] * 8
    layers = initial_layers(start.left), initial_layers(start.right)
    losses |= {name: getattr(settings, name) for name in ("ttc_weight", "avc_weight", "intra_weight")}
    losses["distance"] = settings.intra_distance
    expected, history = twin.train(layers, steps, settings.batch_norm, 0.02, settings.weight_decay, **losses)
    assert np.abs(expected[0][0]["weight"] - layers[0][0]["weight"]).max() > 0.02  # the steps are far from nothing
    for column, term in enumerate(("total", "ttc", "avc", "intra")):
        np.testing.assert_allclose(trained.history[term], [step[column] for step in history], rtol=1e-5)
    for ours, theirs in zip((trained.left, trained.right), expected, strict=True):
        for found, wanted in zip(layers_of(ours), theirs, strict=True):
            for part in ("weight", "gain", "shift", "mean", "variance"):
                np.testing.assert_allclose(found[part], wanted[part], rtol=0, atol=1e-5, err_msg=part)
            np.testing.assert_array_equal(found["bias"], 0.0)


def test_the_loss_falls_and_the_history_adds_up():
    changes = {"ttc_temperature": 0.1, "avc_temperature": 0.1, "noise_variance": 0.0, "learning_rate": 0.02}
    shares = []
    history = fitted(320, epochs=5, ttc_weight=0.5, intra_weight=0.3, progress=shares.append, **changes).history
    assert shares == [0.25, 0.5, 0.75, 1.0]
    history = {name: np.array(values) for name, values in history.items()}
    assert {len(values) for values in history.values()} == {5 * 16}
    for term in ("total", "ttc", "avc"):
        assert history[term][-16:].mean() < 0.7 * history[term][:4].mean()
    np.testing.assert_allclose(history["inter"], 0.5 * history["ttc"] + history["avc"], rtol=1e-5)
    np.testing.assert_allclose(history["total"], history["inter"] + 0.3 * history["intra"], rtol=1e-5)


def test_projectors_come_back_ready_for_use():
    trained = fitted(width=5, batch_norm="apart")
    for projector, width in ((trained.left, 3), (trained.right, 4)):
        assert not projector.training
        assert (projector.width_in, projector.shape.width) == (width, 5)
        assert projector.norms[0].num_batches_tracked.item() == 2 * 16  # each modality apart


# -------------------------------------------------------------------------------------------------------- the seed


def test_the_same_seed_gives_the_same_weights_bit_for_bit_and_leaves_the_callers_random_state():
    one = fitted(seed=3)
    torch.manual_seed(99)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    assert_same(one, fitted(seed=3))
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


def test_the_callers_random_state_on_a_gpu_is_left_alone(monkeypatch):
    # torch.manual_seed seeds every accelerator too, and forking the state of the CPU does not bring those back.
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    monkeypatch.setattr(torch, "manual_seed", seeded.append)
    monkeypatch.setattr(torch.random, "manual_seed", seeded.append)
    fitted(seed=5)
    assert seeded == []


def test_initial_weights_come_from_the_seed_and_differ_between_spaces():
    start = {"given": spaces(widths=(3, 3)), "learning_rate": 1e-30, "weight_decay": 0.0}
    one, two = (fitted(seed=seed, **start) for seed in (5, 6))
    assert not torch.equal(one.left.linears[0].weight, one.right.linears[0].weight)
    assert not torch.equal(one.left.linears[0].weight, two.left.linears[0].weight)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(5).generate_state(3)[0]))
        expected = [Projector(3, one.left.shape) for _ in range(2)]
    for ours, plain in zip((one.left, one.right), expected, strict=True):
        assert all(torch.equal(a.weight, b.weight) for a, b in zip(ours.linears, plain.linears, strict=True))


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_the_callers_torch_modes_change_nothing(mode):
    expected = fitted()
    with mode():
        assert_same(fitted(given=spaces()), expected)
    torch.set_default_dtype(torch.float64)
    try:
        assert_same(fitted(), expected)
    finally:
        torch.set_default_dtype(torch.float32)


# ---------------------------------------------------------------------------------------------- the rows and the steps


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_double_and_half_rows_are_trained_in_single_and_left_alone(dtype):
    given = spaces(dtype=dtype)
    before = [rows.clone() for rows in sets_of(given)]
    single = [EnhancedSpace(space.overlap.float(), space.consistent.float()) for space in given]
    assert_same(fitted(given=given), fitted(given=single))
    assert all(torch.equal(rows, kept) for rows, kept in zip(sets_of(given), before, strict=True))


@pytest.mark.parametrize("free", [10**12, 0])
def test_rows_on_disk_train_as_rows_in_ram(monkeypatch, free):
    monkeypatch.setattr("cmcr.engine.batches.available_ram_bytes", lambda: free)
    in_ram = fitted(learning_rate=0.01)
    on_disk = fitted(given=[EnhancedSpace(Disk(s.overlap), Disk(s.consistent)) for s in spaces()], learning_rate=0.01)
    for name, value in weights(on_disk).items():
        torch.testing.assert_close(value, weights(in_ram)[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stop", [1, 15, 16, 17, 31, 32])
def test_a_training_is_resumed_from_a_file_bit_for_bit(tmp_path, stop):
    def keep(state):
        if state.step == stop:
            save_file(state.tensors(), tmp_path / "kept.safetensors")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(epochs=2, after_step=keep)
    steps = []
    kept = load_file(tmp_path / "kept.safetensors")
    resumed = fitted(epochs=2, resume_from=kept, after_step=lambda state: steps.append(state.step))
    assert steps == list(range(stop + 1, 33))
    assert_same(resumed, fitted(epochs=2))


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("changes", [{"ttc_temperature": 1e-40}, {"avc_temperature": 1e-40}, {"learning_rate": 1e10}])
def test_a_diverging_loss_is_refused(changes):
    with pytest.raises(TrainingError, match="by step 20 of 32"):
        fitted(epochs=2, **changes)


def test_a_loss_that_diverges_at_the_very_last_step_is_refused():
    with pytest.raises(TrainingError, match="by step 1 of 1"):
        fitted(rows=2, ttc_temperature=1e-40)


@pytest.mark.parametrize("changes", [{"epochs": 10**9, "batch_size": 2}, {"hidden": (10**6, 10**9)}])
def test_settings_for_which_no_memory_suffices_are_refused(changes):
    with pytest.raises(ConfigError, match="needs more memory than there is"):
        fitted(2000, **changes)


@pytest.mark.parametrize("spoilt", range(4))
def test_rows_that_do_not_match_are_refused(spoilt):
    def changed(change):
        rows = [change(x) if place == spoilt else x for place, x in enumerate(sets_of(spaces(6)))]
        return EnhancedSpace(*rows[:2]), EnhancedSpace(*rows[2:])

    with pytest.raises(DimensionError, match="one row per overlap item"):
        fitted(given=changed(lambda x: x[:-1]))
    with pytest.raises(DimensionError, match="as wide as the overlap"):
        fitted(given=changed(lambda x: x[:, :-1]))
    with pytest.raises(NonFiniteError, match="NaN"):
        fitted(given=changed(lambda x: x * torch.nan))


def test_one_item_or_the_state_of_another_training_is_refused():
    kept = []
    fitted(after_step=lambda state: kept.append(state.tensors()))
    with pytest.raises(FormatError, match="other projectors"):
        fitted(width=7, resume_from=kept[-1])
    with pytest.raises(TooFewRowsError, match="at least 2 overlap items"):
        fitted(rows=1)
