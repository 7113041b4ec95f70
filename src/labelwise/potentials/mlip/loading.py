"""Finding and reading models of mlip's: the family behind ``load_potential``."""

from __future__ import annotations

from pathlib import Path

import torch

from labelwise.errors import PotentialError
from labelwise.potentials.base import Potential
from labelwise.potentials.loading import PotentialFamily
from labelwise.potentials.mlip.architectures import import_mlip
from labelwise.potentials.mlip.archive import ModelArchive, is_archive, read_archive


class MlipFamily(PotentialFamily):
    """MACE, NequIP, ViSNet and eSEN of mlip's, from the archives that it saves."""

    name = "mlip"
    package = "mlip"
    extra = "mlip"

    def recognises(self, spec: str) -> bool:
        """Take archives of mlip's by what is in them."""
        return is_archive(Path(spec).expanduser())

    def load(
        self,
        spec: str,
        *,
        device: torch.device,  # noqa: ARG002  # JAX computes where it is installed for
        dtype: torch.dtype | None,
        head: str | None,
        trust: bool,  # noqa: ARG002  # archives hold weights and plain values
    ) -> Potential:
        """See ``labelwise.potentials.load_potential``."""
        archive = read_archive(Path(spec).expanduser())
        return make_potential(archive, name=spec, dtype=dtype, head=head)


def make_potential(
    archive: ModelArchive, *, name: str, dtype: torch.dtype | None = None, head: str | None = None
) -> Potential:
    """Build a potential of a saved model.

    Args:
        archive: Its settings and weights.
        name: What to call it.
        dtype: Floating-point type wanted, by default float32, in which mlip computes.
        head: See ``load_potential``.

    Raises:
        PotentialError: settings and weights do not belong together, a network that cannot be
            evaluated here, or an unknown head.
    """
    import_mlip()
    from labelwise.potentials.mlip.potential import MlipPotential

    try:
        return MlipPotential(
            archive, name=name, dtype=torch.float32 if dtype is None else dtype, head=head
        )
    except PotentialError:
        raise
    except Exception as error:  # whatever flax and pydantic say to wrong shapes and settings
        raise PotentialError(
            f"settings and weights of {name} do not make a model with the installed mlip: "
            f"{type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error
