"""The rules of claims.yaml as functions: whether a claim of the paper holds, and what was measured.

The first value is None where a study does not hold what the rule needs.
"""

from typing import Any

import numpy as np
import pandas as pd

from lce.edit.strategies import STRATEGIES
from lce.foundations.labels import label
from lce.study.report.aggregates import against_controls, by_seed, crossing, curve, densities, gap, is_null, over_k
from lce.study.report.results import EDIT, WAY, Results, between_biased
from lce.study.report.statistics import mean_interval, over_seeds, paired_difference, spearman
from lce.study.settings import BOTH_WAYS, NEUTRAL, STEREOTYPICAL
from lce.training.pruning.imp import WINNING_TICKET

Verdict = tuple[bool | None, str]
"""Whether a claim holds (None: cannot be tested here), and what was measured."""

MEASURES = 3
"""WEAT, StereoSet's SS and CrowS-Pairs."""

CLAIMED_SPARSITY = 0.4
"""Up to which the paper says that subnetworks are winning tickets."""

ZERO = (1.5, 3.0)
"""Between which α WEAT is to be zero."""

ATTENTION_OUTPUT = ("attention.output.dense", "self_attn.o_proj")
"""What puts out the attention of a layer, in BERT and in decoders like Llama."""

UNTESTED: Verdict = (None, "the study holds no cells for it")


def intended_direction(results: Results) -> Verdict:
    gaps = {name: gap(results, 0.0, name) for name in results.paper_bias}
    if len(gaps) < MEASURES or any(len(values) < 2 for values in gaps.values()):
        return UNTESTED
    found = {name: mean_interval(values) for name, values in gaps.items()}
    return all(e.low > 0 for e in found.values()), "; ".join(f"{label(name)} {e}" for name, e in found.items())


def winning_tickets(results: Results) -> Verdict:
    frame = results.trained[~results.trained["variant"].isin(results.study.untrained)]
    if not len(frame) or not (frame["sparsity"] > 0).any():
        return UNTESTED
    ratios = frame[frame["sparsity"] > 0].groupby(["variant", "sparsity"])["ratio"].mean()
    worst: Any = ratios.idxmax()
    text = f"at most {ratios.max():.3f} ({worst[0]}, {worst[1]:.0%})"
    if ratios.max() > WINNING_TICKET:
        return False, text
    if (largest := frame["sparsity"].max()) < CLAIMED_SPARSITY:
        return None, f"{text}; {largest:.0%} is the largest sparsity here"
    return True, text


def stable_masks(results: Results) -> Verdict:
    means = {
        (variant, cell.sparsity): float(np.mean(values))
        for cell, result in results.of("overlap").items()
        for variant, values in result["masks"].items()
        if variant not in results.study.untrained
    }
    if not means:
        return UNTESTED
    worst = min(means, key=lambda key: means[key])
    return means[worst] > 0.98, f"{means[worst]:.4f} to {max(means.values()):.4f}, least: {worst[0]}, {worst[1]:.0%}"


def bias_of_subnetworks(results: Results) -> Verdict:
    ratios, doubts = {}, {}
    for metric in results.paper_bias:
        dense = gap(results, 0.0, metric)
        if len(dense) and dense.mean() > 0 and not mean_interval(dense).low > 0:
            doubts[metric] = f" (of a dense gap of {mean_interval(dense)}, which may be none)"
        for sparsity in results.study.sparsities:
            here = gap(results, sparsity, metric)
            if len(dense) and len(here) and dense.mean() > 0:
                ratios[metric, sparsity] = here.mean() / dense.mean()
    if len(results.paper_bias) < MEASURES or not ratios:
        return UNTESTED
    least = min(ratios, key=lambda key: ratios[key])
    shown = {metric: [f"{r:.2f}" for (m, _), r in ratios.items() if m == metric] for metric in results.paper_bias}
    texts = [f"{label(m)} {', '.join(values)}{doubts.get(m, '')}" for m, values in shown.items() if values]
    return ratios[least] >= 0.5, "; ".join(texts)


def small_difference(results: Results) -> Verdict:
    shares: dict[float, list[float]] = {}
    for cell, result in results.of("compare").items():
        shares.setdefault(cell.sparsity or 0, []).append(result["selections"]["mask"]["share"])
    if not shares:
        return UNTESTED
    means = {sparsity: float(np.mean(values)) for sparsity, values in shares.items()}
    return max(means.values()) < 0.005, ", ".join(f"{m:.2%} at {s:.0%}" for s, m in sorted(means.items()))


