"""Everything that a training step changes, so that it can be kept in a file and resumed bit for bit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from cmcr.errors import FormatError, TrainingError

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class TrainState:
    """Modules under AdamW, whose learning rate decays to zero along a cosine, and the history of the loss.

    Args:
        modules: what is trained, by name; all on one device.
        total: how many steps there will be.
        terms: how many numbers the loss of a step has.
        learning_rate: of the first step.
        weight_decay: of AdamW.

    Attributes:
        step: how many steps are finished.
        total: of how many.
        history: `(total, terms)`, a row a step, on the device.
    """

    def __init__(
        self, modules: Mapping[str, nn.Module], total: int, terms: int, *, learning_rate: float, weight_decay: float
    ) -> None:
        self._modules = modules
        self._parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
        self.step, self.total = 0, total
        self._schedule = self._cosine()
        self.history = torch.zeros(total, terms, dtype=torch.float32, device=self._parameters[0].device)

    def descend(self, terms: Sequence[Tensor]) -> None:
        """Take one step down the gradient of the first of the loss's terms."""
        self._optimizer.zero_grad()
        terms[0].backward()
        self._optimizer.step()
        self._schedule.step()
        self.history[self.step] = torch.stack([term.detach() for term in terms])
        self.step += 1

    def check_loss(self) -> None:
        """Raise a `TrainingError` if the loss of the last step is not a finite number."""
        if self.step and not torch.isfinite(self.history[self.step - 1]).all():
            raise TrainingError(
                f"the loss is no longer a finite number by step {self.step} of {self.total}. Lower learning_rate or "
                "weight_decay, or raise the temperatures."
            )

    def tensors(self) -> dict[str, Tensor]:
        """Name everything that the steps so far have changed, for a file."""
        tensors = {
            f"{name}.{key}": value
            for name, module in self._modules.items()
            for key, value in module.state_dict().items()
        }
        for number, parameter in enumerate(self._parameters):
            for name, value in self._optimizer.state[parameter].items():
                tensors[f"optimizer.{number}.{name}"] = value
        return {**tensors, "history": self.history[: self.step]}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Return to the state whose `tensors` were kept.

        Raises:
            FormatError: it is of other modules.
        """
        try:
            for name, module in self._modules.items():
                prefix = f"{name}."
                own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
                module.load_state_dict(own, strict=True)
            for number, parameter in enumerate(self._parameters):
                # Copied: a tensor of a file may be a view of it, and Windows replaces no file that something views.
                self._optimizer.state[parameter] = {
                    name: tensors[f"optimizer.{number}.{name}"].to(parameter.device, copy=True) for name in _MOMENTS
                }
            self.step = len(tensors["history"])
            self.history[: self.step] = tensors["history"]
        except (KeyError, RuntimeError) as error:
            raise FormatError(f"the training state is of other projectors ({error}).") from error
        self._schedule = self._cosine()

    def _cosine(self) -> torch.optim.lr_scheduler.LambdaLR:
        """Make the schedule of the steps that are left: a function of the step alone."""
        finished, total = self.step, self.total
        return torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: (1 + math.cos(math.pi * (finished + step) / total)) / 2
        )
