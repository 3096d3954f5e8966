import random

import numpy as np
import pytest
import torch

import reference.training as twin
from cmcr.connection import batches, learner
from cmcr.connection.projectors import Projector
from cmcr.connection.settings import Settings
from cmcr.connection.training import Side, train
from cmcr.errors import DimensionError, TooFewRowsError, TrainingError
from reference.enhancement import normalize
from reference.projectors import layers_from


def sides(rng, rows=48, widths=(3, 4), dtype=torch.float32):
    """Two spaces of the same items: random linear views of one latent code, with a gap between the modalities."""
    latent = rng.normal(size=(rows, 3))

    def view(width, gap):
        return torch.from_numpy(normalize(latent @ rng.normal(size=(3, width)) + gap)).to(dtype)

    return tuple(Side(view(width, 0.0), view(width, 0.5)) for width in widths)


def fitted(rng_seed=0, seed=0, rows=48, **settings):
    left, right = sides(np.random.default_rng(rng_seed), rows)
    return train(left, right, Settings(**({"epochs": 1} | settings)), seed=seed)


def weights(trained):
    return {
        f"{side}.{name}": value
        for side in ("left", "right")
        for name, value in getattr(trained, side).state_dict().items()
    }


def layers_of(projector):
    state = {name: value.double().numpy().copy() for name, value in projector.state_dict().items()}
    return layers_from(state, final_relu=projector.shape.final_relu)


@pytest.fixture
def completed(monkeypatch):
    """What training completes, call by call: the clean rows and the noised ones."""
    calls = []
    complete = batches.complete_

    def recording(rows, noise, deviation):
        clean = rows.double().numpy()
        complete(rows, noise, deviation)
        calls.append((clean, rows.double().numpy(), deviation))

    monkeypatch.setattr(batches, "complete_", recording)
    return calls


def batches_of(calls):
    return [tuple(noised for _, noised, _ in calls[start : start + 4]) for start in range(0, len(calls), 4)]


# ------------------------------------------------------------------------------------------- against the plain replica


@pytest.mark.parametrize(
    ("changes", "loss"),
    [
        ({"batch_norm": "together"}, {}),
        (
            {"batch_norm": "apart", "final_relu": True, "weight_decay": 0.5},
            {"distance": "squared", "ttc_weight": 0.5, "avc_weight": 1.5, "intra_weight": 0.7},
        ),
    ],
)
def test_every_step_equals_the_plain_replica(completed, changes, loss):
    temperatures = {"ttc_temperature": 0.2, "avc_temperature": 0.3}
    renamed = {"intra_distance" if name == "distance" else name: value for name, value in loss.items()}
    settings = {"learning_rate": 0.01, "width": 3, "hidden": (4,), **temperatures, **changes, **renamed}
    # A step of next to no length leaves the initial weights.
    start = fitted(rows=64, **{**settings, "learning_rate": 1e-30, "weight_decay": 0.0})
    completed.clear()
    trained = fitted(rows=64, **settings)
    steps = batches_of(completed)
    assert [len(batch[0]) for batch in steps] == [4] * 16
    layers = layers_of(start.left), layers_of(start.right)
    for layer in [*layers[0], *layers[1]]:
        layer["mean"], layer["variance"] = np.zeros_like(layer["mean"]), np.ones_like(layer["variance"])
    decay = settings.get("weight_decay", 0.01)
    expected, history = twin.train(layers, steps, settings["batch_norm"], 0.01, decay, **temperatures, **loss)
    assert np.abs(expected[0][0]["weight"] - layers[0][0]["weight"]).max() > 0.02  # the steps are far from nothing
    for column, term in enumerate(("total", "ttc", "avc", "intra")):
        np.testing.assert_allclose(trained.history[term], [step[column] for step in history], rtol=1e-5)
    for ours, theirs in zip((trained.left, trained.right), expected, strict=True):
        for got, wanted in zip(layers_of(ours), theirs, strict=True):
            for part in ("weight", "gain", "shift", "mean", "variance"):
                np.testing.assert_allclose(got[part], wanted[part], rtol=0, atol=1e-5, err_msg=part)
            np.testing.assert_array_equal(got["bias"], 0.0)
            np.testing.assert_array_equal(wanted["bias"], 0.0)


