"""What a training step changes, and a checkpoint holds: the projectors, their optimiser and the history of the loss."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cmcr.connection.losses import LossTerms
from cmcr.connection.peers import Peers
from cmcr.connection.projectors import Projector
from cmcr.connection.settings import Settings
from cmcr.errors import FormatError

_SIDES = ("left", "right")


class Learner:
    """Two projectors under AdamW with a cosine decay to zero.

    Args:
        projectors: in training mode, on the device.
        settings: of the optimiser.
        total: how many steps there will be.
        peers: the processes whose gradients are summed.

    Attributes:
        projectors: of the left space and of the right one.
        step: how many steps are done.
        total: of how many.
        history: `(total, 5)` the terms of `LossTerms`, a row a step, on the device.
    """

    def __init__(self, projectors: tuple[Projector, Projector], settings: Settings, total: int, peers: Peers) -> None:
        self.projectors = projectors
        self.step, self.total = 0, total
        self._rate = settings.learning_rate
        self._peers = peers
        self._parameters = [p for projector in projectors for p in projector.parameters() if p.requires_grad]
        device = self._parameters[0].device
        self._optimizer = AdamW(self._parameters, settings.weight_decay)
        self.history = torch.zeros(total, len(LossTerms._fields), dtype=torch.float32, device=device)
        self._gradient = _joined_gradient(self._parameters) if peers.size > 1 else None

    def descend(self, terms: LossTerms) -> None:
        """Take one step down the gradient of the whole batch's loss.

        Args:
            terms: of that loss; their gradient flows into this process's rows only, and is summed over all processes.
        """
        if self._gradient is not None:
            self._gradient.zero_()
        else:
            for parameter in self._parameters:
                parameter.grad = None
        terms.total.backward()
        if self._gradient is not None:
            self._peers.sum_(self._gradient)
        self._optimizer.step(self._rate / 2 * (1 + math.cos(math.pi * self.step / self.total)))
        self.history[self.step] = torch.stack([term.detach() for term in terms])
        self.step += 1

    def state(self) -> dict[str, Tensor]:
        """Name everything that the steps so far have changed."""
        tensors = {
            f"{side}.{name}": value
            for side, projector in zip(_SIDES, self.projectors, strict=True)
            for name, value in projector.state_dict().items()
        }
        for name, values in self._optimizer.moments.items():
            tensors |= {f"moments.{number}.{name}": value for number, value in enumerate(values)}
        return {**tensors, "history": self.history[: self.step]}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go back to a state.

        Raises:
            FormatError: it is of other projectors.
        """
        try:
            for side, projector in zip(_SIDES, self.projectors, strict=True):
                prefix = f"{side}."
                own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
                projector.load_state_dict(own, strict=True)
            # Copied: a tensor of a file is a view of it, and Windows replaces no file that something views.
            for name, values in self._optimizer.moments.items():
                for number, value in enumerate(values):
                    value.copy_(tensors[f"moments.{number}.{name}"])
            self.step = len(tensors["history"])
            self.history[: self.step] = tensors["history"]
        except (KeyError, RuntimeError) as error:
            raise FormatError(f"the checkpoint is of other projectors ({error}). Remove it to begin anew.") from error


class AdamW:
    """AdamW (Loshchilov and Hutter, 2019) with torch's constants, by the kernel of `torch.optim.AdamW(fused=True)`.

    torch's class imports its compiler when it is made, which takes longer than a small training.

    Args:
        parameters: float32, on one device, each of which has a gradient at every step.
        weight_decay: share of the learning rate by which a step shrinks them.

    Attributes:
        moments: `step`, `exp_avg` and `exp_avg_sq`, a tensor for each parameter.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], weight_decay: float) -> None:
        self._parameters = parameters
        self._weight_decay = weight_decay
        self.moments = {
            "step": [torch.zeros((), dtype=torch.float32, device=p.device) for p in parameters],
            "exp_avg": [torch.zeros_like(p, requires_grad=False) for p in parameters],
            "exp_avg_sq": [torch.zeros_like(p, requires_grad=False) for p in parameters],
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Take one step at a learning rate."""
        steps, means, squares = self.moments.values()
        torch._foreach_add_(steps, 1)
        kernel: Any = torch._fused_adamw_
        kernel(
            self._parameters,
            [p.grad for p in self._parameters],
            means,
            squares,
            [],
            steps,
            amsgrad=False,
            lr=rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=self._weight_decay,
            eps=1e-8,
            maximize=False,
        )


def _joined_gradient(parameters: list[torch.nn.Parameter]) -> Tensor:
    """Let all gradients lie one after another in one tensor, which one sum over the processes covers."""
    joined = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float32, device=parameters[0].device)
    for parameter, part in zip(parameters, joined.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)
    return joined
