"""Choose which atomic structures are worth a quantum-chemistry label.

The main road in six lines::

    import labelwise as lw

    potential = lw.load_potential("demo")
    train, pool = lw.read_structures("train.extxyz"), lw.read_structures("pool.extxyz")
    batch = lw.select(pool, n_select=100, train=train, potential=potential)
    lw.write_structures("batch.extxyz", batch.structures)

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from typing import TYPE_CHECKING

from labelwise.runtime.lazy_names import lazy_names

if TYPE_CHECKING:
    from labelwise.campaign.labelling import register_labeller as register_labeller
    from labelwise.campaign.loop import RunOptions as RunOptions
    from labelwise.campaign.loop import run_campaign as run_campaign
    from labelwise.errors import LabelwiseError as LabelwiseError
    from labelwise.features.representations import RepresentationOptions as RepresentationOptions
    from labelwise.features.representations import (
        register_representation as register_representation,
    )
    from labelwise.finetuning.evaluation import evaluate as evaluate
    from labelwise.finetuning.export import save_potential as save_potential
    from labelwise.finetuning.recipe import Recipe as Recipe
    from labelwise.finetuning.training import FineTuned as FineTuned
    from labelwise.finetuning.training import finetune as finetune
    from labelwise.kernels.base import Kernel as Kernel
    from labelwise.kernels.linear import LinearKernel as LinearKernel
    from labelwise.potentials import Potential as Potential
    from labelwise.potentials import load_potential as load_potential
    from labelwise.potentials import register_potential as register_potential
    from labelwise.runtime.provenance import __version__ as __version__
    from labelwise.selection.api import SelectedBatch as SelectedBatch
    from labelwise.selection.api import represent as represent
    from labelwise.selection.api import select as select
    from labelwise.selection.force_uncertainty import ForceUncertainty as ForceUncertainty
    from labelwise.selection.force_uncertainty import (
        predict_force_uncertainty as predict_force_uncertainty,
    )
    from labelwise.selection.picks import Pick
    from labelwise.selection.results import Acquisition
    from labelwise.selection.rules import Rule as Rule
    from labelwise.selection.rules import Selection as Selection
    from labelwise.selection.rules import register_rule as register_rule
    from labelwise.selection.rules import select_batch as select_batch
    from labelwise.selection.settings import AcquisitionSettings
    from labelwise.structures import get_labels as get_labels
    from labelwise.structures import read_structures as read_structures
    from labelwise.structures import write_structures as write_structures
    from labelwise.studies.comparison.comparing import run_study as run_study

_HOMES = {
    "__version__": "runtime.provenance",
    "Acquisition": "selection.results",
    "AcquisitionSettings": "selection.settings",
    "FineTuned": "finetuning.training",
    "ForceUncertainty": "selection.force_uncertainty",
    "Kernel": "kernels.base",
    "LabelwiseError": "errors",
    "LinearKernel": "kernels.linear",
    "Pick": "selection.picks",
    "Potential": "potentials",
    "Recipe": "finetuning.recipe",
    "RepresentationOptions": "features.representations",
    "Rule": "selection.rules",
    "RunOptions": "campaign.loop",
    "SelectedBatch": "selection.api",
    "Selection": "selection.rules",
    "evaluate": "finetuning.evaluation",
    "finetune": "finetuning.training",
    "get_labels": "structures",
    "load_potential": "potentials",
    "predict_force_uncertainty": "selection.force_uncertainty",
    "read_structures": "structures",
    "register_labeller": "campaign.labelling",
    "register_potential": "potentials",
    "register_representation": "features.representations",
    "register_rule": "selection.rules",
    "represent": "selection.api",
    "run_campaign": "campaign.loop",
    "run_study": "studies.comparison.comparing",
    "save_potential": "finetuning.export",
    "select": "selection.api",
    "select_batch": "selection.rules",
    "write_structures": "structures",
}

__all__ = [
    "Acquisition",
    "AcquisitionSettings",
    "FineTuned",
    "ForceUncertainty",
    "Kernel",
    "LabelwiseError",
    "LinearKernel",
    "Pick",
    "Potential",
    "Recipe",
    "RepresentationOptions",
    "Rule",
    "RunOptions",
    "SelectedBatch",
    "Selection",
    "evaluate",
    "finetune",
    "get_labels",
    "load_potential",
    "predict_force_uncertainty",
    "read_structures",
    "register_labeller",
    "register_potential",
    "register_representation",
    "register_rule",
    "represent",
    "run_campaign",
    "run_study",
    "save_potential",
    "select",
    "select_batch",
    "write_structures",
]

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
