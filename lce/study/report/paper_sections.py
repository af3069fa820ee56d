"""The paper's tables and figures as sections of the report."""

from collections.abc import Callable
from math import isnan, nan

import pandas as pd

from lce.foundations.labels import label
from lce.localize.components import layer_text
from lce.study.report.aggregates import densities, gap, near_null, over_k, smallest_k, targets
from lce.study.report.plots import edit_name
from lce.study.report.results import EDIT, Results, between_biased
from lce.study.report.section import Section, mean_std, percent, size_text
from lce.study.report.statistics import bonferroni, over_seeds, spearman, wilcoxon_greater
from lce.study.settings import NEUTRAL

SIGNIFICANT = 0.05


def subnetworks(results: Results) -> Section | None:
    """Bias, perplexity and LM of the unedited models (the paper's tables 1 and 4)."""
    frame = results.measured
    if not len(frame):
        return None
    names = [name for name in (*results.bias, "perplexity", "stereoset_lm") if name in set(frame["metric"])]
    levels = sorted(frame["sparsity"].unique())
    table = over_seeds(frame, ["variant", "metric", "sparsity"]).set_index(["variant", "metric", "sparsity"])
    rows = [
        [
            f"{variant}: {label(metric)}",
            *(mean_std(table.loc[key]) if (key := (variant, metric, level)) in table.index else "" for level in levels),
        ]
        for variant in frame["variant"].unique()
        for metric in names
    ]
    text = f"Mean ± standard deviation of {frame['seed'].nunique()} seeds."
    gaps = {name: values for name in results.bias if len(values := gap(results, 0.0, name))}
    if gaps:
        apart = ", ".join(f"{values.mean():+.2f} in {label(name)}" for name, values in gaps.items())
        text += f" The dense stereotypical models lie {apart} from the anti-stereotypical ones."
    headings = ["", *("dense" if level == 0 else f"{level:.0%} sparse" for level in levels)]
    return Section("Unedited models (tables 1 and 4)", text, headings, rows)


def where(results: Results) -> Section | None:
    """Where target and reference differ (figure 3)."""
    shares = pd.DataFrame(
        [
            {"sparsity": cell.sparsity, "localization": name, "value": 100 * found["share"]}
            for cell, result in results.of("compare").items()
            for name, found in result["selections"].items()
        ]
    )
    if not len(shares):
        return None
    means = over_seeds(shares.sort_values("sparsity"), ["sparsity", "localization"])
    rows = [
        [f"{level:.0%}", *(mean_std(row) for _, row in part.sort_values("localization").iterrows())]
        for level, part in means.groupby("sparsity")
    ]
    text = (
        "Share of the weights that each localisation selects [%], mean ± standard deviation over seeds. The maps show, "
        "for each component of each layer, which share of its weights is selected, as the mean over seeds; even colour "
        "would mean that the difference is everywhere."
    )
    for name, part in densities(results).groupby("localization"):
        top = part.loc[(part["selected"] / part["weights"]).idxmax()]
        text += f" {name}-based, the densest is {top['component']} of layer {layer_text(top['layer'])}"
        everywhere = part["selected"].sum() / part["weights"].sum()
        text += f" ({top['selected'] / top['weights']:.2%}, all together {everywhere:.2%})."
    headings = ["sparsity", "mask-based", "value-based"]
    return Section(
        "Where the two models differ (figure 3)", text, headings, rows, ["localisation-mask", "localisation-value"]
    )


def strategies(results: Results) -> Section | None:
    """What each edit does to the bias (figure 4)."""
    frame = results.at_paper_settings
    if not len(frame):
        return None
    found = over_seeds(frame[frame["metric"].isin(results.bias)], [*EDIT[:7], "metric"], "intended")
    by = ["localization", "strategy", "alpha"]
    rows = []
    for key, part in found.groupby(by, dropna=False, sort=False):
        name = edit_name(key[1], key[2], key[0])
        moves = [part[part["metric"] == metric]["mean"] for metric in results.bias]
        rows.append([name, *(f"{m.mean():+.2f} ({(m > 0).sum()} of {len(m)})" for m in moves)])
    text = (
        "Mean move in the intended direction over both targets and all sparsities, and in how many of these the mean "
        "over seeds moved that way. The arrows start at the unedited target; bars are standard deviations over "
        "seeds; the dotted line is where there is no bias. The figure is at the study's sparsity, "
        f"{results.study.sparsity:.0%}."
    )
    return Section("What each edit does (figure 4)", text, ["", *map(label, results.bias)], rows, ["strategies"])


