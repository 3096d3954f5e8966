"""What test_several_processes.py has two processes do: torchrun --nproc-per-node 2 shared_training.py FOLDER."""

import signal
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import distributed

import cmcr
from cmcr.connection import training
from cmcr.connection.connect import connect
from cmcr.connection.settings import Settings
from cmcr.connection.sides import Side

CASES = {
    "together": {"batch_norm": "together"},
    "apart": {"batch_norm": "apart", "intra_distance": "squared"},
    "uneven": {"batch_size": 21, "final_relu": True},
}
STEPS = 50


def unit(rows, width, seed):
    made = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def sides():
    """Two spaces of the same items: random linear views of one latent code, with a gap between the modalities."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(200, 5))

    def view(width, gap):
        rows = latent @ rng.normal(size=(5, width)) + gap
        return torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True)).float()

    return tuple(Side(view(width, 0.0), view(width, 0.5)) for width in (6, 8))


def settings(**changes):
    options = {"batch_size": 20, "ttc_temperature": 0.1, "avc_temperature": 0.1, "learning_rate": 3e-4}
    chosen = Settings(**{**options, **changes})
    return Settings(**{**options, **changes, "epochs": -(-STEPS // (200 // chosen.batch_size))})


def trained(name):
    """Weights after the training of a case, and the history."""
    made = training.train(*sides(), settings(**CASES[name]), seed=3)
    tensors = {f"left.{key}": value for key, value in made.left.state_dict().items()}
    tensors |= {f"right.{key}": value for key, value in made.right.state_dict().items()}
    return tensors | {f"history.{term}": torch.tensor(values) for term, values in made.history.items()}


def connected(checkpoint=None):
    a = cmcr.Memories("a", text=unit(90, 6, 0), image=unit(111, 6, 1))
    b = cmcr.Memories("b", text=unit(90, 4, 2), audio=unit(71, 4, 3))
    return connect(a, b, epochs=3, batch_size=20, learning_rate=1e-4, device="cpu", checkpoint=checkpoint)


def stopped_and_gone_on(folder, rank):
    """Stop both processes by a signal to the second one, then go on."""
    loss, calls = training._loss, []

    def pressing(*given):
        calls.append(1)
        if len(calls) == 5 and rank == 1:
            signal.raise_signal(signal.SIGINT)
        return loss(*given)

    training._loss = pressing
    try:
        connected(folder / "kept")
    except KeyboardInterrupt:
        assert len(calls) == 5
    else:
        raise AssertionError("nobody stopped")
    training._loss = loss
    assert list((folder / "kept").glob("step-000000005*"))
    return connected(folder / "kept")


def main(folder):
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    for name in CASES:
        save_file(trained(name), folder / f"{name}-{rank}.safetensors")
    connected().save(folder / f"connected-{rank}")
    stopped_and_gone_on(folder, rank).save(folder / f"resumed-{rank}")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
