from __future__ import annotations

import io
import json
import warnings
from typing import Any

import pytest
import torch
from ase.build import molecule

from labelwise.errors import PotentialError
from labelwise.potentials.mace.checkpoint import (
    build,
    mace_warnings_silenced,
    model_config,
    save_checkpoint,
)
from labelwise.potentials.mace.loading import make_potential
from tests.potentials.models import VARIANTS, make_mace


def through_a_file(checkpoint: dict[str, Any]) -> dict[str, Any]:
    stream = io.BytesIO()
    torch.save(checkpoint, stream)
    stream.seek(0)
    content: dict[str, Any] = torch.load(stream, weights_only=True)
    return content


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_a_checkpoint_makes_the_same_model(name: str) -> None:
    model = make_mace(**VARIANTS[name])
    checkpoint = save_checkpoint(model)
    json.dumps(checkpoint["config"])
    original: Any = make_potential(model, name=name)
    random_state = torch.get_rng_state()
    rebuilt: Any = make_potential(build(through_a_file(checkpoint)), name=name)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.get_default_dtype() == torch.float32
    assert rebuilt.content_hash == original.content_hash
    batch = original.collate([original.prepare(molecule(m)) for m in ("CH3OH", "H2O", "H")])
    for got, wanted in zip(rebuilt.predict(batch)[:2], original.predict(batch)[:2], strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


def test_checkpoints_do_not_share_memory_with_the_model() -> None:
    model: Any = make_mace()
    checkpoint = save_checkpoint(model)
    kept = checkpoint["state_dict"]["node_embedding.linear.weight"].clone()
    with torch.no_grad():
        model.node_embedding.linear.weight.zero_()
    assert torch.equal(checkpoint["state_dict"]["node_embedding.linear.weight"], kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format version 2"),
        ({"format_version": None}, "format version None"),
        ({"model_class": "os.system"}, "os.system"),
        ({"state_dict": {}}, "do not make a model"),
        ({"config": {}}, "do not make a model"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PotentialError, match=message):
        build({**save_checkpoint(make_mace()), **change})


def test_other_weights_than_configured_are_refused() -> None:
    checkpoint = save_checkpoint(make_mace())
    checkpoint["state_dict"] = save_checkpoint(make_mace(hidden_irreps="4x0e"))["state_dict"]
    with pytest.raises(PotentialError, match="do not make a model"):
        build(checkpoint)


def test_other_modules_have_no_checkpoint() -> None:
    with pytest.raises(PotentialError, match="Linear"):
        model_config(torch.nn.Linear(1, 1))


def test_parts_that_no_argument_builds_have_no_checkpoint() -> None:
    class AnotherTransform(torch.nn.Module):
        pass

    model: Any = make_mace(**VARIANTS["repulsion"])
    model.radial_embedding.distance_transform = AnotherTransform()
    with pytest.raises(PotentialError, match="a model with a AnotherTransform"):
        save_checkpoint(model)


def test_low_rank_weights_have_no_checkpoint_until_they_are_merged() -> None:
    from mace.modules import lora

    model: Any = make_mace(**VARIANTS["vectors"], dtype=torch.float32)
    lora.inject_lora(model, rank=2)
    with pytest.raises(PotentialError, match="merge_lora_weights"):
        save_checkpoint(model)
    merged = lora.merge_lora_weights(model)
    known = make_potential(merged, name="merged").content_hash
    assert make_potential(build(save_checkpoint(merged)), name="again").content_hash == known


@pytest.mark.parametrize("hidden", ["8x0e", "4x0e + 4x1o"])
def test_couplings_are_counted_whatever_the_attribute_says(hidden: str) -> None:
    """mace-torch sets ``use_reduced_cg`` also where it could not reduce anything."""
    model = make_mace(hidden_irreps=hidden, correlation=3, use_reduced_cg=False)
    plain = make_potential(model, name="whole")
    known = plain.content_hash
    model.use_reduced_cg = True
    assert not model_config(model)["use_reduced_cg"]
    potential = make_potential(model, name="whole")
    assert potential.content_hash == known
    drawn = potential.with_random_weights(1)
    for old, new in zip(model.parameters(), drawn.model.parameters(), strict=True):
        assert old.shape == new.shape


def test_reduced_couplings_are_noticed() -> None:
    pytest.importorskip("cuequivariance_torch", reason="mace-torch reduces with cuEquivariance")
    model = make_mace(correlation=3, use_reduced_cg=True)
    assert model_config(model)["use_reduced_cg"]
    again = make_potential(model, name="reduced").with_random_weights(0).model
    assert [w.shape for w in again.parameters()] == [w.shape for w in model.parameters()]


# torch 2.13 calls it a DeprecationWarning, 2.14 a FutureWarning, which Python shows everybody.
@pytest.mark.parametrize("category", [DeprecationWarning, FutureWarning])
def test_what_torch_says_of_torchscript_is_not_repeated(category: type[Warning]) -> None:
    with mace_warnings_silenced():
        warnings.warn("`torch.jit.script` is deprecated. Please switch.", category, stacklevel=1)
    with mace_warnings_silenced(), pytest.raises(category):
        warnings.warn("`another thing` is deprecated", category, stacklevel=1)
