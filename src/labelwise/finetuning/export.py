"""Writing a fine-tuned potential: weights only, or as a mace-torch model."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from labelwise.errors import ArgumentError
from labelwise.finetuning.trainable import require_trainable
from labelwise.potentials import Potential
from labelwise.potentials.mace.checkpoint import mace_warnings_silenced, save_checkpoint
from labelwise.runtime.files import whole_file

_SUFFIXES = (".pt", ".model")


def save_potential(potential: Potential, path: str | os.PathLike[str]) -> None:
    """Write a potential to a file, whole or not at all.

    ``.pt`` is a weights-only checkpoint, which runs no code when it is read; ``.model`` is the
    pickled module that mace-torch, its ASE calculator and its LAMMPS and OpenMM exporters take.
    ``load_potential`` reads both. The module is written on the CPU with gradients on, as
    mace-torch writes it.

    Args:
        potential: A MACE potential; it is not modified.
        path: File, ending in ``.pt`` or ``.model``; an existing one is replaced.

    Raises:
        ArgumentError: another ending.
        PotentialError: a potential of a family that cannot be written.
        WriteError: the file cannot be written.
    """
    target = Path(path)
    if target.suffix not in _SUFFIXES:
        raise ArgumentError(
            f"path is {str(target)!r}; allowed are names ending in {' or '.join(_SUFFIXES)}"
        )
    model = require_trainable(potential).model
    with mace_warnings_silenced(), whole_file(target) as temporary, temporary.open("wb") as stream:
        torch.save(save_checkpoint(model) if target.suffix == ".pt" else _on_cpu(potential), stream)


def _on_cpu(potential: Potential) -> torch.nn.Module:
    from labelwise.finetuning.trainable import copy_potential

    model: torch.nn.Module = copy_potential(potential).model
    return model.cpu().requires_grad_(True)