@pytest.mark.parametrize("batch_norm", ["together", "apart"])
def test_biases_stay_exactly_zero(batch_norm):
    trained = fitted(epochs=5, batch_norm=batch_norm, weight_decay=0.5, learning_rate=0.1, hidden=(6, 5))
    for projector in (trained.left, trained.right):
        assert len(projector.linears) == 3
        for linear, norm in zip(projector.linears, projector.norms, strict=True):
            assert torch.count_nonzero(linear.bias) == 0
            assert not linear.bias.requires_grad
            assert torch.count_nonzero(norm.bias) == norm.bias.numel()  # the batch normalisation shifts instead


def test_the_optimiser_moves_everything_but_the_biases(monkeypatch):
    given, rates = [], []

    class Recording(learner.AdamW):
        def __init__(self, parameters, weight_decay):
            given.append(([id(parameter) for parameter in parameters], weight_decay))
            super().__init__(parameters, weight_decay)

        def step(self, rate):
            rates.append(rate)
            super().step(rate)

    monkeypatch.setattr(learner, "AdamW", Recording)
    trained = fitted(learning_rate=0.02, weight_decay=0.3, hidden=(6,))
    named = [*trained.left.named_parameters(), *trained.right.named_parameters()]
    moved = [id(p) for name, p in named if not (name.startswith("linears.") and name.endswith(".bias"))]
    assert len(moved) == len(named) - 4 == 12
    ((ids, weight_decay),) = given
    assert sorted(ids) == sorted(moved)
    assert (rates[0], weight_decay) == (0.02, 0.3)


@pytest.mark.parametrize(("batch_norm", "calls_per_step"), [("together", 1), ("apart", 2)])
def test_batch_normalisation_counts_its_calls(batch_norm, calls_per_step):
    trained = fitted(batch_norm=batch_norm)
    assert trained.left.norms[0].num_batches_tracked.item() == 16 * calls_per_step
    assert trained.right.norms[1].num_batches_tracked.item() == 16 * calls_per_step


@pytest.mark.parametrize(
    ("rescale", "deviations"), [(True, (0.004 * 512 / 3, 0.004 * 512 / 4)), (False, (0.004, 0.004))]
)
def test_the_noise_has_the_variance_of_its_space(completed, rescale, deviations):
    fitted(rescale_noise=rescale)
    got = [deviation**2 for _, _, deviation in completed[:4]]
    np.testing.assert_allclose(got, [deviations[0], deviations[0], deviations[1], deviations[1]], rtol=1e-12)


# ------------------------------------------------------------------------------------------------- order and the noise


