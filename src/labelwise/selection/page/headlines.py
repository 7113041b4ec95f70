"""The page's headline, its numbers and its small print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from labelwise.pages.document import Fact
from labelwise.selection.page.measures import Measures
from labelwise.selection.page.pool_columns import clean_text
from labelwise.selection.page.record import SelectionRecord
from labelwise.selection.page.replay import ClusterAtPick
from labelwise.selection.rules import JOINT_RULE, get_rule

_DIFFERS = 1e-2


def write_subtitle(record: SelectionRecord) -> str:
    """Say in a line what was done."""
    settings = record.settings
    known = get_rule(settings.rule)
    rule = known.says or f"the rule {known.name}"
    shortlist = f" among the {settings.shortlist:,} most uncertain" if settings.shortlist else ""
    if not settings.needs_features:
        return f"By {rule}."
    model = record.content.get("model") or {}
    of_model = f" of the model {clean_text(str(model['name']))}" if model.get("name") else ""
    joint = settings.rule == JOINT_RULE
    kernel = "energy and force gradients" if joint else settings.representation
    return f"By {rule}{shortlist}, under the kernel of {kernel}{of_model}."


def list_facts(record: SelectionRecord, measures: Measures | None) -> tuple[Fact, ...]:
    """Return the headline numbers."""
    n_aside = len(record.screened)
    facts = [
        Fact("chosen", f"{len(record.picks):,}", f"of {record.n_pool:,} structures in the pool"),
        Fact("labelled already", f"{record.n_train:,}"),
    ]
    if n_aside:
        facts.append(Fact("set aside", f"{n_aside:,}", "by the screen, before the choice"))
    if measures is not None:
        facts += _list_changes(measures)
    return tuple(facts)


def write_small_print(
    record: SelectionRecord, clusters: Sequence[ClusterAtPick | None], why_no_map: str | None
) -> tuple[str, ...]:
    """Return files, settings, versions, and how numbers were computed."""
    settings, content = record.settings, record.content
    lines = [_describe_files("pool", record.pool), _describe_files("labelled", record.train)]
    lines.append(f"Summary: {clean_text(record.path.name)}.")
    model = content.get("model")
    if isinstance(model, dict):
        name, digest, dtype = (
            clean_text(str(model.get(key))) for key in ("name", "content_hash", "dtype")
        )
        lines.append(f"Model: {name}, content hash {digest}, {dtype}.")
    lines.append(
        f"Representation {settings.representation}, normalised by {settings.resolved_normalise}, "
        f"rule {settings.rule}, λ = {settings.resolved_regularisation:g}, seed {settings.seed}."
    )
    if why_no_map is None:
        lines.append(
            "Variances and distances were computed for this page, from features of the same files "
            "and model. They are in units of the kernel; the distance of x and z is the root of "
            "k(x,x) + k(z,z) − 2k(x,z)."
        )
    if settings.rule == JOINT_RULE and why_no_map is None:
        per_atom = (
            ", divided by the number of atoms" if settings.resolved_normalise == "none" else ""
        )
        lines.append(
            f"Posterior variances are those of energy and forces together{per_atom}, in units of "
            "the mean prior variance of a structure; distances are those of energy gradients."
        )
    lines += _compare_scores(record, clusters)
    versions = content.get("versions") or {}
    listed = ", ".join(f"{clean_text(str(k))} {clean_text(str(v))}" for k, v in versions.items())
    return (*(line for line in lines if line), f"Versions of the selection: {listed}.")


def _list_changes(measures: Measures) -> list[Fact]:
    before, after = float(measures.variance_before.mean()), float(measures.variance_after.mean())
    fall = f"{100 * (1 - after / before):.0f} % less" if before > 0 else ""
    facts = [Fact("mean posterior variance", f"{before:.3g} → {after:.3g}", fall)]
    for name, summarise in (("median", np.median), ("largest", np.max)):
        near, far = (
            float(summarise(each)) for each in (measures.distance_after, measures.distance_before)
        )
        random = float(np.mean([summarise(each) for each in measures.random_distances]))
        value = f"{far:.3g} → {near:.3g}" if np.isfinite(far) else f"{near:.3g}"
        note = f"to the nearest labelled or chosen; with random picks {random:.3g}"
        facts.append(Fact(f"{name} kernel distance", value, note))
    return facts


def _describe_files(role: str, specs: Sequence[str]) -> str:
    if not specs:
        return f"Structures {role}: none."
    listed = ", ".join(clean_text(Path(spec).name) for spec in specs[:10])
    more = f" and {len(specs) - 10} more" if len(specs) > 10 else ""
    return f"Structures {role}: {listed}{more}."


def _compare_scores(record: SelectionRecord, clusters: Sequence[ClusterAtPick | None]) -> list[str]:
    """Say so where distances that were computed anew are not those of the selection."""
    if not get_rule(record.settings.rule).has_clusters:
        return []
    if not clusters:
        return ["The clusters could not be replayed: a pick is not among the shortlist found anew."]
    pairs = [
        (pick.score, cluster.sq_dist)
        for pick, cluster in zip(record.picks, clusters, strict=True)
        if cluster is not None
    ]
    scale = max((abs(score) for score, _ in pairs), default=0.0)
    off = max((abs(score - again) for score, again in pairs), default=0.0)
    if scale == 0 or off <= _DIFFERS * scale:
        return []
    differ = (
        f"Squared distances computed anew differ from those of the selection by up to {off:.2g}"
    )
    return [f"{differ}: features are not quite the same here."]
