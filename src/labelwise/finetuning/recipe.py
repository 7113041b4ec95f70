"""What a fine-tuning does: its settings, and the papers' schedules by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from labelwise.errors import ArgumentError
from labelwise.finetuning.weight_options import WeightOptions
from labelwise.runtime.settings import Setting

ScheduleName = Literal["reaction-paths", "fixed"]
Start = Literal["pretrained", "last", "scratch"]
ReferenceEnergies = Literal["auto", "refit", "labelled", "isolated", "given", "checkpoint"]
Annealing = Literal["none", "linear"]
#: Where the labels of structures like those of the pretraining come from.
PretrainingLabels = Literal["file", "model"]
#: Whether the forces of fixed atoms count in an error or a loss.
FixedForces = Literal["count", "exclude"]
#: Whether energy errors are of the structure or of an atom, for structures of different sizes.
EnergyErrors = Literal["total", "per-atom"]

#: Headings of the help.
LOSS, UPDATES = "Loss", "Updates"

# Batch size and learning rate up to so many training structures.
_REACTION_PATHS = ((20, 1, 1e-3), (100, 2, 5e-3), (None, 4, 5e-3))
_REACTION_PATHS_UPDATES = 1000
_REACTION_PATHS_MIN_EPOCHS = 10
_FIXED = (16, 0.01, 50)


@dataclass(frozen=True)
class Recipe(WeightOptions):
    """Every setting of a fine-tuning; those of ``WeightOptions`` say which weights it changes.

    The loss of a batch is w_E · mean over structures of h(ΔE / atoms) + w_F · mean over force
    components of h(ΔF) + w_S · mean over stress components of h(Δσ), of the structures that have
    a stress label, with Huber's h: energies per atom, because an error of the total grows
    with the structure, and one δ and one pair of weights would mean something else for every
    size. It is the loss that mace-torch calls ``huber``. Weights that a structure's info names
    multiply its terms and not the number that the mean divides by, as in mace-torch's
    ``weighted`` loss: ``config_weight`` times ``config_energy_weight`` the energy's,
    ``config_weight`` times ``config_forces_weight`` the forces', and so on the stress's.

    Attributes:
        schedule: ``reaction-paths``: batch size and learning rate (1, 1e-3) up to 20
            structures, (2, 5e-3) up to 100, (4, 5e-3) beyond, for max(10, ⌈1000 · batch / n⌉)
            epochs; ``fixed``: 50 epochs, batch 16, learning rate 0.01.
        energy_weight: w_E, dimensionless.
        forces_weight: w_F, dimensionless.
        stress_weight: w_S, dimensionless; without stress labels it means nothing, 0 leaves them
            out of the loss. mace-torch's losses ``huber`` and ``universal`` add the stress in the
            same way, in eV/Å³ and with the same δ; ten times the weight of the forces is what its
            foundation models were trained with (1, 10 and 100), because stress errors are small
            in these units: 1 GPa is 0.006 eV/Å³.
        replay_weight: What the loss of replayed structures counts beside that of the training
            structures: each update has as many of the ones as of the others, and its loss is the
            sum, each with means of its own. 0 replays nothing.
        replay_head: Fit two heads: what is replayed belongs to the head of this name, which the
            model has or which is split off the head in use, beginning as its equal; the new
            labels belong to the head in use, and none else is fitted. None fits one head to both.
        loss_fixed_forces: ``exclude`` leaves the forces of fixed atoms (``free_atoms`` says which
            are not) out of the loss, of training and of validation, and thereby out of the choice
            of the epoch; ``count`` does not look at constraints. A batch in which every atom is
            fixed then teaches its energies alone.
        huber_delta: Where h turns from a parabola into a line, eV/atom and eV/Å.
        amsgrad: AMSGrad in place of Adam.
        ema_decay: Decay per update of the moving average of the weights, which is what is
            validated and returned; None uses the weights themselves.
        clip_norm: Largest norm of the gradient over all parameters; None does not clip.
        annealing: ``linear`` lets the learning rate fall to zero over the second half of the
            updates; ``none`` keeps it. The papers are silent. With the SPICE checkpoint and random
            labels of natural_0 (one run each) ``linear`` took the test energy RMSE from 161 to
            130 meV with 40 labels and from 103 to 81 with 80, with 15 from 330 to 341; the
            force RMSE changed by at most 2 % each time.
        start: ``pretrained`` and ``last`` start from the weights of the given potential, which
            is for the caller to choose; ``scratch`` draws new weights from the seed.
        early_stop_patience: Stop after so many validations without a better one; None never.
        max_validations: Validations are spread over the epochs so that there are at most so
            many (the start not counted): with ten structures an epoch is ten updates, and
            validating on fifty structures after each would cost more than the training.
        reference_energies: ``auto`` keeps the isolated atoms' or the checkpoint's energies if
            they explain the labels as far as the training set can tell (``judge_references``),
            and is ``refit`` if they do not; from scratch it is ``isolated`` if there are any,
            else ``refit``. ``refit`` fits atomic energies to the training set, regularised
            towards ``isolated_atoms`` or, without them, the checkpoint's; ``labelled`` fits them
            to the validation set, too, for few training structures of few compositions, which
            leave atomic energies undetermined; ``isolated`` takes
            the isolated atoms, ``given`` takes ``given_energies``, ``checkpoint`` changes
            nothing.
        given_energies: Energies in eV by atomic number, for ``given``.
        reference_regularisation: Weight of the pull towards isolated atoms or checkpoint:
            (error of the model per atom / error of the guess)², by default (0.01 eV / 10 eV)².
            It falls with the square of the guess's error where that turns out to be larger.
        max_backoffs: How often a loss that is not finite is answered by the last good weights
            and half the learning rate before the fine-tuning stops.
        compiled: Compile updates and validations on the CPU: an update takes a third to a half
            of the time, and the same weights come out to rounding. The first fine-tuning of an
            architecture on a machine takes about a minute longer and needs a C++ compiler; the
            code is kept in ``~/.cache/labelwise`` or the folder that ``LABELWISE_CACHE`` names.

    Example:
        >>> from labelwise import Recipe
        >>> Recipe(train_blocks=("readout",), learning_rate=5e-4).huber_delta
        0.01

    Source: *Pretrained Model Representations as Acquisition Signals for Active Learning of
    MLIPs*, appendix B.
    """

    schedule: Annotated[
        str, Setting("reaction-paths or fixed.", choices=get_args(ScheduleName), metavar="TEXT")
    ] = "reaction-paths"
    batch_size: Annotated[
        int | None, Setting("Structures an update; by default the schedule's number.", ge=1)
    ] = None
    learning_rate: Annotated[
        float | None,
        Setting(
            "Learning rate at the start; by default the schedule's.",
            flags=("--learning-rate", "--lr"),
            gt=0.0,
        ),
    ] = None
    epochs: Annotated[
        int | None, Setting("Passes over --train; by default the schedule's number.", ge=1)
    ] = None
    max_updates: Annotated[
        int | None, Setting("Stop after so many, whatever the epochs.", ge=1)
    ] = None
    energy_weight: Annotated[
        float, Setting("Of the energy per atom in the loss.", ge=0.0, panel=LOSS)
    ] = 10.0
    forces_weight: Annotated[float, Setting("Of the forces in the loss.", ge=0.0, panel=LOSS)] = (
        10.0
    )
    stress_weight: Annotated[
        float, Setting("Of the stress in the loss, where labels have it.", ge=0.0, panel=LOSS)
    ] = 100.0
    replay_weight: Annotated[
        float,
        Setting("What the loss of --replay counts beside that of --train.", ge=0.0, panel=LOSS),
    ] = 1.0
    replay_head: Annotated[
        str | None,
        Setting(
            "Give --replay a head of this name, --train keeping the model's: pt_head.",
            metavar="NAME",
            panel=LOSS,
        ),
    ] = None
    loss_fixed_forces: Annotated[
        str,
        Setting(
            "exclude leaves the forces of fixed atoms out of the loss, count does not.",
            choices=get_args(FixedForces),
            panel=LOSS,
        ),
    ] = "count"
    huber_delta: Annotated[
        float,
        Setting(
            "Errors beyond this count by their size, not its square: eV/atom, eV/Å.",
            gt=0.0,
            panel=LOSS,
        ),
    ] = 0.01
    amsgrad: Annotated[
        bool,
        Setting("AMSGrad, or Adam.", flags=("--amsgrad/--no-amsgrad",), panel=UPDATES),
    ] = True
    ema_decay: Annotated[
        float | None,
        Setting(
            "Decay of the moving average of the weights, which is returned; none returns the "
            "weights themselves.",
            ge=0.0,
            none="none",
            metavar="NUMBER|none",
            panel=UPDATES,
        ),
    ] = 0.99
    clip_norm: Annotated[
        float | None,
        Setting(
            "Longer gradients are cut to this norm; none cuts none.",
            gt=0.0,
            none="none",
            metavar="NUMBER|none",
            panel=UPDATES,
        ),
    ] = 10.0
    annealing: Annotated[
        str,
        Setting(
            "linear lets the learning rate fall to zero over the second half of the updates.",
            choices=get_args(Annealing),
            panel=UPDATES,
        ),
    ] = "linear"
    start: Annotated[
        str, Setting("pretrained or scratch.", choices=get_args(Start), metavar="TEXT")
    ] = "pretrained"
    early_stop_patience: Annotated[
        int | None,
        Setting("Stop after so many validations without a better one.", ge=1, panel=UPDATES),
    ] = None
    max_validations: Annotated[
        int, Setting("Validations in all, at most.", ge=1, panel=UPDATES)
    ] = 20
    reference_energies: Annotated[
        str,
        Setting(
            "auto, refit, labelled, isolated or checkpoint.",
            choices=get_args(ReferenceEnergies),
            metavar="TEXT",
        ),
    ] = "auto"
    given_energies: Mapping[int, float] = field(default_factory=dict)
    reference_regularisation: float = 1e-6
    max_backoffs: int = 5
    compiled: Annotated[
        bool,
        Setting(
            "Compile updates for this machine, once; needs the CPU and a C++ compiler.",
            flags=("--compile",),
        ),
    ] = False

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            ArgumentError: an unknown name, or a number out of range.
        """
        super().__post_init__()
        for name in ("reference_regularisation", "max_backoffs"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ArgumentError(f"{name} is {value}; allowed are finite numbers >= 0")
        if self.energy_weight == 0 and self.forces_weight == 0:
            raise ArgumentError("energy_weight and forces_weight are both 0; nothing is learnt")
        if self.ema_decay is not None and self.ema_decay >= 1:
            raise ArgumentError(f"ema_decay is {self.ema_decay}; allowed are 0 <= ema_decay < 1")
        if self.start == "scratch" and (self.lora_rank is not None or self.anchor != "none"):
            raise ArgumentError(
                "start is 'scratch', where there is nothing to keep: lora_rank and anchor are for "
                "pretrained weights"
            )
        if self.start == "scratch" and self.replay_head is not None:
            raise ArgumentError(
                "start is 'scratch', which replays nothing: replay_head is for pretrained weights"
            )
        if (self.reference_energies == "given") != bool(self.given_energies):
            raise ArgumentError(
                f"reference_energies is {self.reference_energies!r} and given_energies "
                f"{dict(self.given_energies)}; 'given' and energies in eV by atomic number "
                "belong together"
            )


@dataclass(frozen=True)
class Schedule:
    """What a recipe comes to for a training set.

    Attributes:
        batch_size: Structures per update; the last batch of an epoch may be smaller.
        learning_rate: Of the optimiser.
        n_epochs: Passes over the training set, the last one cut short by ``max_updates``.
        n_updates: Updates in all.
        updates_per_epoch: Updates in a whole epoch.
    """

    batch_size: int
    learning_rate: float
    n_epochs: int
    n_updates: int
    updates_per_epoch: int


def resolve_schedule(recipe: Recipe, n_train: int) -> Schedule:
    """Work out batch size, learning rate and length for a training set.

    Args:
        recipe: The settings; what they leave open, the named schedule decides.
        n_train: Training structures, at least 1.

    Returns:
        The schedule.

    Raises:
        ArgumentError: n_train < 1.

    Source: *Pretrained Model Representations as Acquisition Signals for Active Learning of
    MLIPs*, appendix B.
    """
    if n_train < 1:
        raise ArgumentError(f"n_train is {n_train}; allowed are integers >= 1")
    if recipe.schedule == "fixed":
        size, rate, epochs = _FIXED
    else:
        size, rate = next((b, r) for top, b, r in _REACTION_PATHS if top is None or n_train <= top)
    size = recipe.batch_size if recipe.batch_size is not None else size
    if recipe.schedule == "reaction-paths":
        wanted = math.ceil(_REACTION_PATHS_UPDATES * size / n_train)
        epochs = max(_REACTION_PATHS_MIN_EPOCHS, wanted)
    epochs = recipe.epochs if recipe.epochs is not None else epochs
    rate = recipe.learning_rate if recipe.learning_rate is not None else rate
    per_epoch = math.ceil(n_train / size)
    updates = epochs * per_epoch
    if recipe.max_updates is not None:
        updates = min(updates, recipe.max_updates)
    return Schedule(size, rate, math.ceil(updates / per_epoch), updates, per_epoch)