@pytest.mark.parametrize(
    ("rows", "batch_size", "steps", "batch"),
    [
        (2, None, 1, 2),
        (3, None, 1, 2),
        (37, None, 18, 2),
        (80, None, 16, 5),
        (2, 99, 1, 2),
        (3, 99, 1, 3),
        (37, 99, 1, 37),
        (37, 30, 1, 30),
        (37, 2, 18, 2),
        (80, 4, 20, 4),
    ],
)
def test_batches_take_each_item_at_most_once_an_epoch(completed, rows, batch_size, steps, batch):
    left, right = sides(np.random.default_rng(0), rows)
    train(left, right, Settings(epochs=3, batch_size=batch_size), seed=1)
    sources = [side.double().numpy() for side in (left.overlap, left.consistent, right.overlap, right.consistent)]
    assert len(completed) == 3 * steps * 4
    epochs = []
    for epoch in range(3):
        taken = []
        for step in range(steps):
            calls = completed[4 * (epoch * steps + step) :][:4]
            items = [
                [int(np.flatnonzero((source == row).all(axis=1))[0]) for row in clean]
                for source, (clean, _, _) in zip(sources, calls, strict=True)
            ]
            assert len(items[0]) == batch
            assert items[0] == items[1] == items[2] == items[3]  # the same items on all four sides
            taken += items[0]
        assert len(set(taken)) == len(taken) == batch * steps
        epochs.append(taken)
    if rows > 3:
        assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_noise_is_redrawn_for_every_modality_at_every_step(completed):
    left = sides(np.random.default_rng(0), 2, widths=(4, 4))[0]
    same = Side(left.overlap, left.overlap)
    train(same, same, Settings(epochs=3), seed=1)
    noised = {}
    for clean, result, _ in completed:
        for row, blurred in zip(clean, result, strict=True):
            noised.setdefault(tuple(row), []).append(blurred)
    assert len(noised) == 2
    for blurred in noised.values():
        assert len(blurred) == 3 * 4  # three steps, two modalities, two spaces
        apart = np.linalg.norm(np.array(blurred)[:, None] - np.array(blurred)[None], axis=2)
        assert apart[~np.eye(12, dtype=bool)].min() > 1e-4


def test_without_variance_the_rows_are_used_as_they_are(completed):
    fitted(noise_variance=0.0)
    for clean, result, _ in completed:
        np.testing.assert_allclose(result, clean, atol=1e-6)


# -------------------------------------------------------------------------------------------------------- the seed


def test_the_same_seed_gives_the_same_weights_bit_for_bit():
    one = fitted(seed=3)
    torch.manual_seed(99)  # what the caller does to his own random state changes nothing
    np.random.seed(99)
    two = fitted(seed=3)
    assert one.history == two.history
    assert all(torch.equal(value, weights(two)[name]) for name, value in weights(one).items())


def test_another_seed_gives_other_weights_order_and_noise(completed):
    one, first = fitted(seed=3), list(completed)
    completed.clear()
    two, second = fitted(seed=4), list(completed)
    differing = {name for name, value in weights(one).items() if not torch.equal(value, weights(two)[name])}
    assert {"left.linears.0.weight", "right.linears.0.weight"} <= differing
    assert not np.array_equal(first[0][0], second[0][0])
    assert not np.allclose(first[0][1] - first[0][0], second[0][1] - second[0][0])


def test_initial_weights_of_the_two_sides_and_seeds_differ():
    def initial(seed):
        left, right = sides(np.random.default_rng(0), widths=(3, 3))
        return train(left, right, Settings(epochs=1, learning_rate=1e-30, weight_decay=0.0), seed=seed)

    one, two = initial(0), initial(1)
    assert not torch.equal(one.left.linears[0].weight, one.right.linears[0].weight)
    assert not torch.equal(one.left.linears[0].weight, two.left.linears[0].weight)


def test_initial_weights_are_those_of_the_first_part_of_the_seed():
    settings = Settings(epochs=1, learning_rate=1e-30, weight_decay=0.0)
    trained = train(*sides(np.random.default_rng(0)), settings, seed=5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(5).generate_state(3)[0]))
        expected = [Projector(width, settings.projector_shape(3, 4)) for width in (3, 4)]
    for ours, plain in zip((trained.left, trained.right), expected, strict=True):
        for got, wanted in zip(ours.linears, plain.linears, strict=True):
            assert torch.equal(got.weight, wanted.weight)


def test_the_callers_random_state_is_left_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    fitted(seed=5)
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


# --------------------------------------------------------------------------------------------------------- the outcome


