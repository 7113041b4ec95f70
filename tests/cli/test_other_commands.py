from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.sparse import csr_array

import labelwise
from labelwise.cli import main
from labelwise.cli.app import spread_many_valued
from labelwise.features.feature_file import write_features
from labelwise.features.representations import SparseRows
from labelwise.features.representations.morgan import SINGLE_BONDS
from labelwise.potentials import Batch, Potential
from labelwise.structures import Frame, iter_frames, read_structures, write_structures


def read_features(path: Path) -> SimpleNamespace:
    """Return what ``represent --out`` wrote, arrays by name."""
    with np.load(path, allow_pickle=False) as archive:
        found = {name: archive[name] for name in archive.files}
    if "sparse_values" in found:
        parts = (found[f"sparse_{name}"] for name in ("values", "columns", "starts"))
        rows = csr_array(tuple(parts), shape=tuple(found["sparse_shape"]))
        found["features"] = SparseRows(rows)
    return SimpleNamespace(**found | {"metadata": json.loads(str(found["metadata"]))})


@pytest.fixture
def pool_file(
    tmp_path: Path, rattled_molecules: list[Atoms], monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.chdir(tmp_path)
    structures = [*rattled_molecules[:10], Atoms("H"), *rattled_molecules[10:]]
    write_structures(tmp_path / "pool.extxyz", structures)
    return tmp_path / "pool.extxyz"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == labelwise.__version__


def test_no_words_show_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert "Usage: " in captured.out
    assert captured.err == ""


@pytest.mark.parametrize(
    "command",
    ["select", "represent", "finetune", "campaign", "models", "doctor", "demo"],
)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "Usage:" in capsys.readouterr().out


def test_options_take_many_values() -> None:
    assert spread_many_valued(["select", "--pool", "a", "b", "c", "-n", "3", "--train", "d"]) == [
        "select", "--pool", "a", "--pool", "b", "--pool", "c", "-n", "3", "--train", "d",
    ]  # fmt: skip
    assert spread_many_valued(["x", "--pool", "--quiet", "a"]) == ["x", "--pool", "--quiet", "a"]
    assert spread_many_valued(["x", "--pool=a", "b"]) == ["x", "--pool=a", "b"]


def test_models_lists_what_load_potential_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    families = {family["name"]: family for family in content["families"]}
    assert families["mace"]["installed"]
    assert families["sevennet"]["extra"] == "sevenn"
    names = [model["name"] for model in content["models"]]
    for name in ("demo", "mace-off-small", "mace-mp-medium", "mace-omol"):
        assert any(known.startswith(name) for known in names)
    assert main(["models"]) == 0
    assert "mace-off-small" in capsys.readouterr().out


def test_represent_writes_rows_of_the_library(
    pool_file: Path, model_path: Path, potential: Potential
) -> None:
    words = ["represent", "--model", str(model_path), "--trust-model", "--pool", "pool.extxyz"]
    assert main([*words, "--out", "f.npz"]) == 0
    found = read_features(Path("f.npz"))
    structures = read_structures(pool_file)
    assert found.index.tolist() == [*range(10), *range(11, 31)]
    assert found.source_frame.tolist() == found.index.tolist()
    assert set(found.source_file) == {"pool.extxyz"}
    expected = labelwise.represent([structures[i] for i in found.index], potential)
    np.testing.assert_allclose(found.features, expected, rtol=1e-4, atol=1e-6)
    assert found.metadata["representation"] == "ntk-e"
    assert found.metadata["model"]["content_hash"] == potential.content_hash
    assert not Path("f.npz.part").exists()
    assert main([*words, "--out", "f.npz"]) == 1  # not replaced without --force
    assert main([*words, "--out", "f.npz", "--force"]) == 0


def test_represent_keeps_rows_as_they_are_and_says_what_their_parts_are(
    pool_file: Path, model_path: Path, potential: Potential
) -> None:
    words = ["represent", "--model", str(model_path), "--trust-model", "--pool", "pool.extxyz@:4"]
    words += ["-r", "ntk-ef", "--reduction", "rms", "--n-probes", "2", "--energy-weight", "0.25"]
    assert main([*words, "--out", "f.npz", "-q"]) == 0
    found = read_features(Path("f.npz"))
    structures = read_structures("pool.extxyz@:4")
    expected = labelwise.represent(structures, potential, "ntk-ef", reduction="rms", n_probes=2)
    np.testing.assert_allclose(found.features, expected, rtol=1e-4, atol=1e-6)
    n_weights = potential.tangent_size()
    assert found.metadata["blocks"] == [
        {"size": n_weights, "weight": 0.25},
        {"size": n_weights, "weight": 0.75},
    ]
    assert found.metadata["n_probes"] == 2 and found.metadata["reduction"] == "rms"


def frames_until_killed(path: Path, n_frames: int) -> Iterator[Frame]:
    """Yield so many frames and then end as Ctrl-C does."""
    yield from itertools.islice(iter_frames(path), n_frames)
    raise KeyboardInterrupt


def test_a_killed_run_goes_on_where_it_was(pool_file: Path, potential: Potential) -> None:
    metadata = {"run": 1}
    target = Path("f.npz")
    with pytest.raises(KeyboardInterrupt):
        write_features(
            target,
            frames_until_killed(pool_file, 17),
            potential,
            metadata=metadata,
            chunk_size=5,
        )
    saved = sorted(path.name for path in Path("f.npz.part").glob("chunk_*"))
    assert saved == ["chunk_000000.npz", "chunk_000001.npz", "chunk_000002.npz"]
    assert not target.exists()

    events = []
    n_rows, screened = write_features(
        target,
        iter_frames(pool_file),
        potential,
        metadata=metadata,
        chunk_size=5,
        progress=lambda stage, done, _: events.append((stage, done)),
    )
    assert [done for stage, done in events if stage == "resume"] == [5, 10, 15]
    assert [done for stage, done in events if stage == "represent"] == [20, 25, 30, 31]
    assert n_rows == 30
    assert [item.index for item in screened] == [10]
    resumed = read_features(target).features
    target.unlink()
    write_features(target, iter_frames(pool_file), potential, metadata=metadata, chunk_size=5)
    np.testing.assert_array_equal(resumed, read_features(target).features)


def test_rows_that_are_not_finite_are_left_out(pool_file: Path, potential: Potential) -> None:
    class HalfBlind(type(potential)):
        """Gives NaN for water, as an overflow in single precision would."""

        def activations(self, batch: Batch) -> torch.Tensor:
            water = torch.tensor([n == 3 for n in batch.atom_counts])
            return super().activations(batch).masked_fill(water[:, None], torch.nan)

    blind = copy.copy(potential)
    blind.__class__ = HalfBlind
    n_small = sum(len(atoms) == 3 for atoms in read_structures(pool_file))
    n_rows, screened = write_features(
        Path("f.npz"), iter_frames(pool_file), blind,
        metadata={}, representation="activation", chunk_size=7,
    )  # fmt: skip
    reasons = [item.reason for item in screened]
    assert reasons.count("non-finite-features") == n_small > 0
    assert n_rows == 31 - 1 - n_small
    found = read_features(Path("f.npz"))
    assert np.isfinite(found.features).all()
    assert set(found.index.tolist()).isdisjoint(item.index for item in screened)


def test_the_beginning_of_another_run_is_not_continued(
    pool_file: Path, model_path: Path, potential: Potential, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_features(
            Path("f.npz"), frames_until_killed(pool_file, 7), potential,
            metadata={"representation": "other"}, chunk_size=5,
        )  # fmt: skip
    words = ["represent", "--model", str(model_path), "--trust-model", "--pool", "pool.extxyz"]
    assert main([*words, "--out", "f.npz"]) == 1
    assert "beginning of another run (different:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words,message",
    [
        (["--pool", "pool.extxyz", "--out", "f.txt"], "must end in .npz"),
        (["--pool", "pool.extxyz"], "needs a model"),
        (["--pool", "empty.xyz", "-r", "random"], "nothing to represent"),
        (["--pool", "absent.xyz", "-r", "random"], "no such file"),
    ],
)
def test_mistakes_in_represent(
    words: list[str], message: str, pool_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty.xyz").write_text("")
    assert main(["represent", *words]) == 1
    assert message in capsys.readouterr().err


def test_demo_files_and_the_readme_s_first_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 0
    assert main(["demo"]) == 1
    assert main(["demo", "--force"]) == 0
    capsys.readouterr()
    words = ["--train", "demo/train.extxyz", "--pool", "demo/pool.extxyz@::4", "-n", "10"]
    code = main(["select", "--model", "demo", *words, "--group-by", "reaction"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert captured.err == ""  # no warning: the embedded model runs no code
    assert "reaction" in captured.out
    assert len(read_structures("batch.extxyz")) == 10


def test_doctor_checks_the_embedded_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "--device", "cpu"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [check["name"] for check in report["checks"]] == [
        "load",
        "forces",
        "invariance",
        "select",
        "report",
        "mace models",
        *(["sevennet models"] if find_spec("sevenn") else []),
        *(["chgnet models"] if find_spec("chgnet") else []),
    ]
    assert all(check["passed"] for check in report["checks"])
    assert report["versions"]["torch"]


def test_represent_names_the_columns_of_soap(
    pool_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pool_file.parent
    words = ["represent", "--pool", "pool.extxyz", "-r", "soap", "-o", "soap.npz", "--force"]
    assert main(words) == 0
    found = read_features(folder / "soap.npz")
    structures = labelwise.read_structures("pool.extxyz")
    chosen = [structures[i] for i in found.index]
    expected = labelwise.represent(chosen, None, "soap")
    np.testing.assert_array_equal(found.features, expected)
    assert found.column_names is not None and found.columns is not None
    assert found.column_names[0] == "H-H 0"
    assert found.column_names.shape == found.columns.shape == (expected.shape[1],)
    monkeypatch.setattr("labelwise.features.feature_file.MOST_DENSE_COLUMNS", 10)
    assert main(words) == 0
    sparse = read_features(folder / "soap.npz").features
    assert isinstance(sparse, SparseRows)
    np.testing.assert_array_equal(sparse.to_dense(found.columns), expected)


def test_represent_counts_bonds_that_were_not_perceived(
    pool_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pool_file.parent
    write_structures(folder / "metal.extxyz", [Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.2]])])
    words = ["represent", "--pool", "pool.extxyz", "metal.extxyz", "-r", "morgan"]
    assert main([*words, "-o", "bits.npz", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["remarks"] == {SINGLE_BONDS: 1}
    bits = read_features(folder / "bits.npz").features
    assert set(np.unique(bits)) == {0.0, 1.0}
