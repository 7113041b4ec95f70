"""A rule, a representation and a labeller of a user's: one file each, and nothing else touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import labelwise
from tests.campaign.building import write_campaign, write_data

RULE = """
import numpy as np

from labelwise import Rule, Selection, register_rule


def select_smallest_norm(pool, train, n_select, *, seed=0):
    diagonal = pool.diagonal64().cpu().numpy()
    picks = np.argsort(diagonal, kind="stable")[:n_select]
    return Selection(picks, diagonal[picks])


register_rule(
    Rule(
        "smallest",
        select_smallest_norm,
        says="the smallest norm",
        score_name="squared norm",
        why="Its squared norm, {score:.3g}, was among the {n_picks} smallest {of_what}.",
        normalise="none",
    )
)
"""

REPRESENTATION = '''
import numpy as np

from labelwise import register_representation
from labelwise.features.representations import StructureRepresentation


class Counts(StructureRepresentation):
    """How many atoms of each element a structure has, and how far they reach."""

    name = "counts"

    def size(self):
        return 119

    def compute(self, structures):
        rows = np.array([np.bincount(atoms.numbers, minlength=119) for atoms in structures])
        rows = rows.reshape(-1, 119).astype(np.float32)
        rows[:, 0] = [np.square(atoms.positions).sum() for atoms in structures]
        return rows


register_representation("counts", lambda options: Counts())
'''

LABELLER = """
import numpy as np

from labelwise import register_labeller
from labelwise.campaign.labelling import Failure, Label, LabellerSettings


class SpringSettings(LabellerSettings):
    stiffness: float


class SpringLabeller:
    name = "spring"

    def __init__(self, stiffness):
        self.stiffness = stiffness

    def label(self, queue):
        while queue:
            task = queue.popleft()
            offset = task.atoms.positions - task.atoms.positions.mean(axis=0)
            energy = 0.5 * self.stiffness * float(np.square(offset).sum()) - 30.0 * len(offset)
            yield Label(task.key, energy, -self.stiffness * offset)


def make_spring(settings, where):
    return SpringLabeller(settings.stiffness)


register_labeller("spring", make_spring, SpringSettings)
"""


POTENTIAL = """
import torch

from labelwise.potentials import PotentialFamily, TorchPotential, register_potential
from labelwise.potentials.loading import KnownModel


class Springs(TorchPotential):
    block_prefixes = {"embedding": ("weight",)}

    def __init__(self):
        model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(model.weight)
        size = {"cutoff": 2.0, "activation_size": 1}
        super().__init__(model, name="springs", elements=(1, 6, 7, 8), **size)

    def interaction_energies(self, batch, *, positions=None, embedding=None):
        positions = batch.positions if positions is None else positions
        sender, receiver = batch.edge_index
        lengths = (positions[receiver] - positions[sender] + batch.shifts).square().sum(dim=1)
        atoms = self.model(lengths[:, None])[:, 0]
        total = atoms.new_zeros(batch.n_structures)
        return total.index_add(0, batch.structure_idx[receiver], atoms)

    def activations(self, batch):
        return self.interaction_energies(batch).detach()[:, None]


class SpringFamily(PotentialFamily):
    name = "springs"

    def known_models(self):
        return [KnownModel("spring-1", self.name, "package", "MIT")]

    def recognises(self, spec):
        return spec == "spring-1"

    def load(self, spec, *, device, dtype, head, trust):
        return Springs()


register_potential(SpringFamily())
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, four modules, and a package that names two of them in its entry points."""
    folder = tmp_path_factory.mktemp("adding")
    write_data(folder / "data", labelled=False)
    codes = {"rule": RULE, "representation": REPRESENTATION, "labeller": LABELLER}
    for name, code in {**codes, "potential": POTENTIAL}.items():
        (folder / f"my_{name}.py").write_text(code)
    package = folder / "springs-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: springs\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        "[labelwise.labellers]\nsprings = my_labeller\n"
        "[labelwise.potentials]\nsprings = my_potential\n"
    )
    return folder


def run(files: Path, *words: str, plugins: str = "my_rule, my_representation"):
    paths = os.pathsep.join([str(files), str(Path(labelwise.__file__).parents[1])])
    environment = {**os.environ, "PYTHONPATH": paths, "LABELWISE_PLUGINS": plugins}
    return subprocess.run(
        [sys.executable, "-m", "labelwise", *words],
        cwd=files,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_rule_and_a_representation_on_the_command_line(files: Path) -> None:
    words = ["select", "--pool", "data/pool.extxyz", "-n", "3", "--force"]
    done = run(files, *words, "-r", "counts", "--rule", "smallest", "--report", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    scores = [pick["score"] for pick in record["picks"]]
    assert scores == sorted(scores)
    assert record["settings"]["normalise"] == "none"
    assert (files / "batch.html").is_file()


def test_a_family_of_models_on_the_command_line(files: Path) -> None:
    done = run(files, "models", "--json", plugins="")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert {"name": "springs", "installed": True, "extra": None} in content["families"]
    assert "spring-1" in [model["name"] for model in content["models"]]
    words = ["select", "--model", "springs:spring-1", "--pool", "data/pool.extxyz", "-n", "2"]
    done = run(files, *words, "-r", "ntk-e", "--json", "--force", plugins="")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["name"] == "springs"


def test_a_campaign_with_all_three(files: Path) -> None:
    directory = write_campaign(
        files / "campaign",
        files / "data",
        selection={"rule": "smallest", "representation": "counts"},
        labeller={"kind": "spring", "stiffness": 2.0},
        stop={"rounds": 1},
    )
    done = run(files, "campaign", "run", str(directory), "--quiet")
    assert done.returncode == 0, done.stderr
    assert len((directory / "rounds.jsonl").read_text().splitlines()) == 2
    assert len((directory / "labels.jsonl").read_text().splitlines()) == 3


def test_mistakes_are_named(files: Path) -> None:
    words = ["select", "--pool", "data/pool.extxyz", "-n", "3", "--force", "--rule", "smallest"]
    unknown = run(files, *words, "-r", "random", plugins="")
    assert "rule is 'smallest'; allowed are joint-pv, k-center" in unknown.stderr
    absent = run(files, *words, "-r", "random", plugins="my_absent")
    assert absent.returncode != 0
    assert "the plugin 'my_absent' cannot be imported" in absent.stderr
    directory = write_campaign(
        files / "mistaken", files / "data", labeller={"kind": "spring", "stifness": 2.0}
    )
    told = run(files, "campaign", "run", str(directory)).stderr
    assert "labeller.stiffness: Field required" in told
    assert "labeller.stifness: unknown key; did you mean 'stiffness'" in told
    write_campaign(files / "mistaken", files / "data", labeller={"kind": "dft"})
    told = run(files, "campaign", "run", str(directory)).stderr
    assert "labeller: kind is 'dft'; allowed are calculator, files, replay, slurm, spring" in told
