from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import urllib.error
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import molecule

from labelwise.errors import (
    ArgumentError,
    MissingDependencyError,
    PotentialError,
    UnknownNameError,
)
from labelwise.finetuning.export import save_potential
from labelwise.potentials import find_model_file, list_models, load_potential
from labelwise.potentials import loading as loading_module
from labelwise.potentials.mace.checkpoint import mace_warnings_silenced, save_checkpoint
from labelwise.potentials.mace.loading import MaceFamily, make_potential
from labelwise.potentials.mace.names import find_download, list_downloads
from labelwise.potentials.spec import split_family
from tests.potentials.hostile import HOSTILE_KINDS, HOSTILE_NAMES, write_hostile
from tests.potentials.models import VARIANTS, make_mace


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.model"
    with mace_warnings_silenced():
        torch.save(make_mace(), path)
    return path


def test_a_model_file_loads_and_is_the_model(model_file: Path) -> None:
    potential = load_potential(model_file, trust=True)
    original = make_potential(make_mace(), name="in memory")
    assert potential.content_hash == original.content_hash
    assert potential.name == str(model_file)
    assert potential.dtype == torch.float64
    assert potential.elements == (1, 6, 8)
    assert potential.cutoff == 3.5


@pytest.mark.parametrize("dtype", ["float32", "float64", torch.float32])
def test_types_are_converted_on_request(model_file: Path, dtype: Any) -> None:
    potential = load_potential(model_file, dtype=dtype, trust=True, device="cpu")
    batch = potential.collate([potential.prepare(molecule("CH3OH"))])
    assert potential.energy_tangent(batch).dtype == potential.dtype
    assert str(dtype).removeprefix("torch.") == str(potential.dtype).removeprefix("torch.")
    assert torch.get_default_dtype() == torch.float32