def strength(results: Results) -> Section | None:
    """The dose α (figure 6)."""
    if results.swept["alpha"].nunique() < 4:
        return None
    frame = between_biased(results.swept[results.swept["sparsity"] == results.study.sparsity])
    frame = frame[frame["alpha"].notna() & frame["metric"].isin([results.weat, "perplexity"])]
    table = over_seeds(frame, ["target", "localization", "metric", "alpha"])
    alphas = sorted(table["alpha"].unique())
    rows = []
    for key, part in table.groupby(["target", "localization", "metric"], sort=False):
        means = part.set_index("alpha")["mean"]
        row = [f"{key[0]}, {key[1]}: {label(key[2])}", *(f"{means[a]:.2f}" if a in means else "" for a in alphas)]
        rank = spearman(part["alpha"], part["mean"]) if len(part) > 2 else nan
        rows.append([*row, "" if isnan(rank) else f"{rank:+.2f}"])
    text = (
        "The target moves with α: 0 is the unedited target, 1 puts the reference's values in, beyond is extrapolation. "
        "Solid: mask-based, dashed: value-based; bars are standard deviations over seeds; ρ is Spearman's rank "
        "correlation of α and the mean."
    )
    headings = ["", *(f"α = {a:g}" for a in alphas), "ρ"]
    return Section("The strength α (figure 6)", text, headings, rows, ["strength"])


def size(results: Results) -> Section | None:
    """The number k of weights (figure 5), and the smallest that is enough."""
    found = over_k(results, results.weat, alpha=1.0)
    if len(found) < 3:
        return None
    largest = found.iloc[-1]
    rows = []
    for row in found.itertuples():
        k = size_text(row.k)
        nulls = [percent(near_null(results, target, row.k)) for target in targets(results)]
        rows.append([k, f"{row.share:.2%}", f"{row.mean:+.2f}", percent(row.mean / largest["mean"]), *nulls])
    smallest = ", ".join(f"{target}: {smallest_k(results, target)}" for target in targets(results))
    text = (
        f"{label(results.weat)} moved by value-based interpolation at α = 1, mean over both targets and all seeds, and "
        "in how many seeds α = 2 leaves it within the null interval of its permutation test. The smallest k at which "
        f"it is there in most seeds: {smallest}; mask-based, at its one size: {_mask_null(results)}. The figure's thin "
        "lines are the unedited targets."
    )
    headings = [
        "k",
        "of all weights",
        "move at α = 1",
        f"of that at k = {size_text(largest['k'])}",
        *(f"{t}: null at α = 2" for t in targets(results)),
    ]
    return Section("How many weights (figure 5)", text, headings, rows, ["size"])


def _mask_null(results: Results) -> str:
    shares = {target: percent(near_null(results, target, None, "mask")) for target in targets(results)}
    return ", ".join(f"{target} {share or 'no cell'} of the seeds" for target, share in shares.items())


def neutral(results: Results) -> Section | None:
    """The neutral target (figure 7)."""
    frame = results.swept[(results.swept["target"] == NEUTRAL) & results.swept["metric"].isin(results.bias)]
    frame = frame[frame["sparsity"] == results.study.sparsity]
    if not len(frame):
        return None
    frame = frame[frame["alpha"].isin((-2.0, 1.0, 2.0))]
    rows = []
    for key, part in over_seeds(frame, ["reference", "localization", "alpha", "metric"]).groupby(
        ["reference", "localization", "alpha"], sort=False
    ):
        values = part.set_index("metric")
        moved = (mean_std(values.loc[m]) if m in values.index else "" for m in results.bias)
        rows.append([f"{key[0]}, {key[1]}, α = {key[2]:g}", *moved])
    before = frame.groupby("metric")["before"].mean()
    text = "The neutral target, edited by its difference from either variant. Unedited: " + ", ".join(
        f"{label(metric)} {value:.2f}" for metric, value in before.items()
    )
    headings = ["reference", *map(label, results.bias)]
    return Section("A neutral target (figure 7)", f"{text}. Colours are the references'.", headings, rows, ["neutral"])


