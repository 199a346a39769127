"""A network in training: its losses, their gradient, and its optimiser.

Ports jcjohnson/fast-neural-style 813c834, train.lua (opfunc and the loop around it).

Notes, all kept: the loss leaves the total variation out, whose gradient TotalVariation adds; a decay of the learning
rate forgets Adam's state; with reflect-start padding the network gets its padding in the first iteration, after a
pass without it, so that batch norms see that batch twice; only the height tells whether it is needed; with
-padding_type none the target is cropped instead. All parameters are views of one vector, as after getParameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from legacy_style.errors import OptionError
from legacy_style.programs.fast_neural_style.data import Batches
from legacy_style.programs.fast_neural_style.losses import PerceptualCriterion, distance
from legacy_style.programs.fast_neural_style.train_options import TrainingSettings
from legacy_style.torch7.optim import AdamState, adam


@dataclass
class History:
    """The losses so far; names and structure are those of a checkpoint's NAME.json."""

    train_loss_history: list[float] = field(default_factory=list)
    val_loss_history: list[float] = field(default_factory=list)
    val_loss_history_ts: list[float] = field(default_factory=list)
    style_loss_history: dict[str, list[float]] = field(default_factory=dict)


class Trainer:
    """One network between two iterations; `criterion` None: pixels alone are compared."""

    def __init__(
        self,
        settings: TrainingSettings,
        model: torch.nn.Sequential,
        criterion: PerceptualCriterion | None,
        device: torch.device,
        seed: int,
    ) -> None:
        self.settings, self.criterion, self.device, self.seed = settings, criterion, device, seed
        self.model = model.to(device)
        self.parameters, self.gradients = flatten(self.model)
        self.adam = AdamState()
        self.learning_rate = settings.learning_rate
        self.iteration = 0
        self.history = History()

    def step(self, x: Tensor, y: Tensor) -> float:
        """One iteration on images x and targets y, (N, 3, H, W); returns the loss before the update."""
        self.model.train()

        def feval(_: Tensor) -> tuple[float, Tensor]:
            self.gradients.zero_()
            return self._evaluate(x, y, backward=True), self.gradients

        loss = adam(feval, self.parameters, self.adam, learning_rate=self.learning_rate)
        self.history.train_loss_history.append(loss)
        self.iteration += 1
        return loss

    @torch.no_grad()
    def validate(self, batches: Batches) -> float:
        """The mean loss over the validation batches, with norms as they are when the network is used."""
        self.model.eval()
        count = math.floor(self.settings.num_val_batches)
        losses = [self._evaluate(*batches.validation(number), backward=False) for number in range(count)]
        return sum(losses) / self.settings.num_val_batches

    def decay(self) -> None:
        """Lower the learning rate and forget Adam's moments and step count."""
        self.learning_rate *= self.settings.lr_decay_factor
        self.adam = AdamState()

    def _evaluate(self, x: Tensor, y: Tensor, *, backward: bool) -> float:
        """The loss; with `backward`, its gradient is added to the parameters' and its parts to the history."""
        settings = self.settings
        x, y = (each.to(self.device, memory_format=torch.channels_last) for each in (x, y))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            out = self._forward(x)
            target = cropped(y, out) if settings.architecture.padding_type == "none" else y
            losses = None
            if self.criterion is not None:
                self.criterion.set_content_target(target)
                losses = self.criterion.evaluate(out)
        total, maps, gradients = 0.0, [], []
        if settings.pixel_loss is not None:
            value, gradient = distance(settings.pixel_loss, out.detach().float(), target)
            total += settings.pixel_loss_weight * value.item()
            maps.append(out)
            gradients.append(gradient.mul_(settings.pixel_loss_weight).to(out.dtype))
        if losses is not None:
            total += settings.percep_loss_weight * losses.total
            maps += losses.maps
            gradients += [each * settings.percep_loss_weight for each in losses.gradients]
        if backward:
            torch.autograd.backward(maps, gradients)
            if losses is not None and settings.task == "style":
                for kind, by_layer in (("content", losses.content), ("style", losses.style)):
                    for name, loss in by_layer.items():
                        self.history.style_loss_history.setdefault(f"{kind}-{name}", []).append(loss)
        return total

    def _forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        if self.settings.architecture.padding_type == "reflect-start" and x.shape[2] != out.shape[2]:
            insert_padding(self.model, x, out)
            out = self.model(x)
        return out


def flatten(model: torch.nn.Module) -> tuple[Tensor, Tensor]:
    """Make the parameters of a network views of one vector, and their gradients of another; returns both."""
    parameters = list(model.parameters())
    flat = torch.cat([each.detach().reshape(-1) for each in parameters])
    gradients = torch.zeros_like(flat)
    begin = 0
    for each in parameters:
        end = begin + each.numel()
        each.data = flat[begin:end].view(each.shape)
        each.grad = gradients[begin:end].view(each.shape)
        begin = end
    return flat, gradients


def insert_padding(model: torch.nn.Sequential, x: Tensor, out: Tensor) -> None:
    """Put the reflection padding in front with which the output will have the input's size.

    Raises OptionError where the size makes that impossible.
    """
    rows, columns = x.shape[2] - out.shape[2], x.shape[3] - out.shape[3]
    if (
        rows % 2
        or columns % 2
        or rows // 2 >= x.shape[2]
        or columns // 2 >= x.shape[3]
        or min(rows, columns) < 0
    ):
        raise OptionError(
            f"-padding_type reflect-start: images of {x.shape[3]}x{x.shape[2]} give {out.shape[3]}x{out.shape[2]}, and"
            f" the {columns}x{rows} that are missing cannot be reflected; train on larger images whose sides are"
            " multiples of what the network scales down by"
        )
    pad = (columns // 2, columns // 2, rows // 2, rows // 2)
    model.insert(0, torch.nn.ReflectionPad2d(pad))


def cropped(y: Tensor, out: Tensor) -> Tensor:
    """The middle of y, as large as `out`."""
    top, left = (y.shape[2] - out.shape[2]) // 2, (y.shape[3] - out.shape[3]) // 2
    return y[:, :, top : top + out.shape[2], left : left + out.shape[3]]