def test_the_loss_falls():
    left, right = sides(np.random.default_rng(0), 320)
    settings = Settings(epochs=5, ttc_temperature=0.1, avc_temperature=0.1, noise_variance=0.0, learning_rate=0.02)
    history = train(left, right, settings).history
    assert {name: len(values) for name, values in history.items()} == dict.fromkeys(
        ("total", "ttc", "avc", "inter", "intra"), 5 * 16
    )
    for term in ("total", "ttc", "avc"):
        assert np.mean(history[term][-16:]) < 0.7 * np.mean(history[term][:4])


def test_the_attraction_closes_the_gap():
    settings = {"rows": 160, "epochs": 10, "learning_rate": 0.02, "noise_variance": 0.0}
    closing, open_ = (fitted(**settings, intra_weight=weight) for weight in (100.0, 0.0))
    assert np.mean(closing.history["intra"][-16:]) < 0.5 * closing.history["intra"][0]
    assert open_.history["intra"] == [0.0] * 160


def test_the_history_adds_up():
    history = {name: np.array(values) for name, values in fitted(ttc_weight=0.5, intra_weight=0.3).history.items()}
    np.testing.assert_allclose(history["inter"], 0.5 * history["ttc"] + history["avc"], rtol=1e-5)
    np.testing.assert_allclose(history["total"], history["inter"] + 0.3 * history["intra"], rtol=1e-5)
    assert (history["intra"] > 0).all()


def test_projectors_come_back_ready_for_use():
    trained = fitted(width=5)
    for projector, width in ((trained.left, 3), (trained.right, 4)):
        assert not projector.training
        assert projector.width_in == width
        assert projector.shape.width == 5
        assert {value.device.type for value in projector.state_dict().values()} == {"cpu"}


def test_double_and_half_inputs_are_trained_in_single():
    for dtype in (torch.float64, torch.float16):
        left, right = sides(np.random.default_rng(0), dtype=dtype)
        single = [Side(side.overlap.float(), side.consistent.float()) for side in (left, right)]
        one, two = (train(*pair, Settings(epochs=1)) for pair in ((left, right), single))
        assert one.history == two.history


def test_progress_ends_at_one():
    shares = []
    left, right = sides(np.random.default_rng(0), 48)
    train(left, right, Settings(epochs=3), progress=shares.append)
    assert shares == [20 / 48, 40 / 48, 1.0]


def test_the_inputs_are_left_alone():
    left, right = sides(np.random.default_rng(0))
    before = [x.clone() for x in (left.overlap, left.consistent, right.overlap, right.consistent)]
    train(left, right, Settings(epochs=1))
    for x, kept in zip((left.overlap, left.consistent, right.overlap, right.consistent), before, strict=True):
        assert torch.equal(x, kept)


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("changes", [{"ttc_temperature": 1e-40}, {"avc_temperature": 1e-40}, {"learning_rate": 1e10}])
def test_a_diverging_loss_is_refused(changes):
    with pytest.raises(TrainingError) as caught:
        fitted(epochs=2, **changes)
    assert str(caught.value) == (
        "the loss is no longer a finite number by step 20 of 32. Lower learning_rate or weight_decay, or "
        "raise the temperatures."
    )


def test_a_loss_that_diverges_at_the_very_last_step_is_refused():
    with pytest.raises(TrainingError, match=r"^the loss is no longer a finite number by step 1 of 1\."):
        fitted(rows=2, ttc_temperature=1e-40)


@pytest.mark.parametrize("short", range(4))
def test_row_counts_must_match(short):
    left, right = sides(np.random.default_rng(0), 6)
    four = [left.overlap, left.consistent, right.overlap, right.consistent]
    four[short] = four[short][:-1]
    with pytest.raises(DimensionError, match=r"^all four sets of embeddings must have one row per overlap item\.$"):
        train(Side(*four[:2]), Side(*four[2:]), Settings())


def test_one_item_is_too_few():
    left, right = sides(np.random.default_rng(0), 1)
    with pytest.raises(
        TooFewRowsError, match=r"^expected at least 2 overlap items to contrast with each other, got 1\.$"
    ):
        train(left, right, Settings())