def where_it_sits(results: Results) -> Verdict:
    frame = densities(results)
    if not len(frame):
        return UNTESTED
    output = next((name for name in ATTENTION_OUTPUT if name in set(frame["component"])), None)
    if output is None:
        return None, f"the model has no component {' or '.join(ATTENTION_OUTPUT)}"
    verdicts, texts = [], []
    for name, part in frame.groupby("localization"):
        layers, components = (
            part.groupby(by)[["selected", "weights"]].sum().eval("selected / weights") for by in ("layer", "component")
        )
        half = len(layers) // 2
        first, last = layers.sort_index().iloc[:half].mean(), layers.sort_index().iloc[-half:].mean()
        top: Any = components.idxmax()
        verdicts.append(last > first and top == output)
        texts.append(f"{name}: last half of the layers {last:.2%}, first {first:.2%}; densest component {top}")
    return all(verdicts), "; ".join(texts)


def informed_edits(results: Results) -> Verdict:
    frame = over_seeds(results.at_paper_settings, [*EDIT, "metric"], "intended")
    shares = frame.assign(hit=frame["mean"] > 0).groupby("metric")["hit"].agg(["mean", "count"])
    if results.weat not in shares.index:
        return UNTESTED
    named = [(name, shares.loc[name]) for name in results.paper_bias]
    text = "; ".join(f"{label(name)} {row['mean']:.0%} of {int(row['count'])}" for name, row in named)
    return bool(shares.loc[results.weat, "mean"] >= 0.9), text


def uninformed_edits(results: Results) -> Verdict:
    frame = between_biased(against_controls(results, "uninformed", results.weat))
    seeds = by_seed(frame)
    if len(seeds) < 2:
        return UNTESTED
    ratio = frame["size_by_control"].mean() / frame["intended"].abs().mean()
    estimate = paired_difference(seeds["intended"], seeds["by_control"])
    text = f"mean |move| of {label(results.weat)} {ratio:.0%} of the informed edits'; informed − uninformed {estimate}"
    return bool(ratio <= 0.25 and estimate.low > 0), f"{text}, {len(seeds)} seeds"


def monotone_in_alpha(results: Results) -> Verdict:
    ranks, zeros, texts, farthest = [], [], [], []
    for (target, reference), name in ((d, n) for d in BOTH_WAYS for n in ("mask", "value")):
        found = curve(results, target, reference, name, results.weat)
        near = found[found["alpha"].abs() <= 4]
        if len(near) < 5:
            return UNTESTED
        rank = spearman(near["alpha"], near["mean"]) * (-1 if target == STEREOTYPICAL else 1)
        zero = crossing(found["alpha"], found["mean"])
        ranks.append(rank)
        zeros.append(zero)
        farthest.append(found["alpha"].max())
        texts.append(f"{target}, {name}: ρ = {rank:.2f}, zero at {'no α' if zero is None else f'α = {zero:.1f}'}")
    text = "; ".join(texts)
    if not all(rank >= 0.95 for rank in ranks):
        return False, text
    if all(zero is not None and ZERO[0] <= zero <= ZERO[1] for zero in zeros):
        return True, text
    is_in_view = all(zero is not None or alpha >= ZERO[1] for zero, alpha in zip(zeros, farthest, strict=True))
    return (False, text) if is_in_view else (None, f"{text}; α up to {min(farthest):g} only")


def saturation(results: Results) -> Verdict:
    found = over_k(results, results.weat, alpha=1.0).set_index("k")["mean"]
    if not {0.2, 0.4, 1.0} <= set(found.index):
        return UNTESTED
    ratios = {k: found[k] / found[1.0] for k in (0.2, 0.4)}
    text = ", ".join(f"k = {k:.0%}: {ratio:.0%} of the effect of all" for k, ratio in ratios.items())
    return bool(found[1.0] > 0 and ratios[0.4] >= 0.9), text


def language_kept(results: Results) -> Verdict:
    frame = results.at_paper_settings
    frame = frame.assign(relative=frame["moved"] / frame["before"])
    destroyed = _destroyed(frame)
    kept, pruned = (
        {name: over_seeds(part[part["metric"] == name], ["sparsity", *WAY], column) for name, column in columns.items()}
        for part in (frame[~destroyed], frame[destroyed])
        for columns in ({"perplexity": "relative", "stereoset_lm": "moved"},)
    )
    if not all(len(part) for part in (*kept.values(), pruned["perplexity"])):
        return UNTESTED
    rise, worst = kept["perplexity"]["mean"].max(), pruned["perplexity"]["mean"].min()
    fall = kept["stereoset_lm"]["mean"].min()
    text = f"perplexity {rise:+.1%} at most, by value-based pruning {worst:+.1%} at least; LM {fall:+.2f} at least"
    return bool(rise <= 0.05 and fall >= -2 and worst > rise), text


