"""What the paper did not ask, as sections of the report."""

from collections.abc import Callable
from math import nan

import numpy as np

from lce.foundations.labels import label
from lce.study.report.aggregates import against_controls, by_seed
from lce.study.report.plots import edit_name
from lce.study.report.results import Results
from lce.study.report.section import Section
from lce.study.report.statistics import paired_difference


def controls(results: Results) -> Section | None:
    """Informed edits against random ones, global and matched (figure 4's grey, and beyond)."""
    rows: list[list[str]] = []
    above: dict[str, list[bool]] = {"uninformed": [], "matched": []}
    for metric in results.bias:
        for control in ("uninformed", "matched"):
            frame = against_controls(results, control, metric)
            for key, part in frame.groupby(["localization", "strategy", "alpha"], dropna=False, sort=False):
                seeds = by_seed(part)
                difference = paired_difference(seeds["intended"], seeds["by_control"])
                above[control] += [difference.low > 0] * (len(seeds) > 1)
                moves = [f"{part[name].mean():+.2f}" for name in ("intended", "by_control")]
                rows.append([label(metric), edit_name(key[1], key[2], key[0]), control, *moves, str(difference)])
    if not rows:
        return None
    counts = [f"{sum(v)} of {len(v)} edits and scores against {name} controls" for name, v in above.items() if v]
    text = (
        "Move in the intended direction by the informed selection, by as many random weights (uninformed), and by "
        "random weights in the same number in each component of each layer (matched): what a matched control also "
        "does is due to the layers and components chosen, not to the weights."
    )
    if any(row[1] == edit_name("pruning", nan, "mask") for row in rows):
        text += (
            " Half of the weights that mask-based pruning selects are pruned in the target already, so that its "
            "controls remove twice as many as it does."
        )
    if counts:
        text += (
            " The difference has a 95 % interval, by paired bootstrap over seeds, of means over targets and "
            f"sparsities; it lies above 0 in {' and in '.join(counts)}."
        )
    headings = ["", "edit", "control", "informed", "by control", "informed − control"]
    return Section("Does the localisation matter?", text, headings, rows)


def stability(results: Results) -> Section | None:
    """Jaccard similarities over seeds, of masks and of selections."""
    rows = []
    for cell, result in sorted(results.of("overlap").items(), key=lambda item: item[0].sparsity or 0):
        level = f"{cell.sparsity:.0%}"
        rows += [[level, f"mask, {name}", f"{np.mean(v):.4f}", ""] for name, v in result["masks"].items()]
        rows += [[level, f"masks, {name}", f"{np.mean(v):.4f}", ""] for name, v in result["variants"].items()]
        for name, found in result["selections"].items():
            share = float(np.mean(found["shares"]))
            chance = f"{share / (2 - share):.4f}"
            rows.append([level, f"selection, {name}-based", f"{np.mean(found['jaccard']):.4f}", chance])
    if not rows:
        return None
    text = (
        "Mean Jaccard similarity: of one variant's masks over pairs of seeds, of two variants' masks at the same seed, "
        "and of the selections over pairs of seeds, beside what two random selections of that size would share. A mask "
        "can be stable while the selection is not, for the selection is where two nearly equal masks differ."
    )
    return Section("Is the selection the same for every seed?", text, ["sparsity", "of", "Jaccard", "by chance"], rows)


def distances(results: Results) -> Section | None:
    """How far training moves the weights, and how far apart it leaves two models."""
    rows = []
    for cell, result in sorted(results.of("overlap").items(), key=lambda item: item[0].sparsity or 0):
        for name, values in result.get("distances", {}).items():
            spread = f"{np.min(values):.3g} to {np.max(values):.3g}"
            rows.append([f"{cell.sparsity:.0%}", name, f"{np.mean(values):.3g}", spread])
    if not rows:
        return None
    text = (
        "Euclidean distance of the prunable weights of two subnetworks, 0 where pruned: of one variant at each two "
        "seeds, and of two variants at each seed; and the distance of each subnetwork from the base, as a share of the "
        "base's norm, of the weights that are kept."
    )
    return Section("How far apart are the models?", text, ["sparsity", "of", "mean", "range"], rows)


def last_layers(results: Results) -> Section | None:
    """The share of the effect that the last layers carry alone."""
    frame = results.edits[(results.edits["control"] == "none") & (results.edits["metric"] == results.weat)]
    frame = frame[frame["k"].isna() | (frame["k"] == results.study.k)]
    by = ["sparsity", "localization", "strategy", "alpha"]
    parts = frame[frame["last_layers"].notna()]
    if not len(parts):
        return None
    whole = frame[frame["last_layers"].isna()]
    joined = parts.merge(whole, on=[*by, "target", "reference", "seed"], suffixes=("", "_all"))
    rows = []
    for key, part in joined.groupby([*by[1:], "last_layers"], dropna=False, sort=False):
        effect = part["intended"].mean() / part["intended_all"].mean()
        weights = part["selected_share"].mean() / part["selected_share_all"].mean()
        moves = [f"{part[name].mean():+.2f}" for name in ("intended", "intended_all")]
        rows.append([edit_name(key[1], key[2], key[0]), f"{key[3]:.0f}", f"{weights:.0%}", *moves, f"{effect:.0%}"])
    moved = f"Move of {label(results.weat)} when only what is selected in the last layers is edited"
    text = f"{moved}, mean over targets and seeds."
    headings = ["edit", "last layers", "of the selected weights", "move", "move of all", "of the effect"]
    return Section("What the last layers carry alone", text, headings, rows)


SECTIONS: tuple[Callable[[Results], Section | None], ...] = (controls, stability, distances, last_layers)