def test_a_pickle_is_refused_unless_trusted(model_file: Path) -> None:
    with pytest.raises(PotentialError, match=r"runs code from it: pass --trust-model") as caught:
        load_potential(model_file)
    assert str(model_file) in str(caught.value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_potential(model_file, trust=True)


def test_the_remedy_for_a_machine_without_trust_works(model_file: Path, tmp_path: Path) -> None:
    trusted = load_potential(model_file, trust=True, device="cpu")
    save_potential(trusted, tmp_path / "name.pt")
    converted = load_potential(tmp_path / "name.pt", device="cpu")
    assert converted.content_hash == trusted.content_hash


def test_files_in_the_cache_of_mace_are_trusted(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cached = tmp_path / "cache" / "mace" / "cached.model"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(model_file.read_bytes())
    load_potential(cached)


def test_weights_only_checkpoints_run_no_code_and_need_no_trust(tmp_path: Path) -> None:
    path = tmp_path / "plain.pt"
    torch.save(save_checkpoint(make_mace()), path)
    potential = load_potential(path)
    assert potential.content_hash == make_potential(make_mace(), name="memory").content_hash


@pytest.mark.parametrize("kind", HOSTILE_KINDS)
@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_refused_file_ran_no_code(kind: str, name: str, tmp_path: Path) -> None:
    """Whatever a file is called and however it was pickled, it must not run."""
    path, marker = tmp_path / name, tmp_path / "ran"
    write_hostile(path, kind, marker)
    with pytest.raises(PotentialError, match=re.escape(str(path))):
        load_potential(path)
    assert not marker.exists()


@pytest.mark.parametrize("kind", HOSTILE_KINDS)
def test_a_pt_file_runs_no_code_even_if_trusted(kind: str, tmp_path: Path) -> None:
    path, marker = tmp_path / "model.pt", tmp_path / "ran"
    write_hostile(path, kind, marker)
    with pytest.raises(PotentialError) as caught:
        load_potential(path, trust=True)
    assert "weights_only" not in str(caught.value)  # torch's advice to load it all the same
    assert not marker.exists()


def test_the_hostile_files_would_run(tmp_path: Path) -> None:
    """Otherwise the tests above could not fail."""
    path, marker = tmp_path / "x.model", tmp_path / "ran"
    write_hostile(path, "archive", marker)
    with pytest.raises(PotentialError):
        load_potential(path, trust=True)
    assert marker.exists()


def test_a_whole_model_named_pt_is_refused_with_the_remedy(model_file: Path) -> None:
    renamed = model_file.with_suffix(".pt")
    renamed.write_bytes(model_file.read_bytes())
    with pytest.raises(PotentialError, match=r"more than weights.*name that ends in \.model"):
        load_potential(renamed, trust=True)


def test_a_checkpoint_names_blocks_and_nothing_else(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(make_mace())
    checkpoint["config"]["interaction_cls_first"] = "np"
    torch.save(checkpoint, tmp_path / "odd.pt")
    with pytest.raises(PotentialError, match="'np' is no block"):
        load_potential(tmp_path / "odd.pt")


def damaged_files(folder: Path) -> dict[str, tuple[Path, str]]:
    with mace_warnings_silenced():
        torch.save(make_mace(), folder / "whole.model")
        scripted = torch.jit.script(torch.nn.Linear(2, 2))
        scripted.save(str(folder / "compiled.pt"))
    whole = (folder / "whole.model").read_bytes()
    torch.save(make_mace().state_dict(), folder / "weights.pt")
    torch.save({"model": make_mace().state_dict(), "optimizer": {}}, folder / "training.pt")
    torch.save(torch.nn.Linear(2, 2), folder / "linear.model")
    contents = {
        "empty.model": b"",
        "truncated.model": whole[: len(whole) // 2],
        "text.model": b"<!DOCTYPE html> not found",
        "pickled.model": pickle.dumps({"hello": object}),
        "cut_pickle.model": pickle.dumps(list(range(100)))[:50],
        "damaged.pt": pickle.dumps(list(range(100)))[:50],
    }
    np.savez(folder / "arrays.npz", x=np.zeros(2))
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    messages = {
        "empty.model": "not a model file",
        "truncated.model": "damaged or truncated",
        "text.model": "not a model file",
        "pickled.model": "not a model",
        "cut_pickle.model": "cannot be unpickled",
        "damaged.pt": "is damaged",
        "arrays.npz": "zip archive that torch did not write",
        "compiled.pt": "TorchScript",
        "weights.pt": "weights alone",
        "training.pt": "training checkpoint",
        "linear.model": "holds a Linear",
        ".": "folder",
    }
    return {name: (folder / name, message) for name, message in messages.items()}


def test_files_that_are_not_models_are_named_and_explained(tmp_path: Path) -> None:
    for path, message in damaged_files(tmp_path).values():
        with pytest.raises(PotentialError, match=message) as caught:
            load_potential(path, trust=True)
        assert str(path) in str(caught.value)


LATER = ["heads", "use_agnostic_product", "apply_cutoff", "use_so3", "edge_irreps", "lammps_mliap"]


def test_models_of_an_older_mace_are_mended(tmp_path: Path) -> None:
    """Attributes that mace-torch added over the years are missing from old pickles."""
    model: Any = make_mace()
    for attribute in LATER:
        delattr(model, attribute)
    for module in model.modules():
        for attribute in ("cueq_config", "oeq_config", "use_agnostic_product", "num_heads"):
            module.__dict__.pop(attribute, None)
    with mace_warnings_silenced():
        torch.save(model, tmp_path / "old.model")
    potential = load_potential(tmp_path / "old.model", trust=True)
    assert potential.heads == ("Default",)
    assert potential.content_hash == make_potential(make_mace(), name="new").content_hash


def test_models_that_cannot_be_mended_are_refused_with_a_remedy() -> None:
    model: Any = make_mace()
    del model.radial_embedding
    with pytest.raises(PotentialError, match=r"radial_embedding.*load it with that version"):
        make_potential(model, name="ancient")
    model = make_mace()
    del model.interactions[0].linear_up
    with pytest.raises(PotentialError, match=r"fails on a pair of atoms.*linear_up"):
        make_potential(model, name="broken")
    model = make_mace(**VARIANTS["charged"])
    model.embedding_specs = {**model.embedding_specs, "temperature": {}}
    with pytest.raises(PotentialError, match="temperature"):
        make_potential(model, name="warm")


@pytest.mark.parametrize("spec", ["mace-off-smal", "no/such/file.model", "demos"])
def test_unknown_names_are_answered_with_the_known_ones(spec: str) -> None:
    with pytest.raises(PotentialError, match="mace-off-small"):
        load_potential(spec)


@pytest.mark.parametrize("name", ["mace-off-small", "mace-mp-medium-0b3", "mace-omol"])
def test_failed_downloads_name_the_remedy(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with mace_warnings_silenced():
        from mace.calculators import foundations_models

    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(foundations_models, "_urlretrieve_with_timeout", unreachable)
    with pytest.raises(PotentialError, match=rf"{name}.*no route to host.*give its path"):
        load_potential(name)
    assert capsys.readouterr().out == ""


def test_downloaded_names_are_those_of_mace() -> None:
    with mace_warnings_silenced():
        from mace.calculators import foundations_models as loaders
    found = {name: (each.loader, each.key) for name, each in list_downloads().items()}
    tables = {"mace_mp": loaders.mace_mp_urls, "mace_off": loaders.mace_off_urls}
    expected = {(loader, key) for loader, urls in tables.items() for key in urls}
    assert set(found.values()) == {*expected, ("mace_omol", None)}
    assert len(found) == len(set(found.values()))
    listed = [model.name for model in list_models() if model.source == "download"]
    assert listed == list(found)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("mace-mpa-0-medium", ("mace_mp", "medium-mpa-0")),
        ("mace-mp-medium-mpa-0", ("mace_mp", "medium-mpa-0")),
        ("mace-mpa-0", ("mace_mp", "medium-mpa-0")),
        ("mace-matpes-pbe-0", ("mace_mp", "mace-matpes-pbe-0")),
        ("mace-mh-1", ("mace_mp", "mh-1")),
        ("mace-mp-small-0b2", ("mace_mp", "small-0b2")),
        ("mace-off-large", ("mace_off", "large")),
        ("mace-omol", ("mace_omol", None)),
    ],
)
def test_names_lead_to_what_mace_loads(name: str, key: tuple[str, str | None]) -> None:
    found = find_download(name)
    assert found is not None
    assert (found.loader, found.key) == key


@pytest.mark.parametrize("name", ["mace-polar-1-s", "polar-1-l", "mace:polar-1-m"])
def test_models_with_long_range_electrostatics_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(PotentialError, match=r"polar-1-[sml]: .*reach beyond every cutoff"):
        load_potential(name)


def test_a_family_may_be_named(model_file: Path) -> None:
    assert load_potential("mace:demo").name == "demo"
    named = load_potential(f"mace:{model_file}", trust=True)
    assert named.content_hash == load_potential(model_file, trust=True).content_hash
    assert find_model_file(f"mace:{model_file}") == model_file
    with pytest.raises(UnknownNameError, match="did you mean 'mace'"):
        load_potential("macee:demo")
    with pytest.raises(PotentialError, match="neither a file nor a known name"):
        load_potential("mace:no/such.model")


def test_a_colon_may_be_part_of_a_path(model_file: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run:1.model"
    copied.write_bytes(model_file.read_bytes())
    assert load_potential(copied, trust=True).cutoff > 0
    assert split_family(str(copied)) == (None, str(copied))
    assert split_family("https://example.org/x.model")[0] is None


def test_a_package_that_lacks_another_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mace.modules", None)
    with pytest.raises(MissingDependencyError, match=r"'mace.modules', which mace-torch [\d.]+"):
        load_potential("demo")


def test_a_missing_mace_is_named(monkeypatch: pytest.MonkeyPatch, model_file: Path) -> None:
    monkeypatch.setitem(sys.modules, "mace.modules", None)
    with pytest.raises(MissingDependencyError, match=r"labelwise\[mace\]"):
        load_potential(model_file)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:99", ""])
def test_unknown_devices_are_refused(device: str, model_file: Path) -> None:
    with pytest.raises(ArgumentError, match="device"):
        load_potential(model_file, device=device, trust=True)


@pytest.mark.parametrize("dtype", ["float16", "double", torch.float16])
def test_unknown_types_are_refused(dtype: Any, model_file: Path) -> None:
    with pytest.raises(ArgumentError, match="float32, float64"):
        load_potential(model_file, dtype=dtype, trust=True)


def test_families_register_once() -> None:
    with pytest.raises(ArgumentError, match="registered already"):
        loading_module.register_potential(MaceFamily())


def test_importing_changes_nothing_global() -> None:
    code = (
        "import os, sys, torch; env = dict(os.environ); state = torch.get_rng_state();"
        "import labelwise.potentials, labelwise.features.representations;"
        "assert 'mace' not in sys.modules and 'e3nn' not in sys.modules;"
        "assert dict(os.environ) == env and torch.get_default_dtype() == torch.float32;"
        "assert torch.equal(torch.get_rng_state(), state)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


def test_the_shared_checkpoint_loads(shared_data: Path) -> None:
    path = shared_data.parent / "models" / "mace_spice.model"
    potential = load_potential(path, trust=True)
    assert len(potential.elements) == 15 and potential.cutoff == 4.5
    assert potential.tangent_size() == 480 and potential.activation_size == 64
