"""What a training starts from and does, in the numbers that the twins compute with."""

import torch

from cmcr.connection.enhancement import semantic_completion
from cmcr.engine.batches import Batches
from reference.projectors import layers_from


def layers_of(projector):
    """The layers of a projector for the twins, float64."""
    state = {name: value.double().numpy().copy() for name, value in projector.state_dict().items()}
    if "straight.weight" in state:
        norm = {"gain": "weight", "shift": "bias", "mean": "running_mean", "variance": "running_var"}
        found = {part: state[f"norm.{name}"] for part, name in norm.items()}
        found |= {"straight": state["straight.weight"], "outer": state["outer.weight"]}
        return [{**found, "weight": state["inner.weight"], "bias": 0.0, "relu": True}]
    return layers_from(state, final_relu=projector.shape.final_relu)


def initial_layers(projector):
    """The same before the first step, of a projector whose training took steps of no length."""
    layers = layers_of(projector)
    for layer in layers:
        layer["mean"][:], layer["variance"][:] = 0.0, 1.0
    return layers


def completed_batches(sets, settings, seed, beside=lambda step: ()):
    """The rows of every step after semantic completion, drawn as the training promises: by seed and step alone.

    `beside` gives further rows that are completed after those of the sets.
    """
    batches = Batches(sets, settings.rows_per_step(len(sets[0])), seed, torch.device("cpu"))
    for step in range(settings.epochs * batches.per_epoch):
        noise, how = batches.noise(step), {"rescale": settings.rescale_noise}
        rows = (*batches.rows(step), *beside(step))
        rows = [semantic_completion(x, settings.noise_variance, generator=noise, **how) for x in rows]
        yield tuple(x.double().numpy() for x in rows)
