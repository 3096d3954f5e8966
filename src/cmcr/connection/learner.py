"""What a training step changes, and a checkpoint holds: the projectors, their optimiser and the history of the loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cmcr.connection.losses import LossTerms
from cmcr.connection.peers import Peers
from cmcr.connection.projectors import Projector
from cmcr.connection.settings import Settings
from cmcr.errors import FormatError

_SIDES = ("left", "right")
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


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
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.history = torch.zeros(total, len(LossTerms._fields), dtype=torch.float32, device=device)
        self._gradient = _joined_gradient(self._parameters) if peers.size > 1 else None

    def descend(self, terms: LossTerms) -> None:
        """Take one step down the gradient of the whole batch's loss.

        Args:
            terms: of that loss; their gradient flows into this process's rows only, and is summed over all processes.
        """
        if self._gradient is None:
            self._optimizer.zero_grad(set_to_none=True)
        else:
            self._gradient.zero_()
        terms.total.backward()
        if self._gradient is not None:
            self._peers.sum_(self._gradient)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate / 2 * (1 + math.cos(math.pi * self.step / self.total))
        self._optimizer.step()
        self.history[self.step] = torch.stack([term.detach() for term in terms])
        self.step += 1

    def state(self) -> dict[str, Tensor]:
        """Name everything that the steps so far have changed."""
        tensors = {
            f"{side}.{name}": value
            for side, projector in zip(_SIDES, self.projectors, strict=True)
            for name, value in projector.state_dict().items()
        }
        for number, parameter in enumerate(self._parameters):
            kept = self._optimizer.state[parameter]
            tensors |= {f"moments.{number}.{name}": kept[name] for name in _MOMENTS}
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
            for number, parameter in enumerate(self._parameters):
                moments = {name: tensors[f"moments.{number}.{name}"].to(parameter.device) for name in _MOMENTS}
                self._optimizer.state[parameter] = moments
            self.step = len(tensors["history"])
            self.history[: self.step] = tensors["history"]
        except (KeyError, RuntimeError) as error:
            raise FormatError(f"the checkpoint is of other projectors ({error}). Remove it to begin anew.") from error


def _joined_gradient(parameters: list[torch.nn.Parameter]) -> Tensor:
    """Let all gradients lie one after another in one tensor, which one sum over the processes covers."""
    joined = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float32, device=parameters[0].device)
    for parameter, part in zip(parameters, joined.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)
    return joined
