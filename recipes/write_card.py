"""Measure the exported potential on held-out molecules and write its data card.

Run: ``python recipes/write_card.py`` after ``pretrain.py`` and ``make_reactions.py``.
"""

from __future__ import annotations

import argparse
import json
import lzma
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.io import read

from labelling import ELEMENTS, read_frames
from make_training_set import MAX_ENERGY_PER_ATOM, MAX_FORCE, MIN_HELD_OUT_HEAVY_ATOMS
from pretrain import ASSET, HERE, Sample, build, errors, make_sample

KINDS = {
    "conformer": "conformers (unrelaxed, half relaxed, relaxed)",
    "md_500K": "dynamics at 500 K",
    "md_1000K": "dynamics at 1000 K",
    "md_1500K": "dynamics at 1500 K",
    "md_2000K": "dynamics at 2000 K",
    "pulled": "a pair pulled together or apart, 500 K",
}


def error_rows(model: torch.nn.Module, groups: dict[str, list[Sample]]) -> list[dict[str, Any]]:
    """Return the errors of each group of frames, energies in meV/atom and forces in meV/Å."""
    rows = []
    for title, members in groups.items():
        forces = torch.cat([s.forces for s in members])
        rms = float(forces.square().mean().sqrt())
        rows.append({"title": title, "rms": rms, **errors(model, members)})
    return rows


def molecule_groups(samples: list[Sample]) -> dict[str, list[Sample]]:
    """Return the test frames by kind, all but the pulled ones together, and all together."""
    groups = {title: [s for s in samples if s.kind == kind] for kind, title in KINDS.items()}
    groups["**conformers and dynamics**"] = [s for s in samples if s.kind != "pulled"]
    return groups | {"**all, pulled pairs too**": samples}


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a Markdown table of errors."""
    yield (
        "| frames | n | E MAE, meV/atom | E RMSE, meV/atom | F MAE, meV/Å | F RMSE, meV/Å "
        "| RMS force, eV/Å |"
    )
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        numbers = " | ".join(
            f"{row[key]:.1f}" for key in ("energy_mae", "energy_rmse", "force_mae", "force_rmse")
        )
        yield f"| {row['title']} | {row['frames']} | {numbers} | {row['rms']:.2f} |"


def reaction_rows(model: torch.nn.Module, e0: np.ndarray, r_max: float) -> list[dict[str, Any]]:
    """Return the errors on the test frames of the demo reactions, by reaction."""
    packed = (ASSET.parent / "demo_reactions" / "test.extxyz.xz").read_bytes()
    frames: list[Atoms] = read(StringIO(lzma.decompress(packed).decode()), ":", format="extxyz")
    samples = [make_sample(frame, e0, r_max) for frame in frames]
    names = sorted({s.kind for s in samples})
    groups = {name: [s for s in samples if s.kind == name] for name in names}
    return error_rows(model, groups | {"**all**": samples})


def data_lines(folder: Path) -> Iterator[str]:
    """Yield the table of molecules and frames in each split."""
    yield "| split | molecules | frames | " + " | ".join(KINDS) + " |"
    yield "|" + "---|" * (3 + len(KINDS))
    for name in ("train", "valid", "test"):
        frames = read_frames(folder / f"{name}.extxyz")
        kinds = [frame.info["config_type"] for frame in frames]
        molecules = {frame.info["molecule"] for frame in frames}
        counts = " | ".join(str(kinds.count(kind)) for kind in KINDS)
        yield f"| {name} | {len(molecules)} | {len(frames)} | {counts} |"


def introduction(training: dict[str, Any]) -> str:
    """Return the head of the card and what the data are."""
    return f"""# demo_potential: a small MACE for H, C, N, O

Made by the recipes of this repository; this card was written by `python recipes/write_card.py`.
Licence: MIT, ours, as are the data that it was fitted to.

## Data

Level of theory: {training["level_of_theory"]}. Molecules: `recipes/molecules.smi` (H C N O, at most
nine heavy atoms, closed shell, neutral), less every endpoint of the demo reactions with three heavy
atoms or more. Frames: RDKit conformers along a relaxation, Langevin dynamics, and dynamics with a
random pair pulled together or apart. Left out: SCF failures, forces above {MAX_FORCE:g} eV/Å,
energies more than {MAX_ENERGY_PER_ATOM:g} eV/atom above the molecule's lowest, molecules that came
apart. The splits are by molecule; molecules of fewer than {MIN_HELD_OUT_HEAVY_ATOMS} heavy atoms
are all in train, as no other molecule could teach their bonds.
"""


def training_section(training: dict[str, Any]) -> str:
    """Return how the model was trained, with its validation errors on the way."""
    rows = "\n".join(
        f"| {h['seconds'] / 60:.0f} | {h['energy_rmse']:.1f} | {h['force_rmse']:.1f} |"
        for h in training["history"]
    )
    return f"""## Training

{training["updates"]} updates of {training["batch_size"]} frames ({training["epochs"]} epochs begun)
in {training["seconds"] / 60:.0f} minutes on one CPU core. Adam (AMSGrad), learning rate
{training["learning_rate"]:g} with a cosine to zero, Huber loss on energies per atom and on forces,
and a moving average of the weights, which is what is shipped. Command: `{training["command"]}`.

| minutes | valid E RMSE, meV/atom | valid F RMSE, meV/Å |
|---|---|---|
{rows}
"""


LIMITS = """## Limits

Neutral closed-shell molecules of H, C, N, O up to about nine heavy atoms, in vacuum; no periodic
systems, ions or radicals. GFN2-xTB is the reference, so the potential inherits that method's
errors. Bond breaking was sampled only by random pulls: on reaction paths the errors are larger,
which is what the demo is about. Two molecules apart were hardly seen. It is a small model for
demonstrations and tests, not for production.
"""


def card(content: dict[str, Any], model: torch.nn.Module, folder: Path) -> str:
    """Return the card; every figure is measured here or recorded by the run."""
    config, training = content["config"], content["training"]
    e0 = np.array(config["atomic_energies"])
    test = [make_sample(a, e0, config["r_max"]) for a in read_frames(folder / "test.extxyz")]
    atoms = ", ".join(f"{s} {e:.6f}" for s, e in zip(ELEMENTS, e0, strict=True))
    parameters = sum(p.numel() for p in model.parameters())
    settings = "\n".join(f"{key}: {json.dumps(value)}" for key, value in config.items())
    sections = [
        introduction(training),
        "\n".join(data_lines(folder)) + f"\n\nFree atoms (eV): {atoms}.\n",
        (
            f"## Model\n\n{content['model_class']} of mace-torch, {parameters} parameters, "
            f"float32:\n\n```\n{settings}\n```\n"
        ),
        training_section(training),
        "## Errors on held-out molecules\n",
        "\n".join(table(error_rows(model, molecule_groups(test)))) + "\n",
        "## Errors on demo_reactions/test, before any fine-tuning\n",
        "\n".join(table(reaction_rows(model, e0, config["r_max"]))) + "\n",
        LIMITS,
    ]
    return "\n".join(sections)


def main() -> None:
    """Evaluate the asset and write the card beside it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=HERE / "made" / "training")
    parser.add_argument("--potential", type=Path, default=ASSET)
    args = parser.parse_args()
    torch.set_num_threads(1)
    content = torch.load(args.potential, weights_only=True)
    model = build(content["config"])
    model.load_state_dict(content["state_dict"])
    text = card(content, model, args.folder)
    args.potential.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