def _destroyed(frame: pd.DataFrame) -> pd.Series:
    """Which edits prune value-based: they remove the weights that matter most."""
    return frame["strategy"].map(lambda name: STRATEGIES[name].is_removal) & (frame["localization"] == "value")


def dose(results: Results) -> Verdict:
    ranks: dict[str, list[float]] = {results.weat: [], "perplexity": []}
    spreads: dict[bool, list[float]] = {False: [], True: []}
    for (target, reference), name in ((d, n) for d in BOTH_WAYS for n in ("mask", "value")):
        for metric, found in ranks.items():
            points = curve(results, target, reference, name, metric)
            if len(points) < 5:
                return UNTESTED
            start = points.loc[points["alpha"] == 0, "mean"].item()
            near = points[(points["alpha"] > 0) & (points["alpha"] <= 4)]
            move = near["mean"] - start
            found.append(spearman(near["alpha"], move if metric == "perplexity" else move.abs()))
        for metric in set(results.paper_bias) - {results.weat}:
            points = curve(results, target, reference, name, metric)
            for alpha, std in zip(points["alpha"], points["std"], strict=True):
                if alpha >= 1:
                    spreads[alpha >= 5].append(std)
    if not all(spreads.values()) or any(np.isnan(values).any() for values in (*spreads.values(), *ranks.values())):
        return UNTESTED
    low, high = (float(np.mean(spreads[is_far])) for is_far in (False, True))
    text = "; ".join(f"{label(name)}: ρ ≥ {min(values):.2f}" for name, values in ranks.items())
    holds = all(min(values) >= 0.9 for values in ranks.values()) and high > low
    return holds, f"{text}; spread over seeds {low:.2f} for 1 ≤ α < 5, {high:.2f} beyond"


def by_sparsity(results: Results) -> Verdict:
    frame = results.at_paper_settings
    frame = frame[(frame["metric"] == results.weat) & frame["alpha"].isin((1.0, 2.0))]
    found = over_seeds(frame, ["localization", "sparsity"], "intended")
    texts, verdicts = [], []
    for name, sign in (("mask", 1), ("value", -1)):
        part = found[found["localization"] == name].sort_values("sparsity")
        if len(part) < 3:
            return UNTESTED
        rank = spearman(part["sparsity"], part["mean"])
        verdicts.append(sign * rank >= 0.8)
        texts.append(f"{name}: {', '.join(f'{m:.2f}' for m in part['mean'])} (ρ = {rank:+.1f})")
    return all(verdicts), "; ".join(texts)


def neutral_target(results: Results) -> Verdict:
    frame = results.swept[(results.swept["target"] == NEUTRAL) & (results.swept["metric"] == results.weat)]
    frame = frame[frame["alpha"] == -2]
    steered = frame[frame["reference"] == STEREOTYPICAL]
    if not len(steered):
        return UNTESTED
    means = frame.groupby("reference", sort=False)[["before", "value"]].mean()
    text = "; ".join(f"{name} reference: {before:.2f} → {after:.2f}" for name, before, after in means.itertuples())
    unedited = results.measured[(results.measured["variant"] == NEUTRAL) & (results.measured["metric"] == results.weat)]
    p_values = unedited[unedited["sparsity"] == results.study.sparsity]["p_value"]
    if p_values.map(is_null).mean() > 0.5:
        return None, f"the neutral models' bias is within its null interval before any edit; {text}"
    is_removed = steered["p_value"].map(is_null).mean() > 0.5
    return bool(is_removed or abs(steered["value"].mean()) <= 0.25 * abs(steered["before"].mean())), text


def downstream_kept(results: Results) -> Verdict:
    frame = results.tuned
    if not len(frame):
        return None, "no downstream task was run"
    unedited = frame[frame["strategy"].isna()].rename(columns={"value": "unedited"})
    edited = frame[frame["strategy"].notna()]
    keys = ["sparsity", "seed", "task", "metric"]
    joined = edited.merge(
        unedited[["variant", *keys, "unedited"]], left_on=["target", *keys], right_on=["variant", *keys]
    )
    joined = joined[joined["unedited"].notna()]
    left = joined["value"].fillna(0)  # a score that is none any more is lost
    lost = over_seeds(joined.assign(lost=joined["unedited"] - left), [*EDIT, "task", "metric"], "lost")
    destroyed = _destroyed(lost)
    if not len(lost[~destroyed]):
        return UNTESTED
    worst, pruned = lost[~destroyed]["mean"].max(), lost[destroyed]["mean"].max() if destroyed.any() else float("nan")
    text = f"at most {worst:.1f} points lost"
    return bool(worst <= 2), text if np.isnan(pruned) else f"{text}, by value-based pruning {pruned:.1f}"
