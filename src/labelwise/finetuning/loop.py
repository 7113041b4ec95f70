"""The updates themselves: optimiser, moving average, validation, back-off."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from labelwise.finetuning.anchor import Anchor, estimate_fisher
from labelwise.finetuning.evaluation import Evaluation, compare, reference_of
from labelwise.finetuning.heads import on_replay_head
from labelwise.finetuning.labelled import LabelledSet
from labelwise.finetuning.loss import Targets, collate_targets, weight_targets, weighted_huber_loss
from labelwise.finetuning.metrics import ErrorTable
from labelwise.finetuning.networks import PreparedSet
from labelwise.finetuning.parametrisation import parametrise
from labelwise.finetuning.pretraining_set import PretrainingSet
from labelwise.finetuning.recipe import Recipe, Schedule
from labelwise.finetuning.trainable import restore, snapshot
from labelwise.potentials.torch_potential import TorchPotential
from labelwise.potentials.training import UpdatingNetwork


@dataclass(frozen=True)
class EpochRecord:
    """One validation.

    Attributes:
        epoch: Epochs finished; 0 is the start.
        updates: Updates made.
        learning_rate: Of the last update, 0 at the start.
        train_loss: Mean loss of the updates since the last record, without the penalty of
            ``Recipe.anchor``; None at the start.
        valid_loss: Loss on the validation set, which chooses the best epoch; None without one.
        valid: Errors on the validation set, meV and meV/Å; None without one.
        seconds: Wall time since the start of training, s.
    """

    epoch: int
    updates: int
    learning_rate: float
    train_loss: float | None
    valid_loss: float | None
    valid: ErrorTable | None
    seconds: float


@dataclass(frozen=True)
class _Part:
    """Structures that updates learn from, and how they are taken."""

    labelled: LabelledSet
    reference: Float64[np.ndarray, " n"]
    inputs: PreparedSet
    weight: float


class Loop:
    """One fine-tuning run; ``run`` leaves the best weights in the potential.

    Attributes:
        history: Records so far.
        best_epoch: Epoch of the best weights so far.
        messages: What went wrong, in plain words.
        n_updates: Updates so far.
        trained: How many of the weights are trained.
    """

    def __init__(
        self,
        potential: TorchPotential,
        train: LabelledSet,
        valid: LabelledSet,
        reference: Float64[np.ndarray, " E"],
        recipe: Recipe,
        schedule: Schedule,
        seed: int,
        progress: Callable[[EpochRecord], None] | None,
        fixed_forces: str = "count",
        replay: PretrainingSet | None = None,
    ) -> None:
        """Set up a run.

        Args:
            potential: Trained in place, on its interaction energies.
            train: n_train structures.
            valid: Any number of structures.
            reference: (E,) float64, eV.
            recipe: The settings.
            schedule: What they come to.
            seed: Order of the structures.
            progress: Called with each record.
            fixed_forces: Whether the recorded errors count the forces of fixed atoms.
            replay: Structures from the pretraining; as many as of the training set are in each
                update.
        """
        self._potential, self._train, self._valid = potential, train, valid
        self._recipe, self._schedule, self._seed = recipe, schedule, seed
        self._progress, self._fixed_forces = progress, fixed_forces
        self._valid_reference = reference_of(valid.graphs, reference)
        network = potential.training_network(compiled=recipe.compiled)
        inputs = PreparedSet(network, train.graphs)
        self._new = _Part(train, reference_of(train.graphs, reference), inputs, 1.0)
        self._old = None if replay is None else self._take(replay)
        self._valid_inputs = PreparedSet(network, valid.graphs)
        self._moved, self.trained = parametrise(potential, recipe, seed=seed)
        self._weights = self._moved.weights
        self._anchor: Anchor | None = None
        self._average = snapshot(self._weights)
        self._good = self._best = snapshot(self._weights)
        self._factor = 1.0
        self._optimiser = self._new_optimiser()
        self._losses: list[float] = []
        self._best_loss = math.inf
        self._places = _shuffle(0 if replay is None else replay.labelled.n_structures, seed)
        self._n_backoffs = self._n_worse = 0
        self._begin = time.perf_counter()
        self.history: list[EpochRecord] = []
        self.messages: list[str] = []
        self.best_epoch = self.n_updates = 0

    def _take(self, replay: PretrainingSet) -> _Part | None:
        """Return what is replayed, or is known to an anchor alone; None where it serves nothing."""
        if not self._recipe.replay_weight and self._recipe.anchor != "ewc":
            return None
        network = self._new.inputs.network
        if self._recipe.replay_head is not None:
            other = on_replay_head(self._potential, self._recipe)
            network = other.training_network(compiled=self._recipe.compiled)
        inputs = PreparedSet(network, replay.labelled.graphs)
        return _Part(replay.labelled, replay.reference, inputs, self._recipe.replay_weight)

    def run(self) -> None:
        """Train until the schedule, the early stop or a divergence ends it."""
        with torch.enable_grad():
            for weight in self._weights:
                weight.requires_grad_(True)
            self._anchor = self._make_anchor()
            self._validate(0)
            every = math.ceil(self._schedule.n_epochs / self._recipe.max_validations)
            for epoch in range(1, self._schedule.n_epochs + 1):
                going = self._run_epoch(epoch)
                last = not going or epoch == self._schedule.n_epochs
                if (last or epoch % every == 0) and not self._validate(epoch):
                    break
                if last:
                    break
        restore(self._weights, self._best)

    def _run_epoch(self, epoch: int) -> bool:
        """Make one epoch's updates; return whether training may go on."""
        order = np.random.default_rng([self._seed, epoch]).permutation(self._train.n_structures)
        size = self._schedule.batch_size
        for begin in range(0, len(order), size):
            if self.n_updates >= self._schedule.n_updates:
                return False
            idx = order[begin : begin + size].tolist()
            if not self._update(idx) and not self._back_off(epoch):
                return False
        return True

    def _update(self, idx: list[int]) -> bool:
        """Take one step on some structures; return whether loss and gradient are finite."""
        self._optimiser.zero_grad(set_to_none=True)
        loss = self._differentiate(idx)
        if self._anchor is not None:
            self._anchor.add_gradient()
        self._moved.pull_back()
        limit = self._recipe.clip_norm if self._recipe.clip_norm is not None else math.inf
        norm = torch.nn.utils.clip_grad_norm_(self._moved.coordinates, limit)
        value = float(loss)
        self.n_updates += 1
        if not math.isfinite(value + float(norm)):
            return False
        self._losses.append(value)
        for group in self._optimiser.param_groups:
            group["lr"] = self._learning_rate() * group["factor"]
        self._optimiser.step()
        self._moved.write()
        self._follow()
        return True

    def _differentiate(self, idx: list[int]) -> Tensor:
        """Return the loss of some structures; its gradients are left with the weights.

        What is replayed is differentiated on its own, so that each part's means are its own.
        """
        loss, gradients = self._differentiate_part(self._new, idx)
        if self._old is not None and self._old.weight:
            chosen = list(islice(self._places, len(idx)))
            other, of_other = self._differentiate_part(self._old, chosen)
            loss = loss + self._old.weight * other
            torch._foreach_add_(gradients, of_other, alpha=self._old.weight)
        for weight, gradient in zip(self._weights, gradients, strict=True):
            weight.grad = gradient
        return loss

    def _differentiate_part(self, part: _Part, idx: list[int]) -> tuple[Tensor, list[Tensor]]:
        """Return the loss of some structures and its gradient by each weight."""
        batch, targets = part.inputs.batch(idx), self._targets(part, idx)
        network = part.inputs.network
        if isinstance(network, UpdatingNetwork):
            aims = weight_targets(targets, self._recipe)
            loss, found = network.loss_and_gradients(batch, aims)
            chosen = [found[place] for place in self._moved.places]
            # The fused optimiser takes both as memory, in whatever order the entries lie.
            pairs = zip(self._weights, chosen, strict=True)
            return loss, [torch.empty_like(weight).copy_(each) for weight, each in pairs]
        energies, forces, stresses = part.inputs.evaluate(
            batch, training=True, stress=targets.stresses is not None
        )
        loss = weighted_huber_loss(energies, forces, targets, self._recipe, stresses)
        for weight in self._weights:
            weight.grad = None
        loss.backward(inputs=self._weights)  # type: ignore[no-untyped-call]
        gradients = [
            torch.zeros_like(weight) if weight.grad is None else weight.grad
            for weight in self._weights
        ]
        return loss.detach(), gradients

    @torch.no_grad()
    def _follow(self) -> None:
        """Let the moving average follow the weights, faster at first."""
        decay = self._recipe.ema_decay
        if decay is None:
            torch._foreach_copy_(self._average, self._weights)
            return
        decay = min(decay, (1 + self.n_updates) / (10 + self.n_updates))
        torch._foreach_lerp_(self._average, self._weights, 1 - decay)

    def _learning_rate(self) -> float:
        rate = self._schedule.learning_rate * self._factor
        if self._recipe.annealing == "none":
            return rate
        left = 1 - (self.n_updates - 1) / self._schedule.n_updates
        return rate * min(1.0, 2 * left)

    def _validate(self, epoch: int) -> bool:
        """Record the averaged weights' errors; return whether training should go on."""
        now = snapshot(self._weights)
        restore(self._weights, self._average)
        found = self._evaluate() if self._valid.n_structures else None
        averaged = snapshot(self._weights)
        restore(self._weights, now)
        loss = None if found is None else self._loss_of(found)
        self._record(epoch, loss, None if found is None else found.errors)
        if loss is not None and not math.isfinite(loss):
            return self._back_off(epoch)
        self._good = averaged
        if loss is None or loss < self._best_loss:
            self._best, self.best_epoch, self._n_worse = averaged, epoch, 0
            self._best_loss = loss if loss is not None else math.inf
            return True
        self._n_worse += 1
        patience = self._recipe.early_stop_patience
        return patience is None or self._n_worse < patience

    def _targets(self, part: _Part, idx: list[int]) -> Targets:
        return collate_targets(
            part.labelled,
            part.reference,
            idx,
            dtype=self._potential.dtype,
            device=self._potential.device,
            fixed_forces=self._recipe.loss_fixed_forces,
            stress=self._recipe.stress_weight > 0,
        )

    def _evaluate(self) -> Evaluation:
        for weight in self._weights:
            weight.requires_grad_(False)
        known = self._valid.has_stress
        energies, forces, stresses = self._valid_inputs.predict(stress=bool(known.any()))
        for weight in self._weights:
            weight.requires_grad_(True)
        return compare(
            energies + self._valid_reference,
            forces,
            self._valid,
            fixed_forces=self._fixed_forces,
            stresses=stresses,
        )

    def _loss_of(self, found: Evaluation) -> float:
        """Return the recipe's loss of the whole validation set as one batch."""
        valid, delta = self._valid, self._recipe.huber_delta
        energy = (found.energies - valid.energies) / valid.atom_counts
        force = np.concatenate(found.forces) - np.concatenate(valid.forces)
        of_energy = of_force = None
        if valid.is_weighted:
            of_energy = valid.energy_weights
            of_force = np.repeat(valid.forces_weights, valid.atom_counts)[:, None]
        if self._recipe.loss_fixed_forces == "exclude":
            free = np.concatenate(valid.free)
            force = force[free]
            of_force = None if of_force is None else of_force[free]
        return float(
            self._recipe.energy_weight * mean_huber(energy, delta, of_energy)
            + self._recipe.forces_weight * mean_huber(force, delta, of_force)
            + self._recipe.stress_weight * self._stress_loss_of(found)
        )

    def _stress_loss_of(self, found: Evaluation) -> float:
        """Return the mean of Huber's function over the stress components that have labels."""
        if found.stresses is None:
            return 0.0
        known = self._valid.has_stress
        difference = (found.stresses - self._valid.stresses)[known]
        of_stress = self._valid.stress_weights[known][:, None, None]
        return mean_huber(difference, self._recipe.huber_delta, of_stress)

    def _record(self, epoch: int, loss: float | None, errors: ErrorTable | None) -> None:
        record = EpochRecord(
            epoch=epoch,
            updates=self.n_updates,
            learning_rate=self._learning_rate() if self.n_updates else 0.0,
            train_loss=float(np.mean(self._losses)) if self._losses else None,
            valid_loss=loss,
            valid=errors,
            seconds=time.perf_counter() - self._begin,
        )
        self._losses = []
        self.history.append(record)
        if self._progress is not None:
            self._progress(record)

    def _back_off(self, epoch: int) -> bool:
        """Go back to the last good weights with half the learning rate, a few times."""
        self._n_backoffs += 1
        restore(self._weights, self._good)
        self._moved.restart()
        self._average = snapshot(self._weights)
        if self._n_backoffs > self._recipe.max_backoffs:
            self.messages.append(
                f"The loss was not finite again in epoch {epoch} after {self._recipe.max_backoffs} "
                "halvings of the learning rate: the fine-tuning stopped there and kept the best "
                "weights so far. Check the labels for outliers, or lower the learning rate."
            )
            return False
        self._factor /= 2
        self._optimiser = self._new_optimiser()
        rate = self._schedule.learning_rate * self._factor
        self.messages.append(
            f"The loss was not finite in epoch {epoch} (update {self.n_updates}): the last good "
            f"weights were restored and the learning rate halved to {rate:g}."
        )
        return True

    def _make_anchor(self) -> Anchor | None:
        """Return the recipe's penalty, with the weights as they are for its start."""
        recipe, fisher = self._recipe, None
        if recipe.anchor == "none":
            return None
        if recipe.anchor == "ewc":
            known = self._new if self._old is None else self._old
            fisher = estimate_fisher(
                known.inputs, known.labelled.has_stress, self._weights, recipe, seed=self._seed
            )
        return Anchor(self._weights, recipe.penalty_weight, fisher)

    def _new_optimiser(self) -> torch.optim.Optimizer:
        fused = self._potential.device.type in ("cpu", "cuda")
        return torch.optim.AdamW(  # without decay it is Adam
            [{"params": tensors, "factor": factor} for factor, tensors in self._moved.groups],
            lr=self._schedule.learning_rate,
            weight_decay=self._recipe.weight_decay,
            amsgrad=self._recipe.amsgrad,
            fused=fused,
        )


def _shuffle(n: int, seed: int) -> Iterator[int]:
    """Yield the numbers below n in ever new orders, without end."""
    for turn in count() if n else ():
        yield from np.random.default_rng([seed, turn, 1]).permutation(n).tolist()


def mean_huber(difference: np.ndarray, delta: float, weights: np.ndarray | None = None) -> float:
    """Return the mean of Huber's function, a parabola within ±delta and lines beyond; 0 of none.

    Args:
        difference: Any shape.
        delta: Where the parabola ends, in the same unit.
        weights: By which each value is multiplied, of a shape that fits; None for 1.
    """
    size = np.abs(difference)
    values = np.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta))
    if weights is not None:
        values = values * weights
    return float(values.mean()) if values.size else 0.0