def language(results: Results) -> Section | None:
    """What the edits cost (tables 5 and 8)."""
    frame = results.at_paper_settings
    frame = frame.assign(percent=100 * frame["moved"] / frame["before"])
    rows, can_be_significant = [], False
    levels = sorted(frame["sparsity"].unique())
    for metric, column, sign in (("perplexity", "percent", 1), ("stereoset_lm", "moved", -1)):
        here = frame[frame["metric"] == metric]
        for key, part in here.groupby(["localization", "strategy", "alpha"], dropna=False, sort=False):
            by_level = dict(iter(part.groupby("sparsity")))
            tests = [wilcoxon_greater(sign * edits["value"], sign * edits["before"]) for edits in by_level.values()]
            corrected = dict(zip(by_level, bonferroni(tests), strict=True))
            least = len(by_level) * 0.5 ** max(map(len, by_level.values()))
            can_be_significant |= least < SIGNIFICANT
            found = {
                level: f"{edits[column].mean():+.2f}{'*' if corrected[level] < SIGNIFICANT else ''}"
                for level, edits in by_level.items()
            }
            rows.append(
                [f"{label(metric)}, {edit_name(key[1], key[2], key[0])}", *(found.get(level, "") for level in levels)]
            )
    if not rows:
        return None
    cells = [cell for row in rows for cell in row[1:] if cell]
    stars = sum(cell.endswith("*") for cell in cells)
    text = (
        "Change of perplexity [%] and of StereoSet's LM [points], mean over both targets and all seeds. * marks a "
        f"one-sided Wilcoxon signed-rank test over seeds and targets (perplexity up, LM down) significant at "
        f"{SIGNIFICANT} after Bonferroni correction for the sparsities of one edit: {stars} of {len(cells)}."
    )
    if not can_be_significant:
        text += " With so few seeds, none can be."
    return Section("What it costs (tables 5 and 8)", text, ["", *(f"{level:.0%} sparse" for level in levels)], rows)


def downstream(results: Results) -> Section | None:
    """Fine-tuned on tasks of sentence pairs (table 2)."""
    frame = results.tuned
    if not len(frame):
        return Section("Downstream (table 2)", "No downstream task was run in this study: claim 15 was not tested.")
    frame = frame.assign(
        name=[
            f"{row.variant}, {row.sparsity:.0%} sparse, unedited"
            if pd.isna(row.strategy)
            else f"{row.target}, {row.sparsity:.0%} sparse, {edit_name(row.strategy, row.alpha, row.localization)}"
            + ("" if pd.isna(row.k) else f", k = {size_text(row.k)}")
            + ("" if pd.isna(row.last_layers) else f", last {row.last_layers:.0f} layers")
            + f", reference {row.reference}"
            for row in frame.itertuples()
        ]
    )
    scores = list(dict.fromkeys(zip(frame["task"], frame["metric"], strict=True)))
    table = over_seeds(frame, ["name", "task", "metric"]).set_index(["name", "task", "metric"])
    names = sorted(frame["name"].unique(), key=lambda name: "unedited" not in name)
    rows = [
        [name, *(mean_std(table.loc[(name, *s)], 1) if (name, *s) in table.index else "" for s in scores)]
        for name in names
    ]
    seeds = int(table["count"].max())
    epochs = results.study.downstream.epochs
    text = f"Scores after fine-tuning on each pair {epochs:g} times [%], mean ± standard deviation of {seeds} seeds."
    return Section("Downstream (table 2)", text, ["", *(f"{t} {m}" for t, m in scores)], rows)


SECTIONS: tuple[Callable[[Results], Section | None], ...] = (
    subnetworks,
    where,
    strategies,
    strength,
    size,
    neutral,
    language,
    downstream,
)
