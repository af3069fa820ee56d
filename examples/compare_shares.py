"""How many weights, and how strongly? Results of `lce edit` in one figure: the bias that is left, and what it costs.

    python examples/compare_shares.py RUN/seed-*/edits/*/result.json --out shares.png

One line for each number of weights, with a point for every α; crosses are the random baselines, where there are any.
Results of several seeds are averaged, and the bars show their range. The same is printed as a table.
"""

import json
from argparse import ArgumentParser
from collections import defaultdict
from pathlib import Path
from statistics import mean

from matplotlib.figure import Figure

parser = ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("results", nargs="+", type=Path, help="result.json of several edits of one target")
parser.add_argument("--bias", default="occupation_pronouns", help="score that is to fall: the vertical axis")
parser.add_argument("--cost", default="perplexity", help="score that is to stay: the horizontal axis, in percent")
parser.add_argument("--out", default="shares.png")
options = parser.parse_args()


def means(points):
    """The mean bias and the mean rise of the cost."""
    return tuple(mean(values) for values in zip(*points, strict=True))


edits = defaultdict(lambda: defaultdict(dict))
for path in options.results:
    result = json.loads(path.read_text(encoding="utf-8"))
    for edit in result.get("edits", [result]):
        if missing := {options.bias, options.cost} - set(edit["scores"]):
            parser.error(f"{path}: was not measured by {' and '.join(sorted(missing))}")
        bias, cost = edit["scores"][options.bias], edit["scores"][options.cost]
        point = {
            when: (bias[when], 100 * (cost[when] / cost["before"] - 1))
            for when in ("after", "uninformed")
            if bias[when] is not None
        }
        seeds = edits[result["selected"]["count"], result["selected"]["share"]][edit["alpha"]]
        if result["seed"] not in seeds or "uninformed" in point:
            seeds[result["seed"]] = point

figure = Figure(figsize=(7.5, 4.5), layout="constrained")
axes = figure.subplots()
print(f"{'weights':>12} {'alpha':>6} {'seeds':>6} {options.bias:>24} {'random':>8} {'rise of ' + options.cost:>20}")
for number, ((count, share), by_alpha) in enumerate(sorted(edits.items())):
    color, line = f"C{number}", []
    for alpha, seeds in sorted(by_alpha.items()):
        edited = [point["after"] for point in seeds.values()]
        random = [point["uninformed"] for point in seeds.values() if "uninformed" in point]
        left, rise = means(edited)
        low, high = (bound(left for left, _ in edited) for bound in (min, max))
        line.append((rise, left))
        axes.vlines(rise, low, high, color=color, alpha=0.4)
        axes.annotate(f"{alpha:g}", (rise, left), xytext=(4, 4), textcoords="offset points", fontsize=8, color=color)
        if random:
            axes.plot(*reversed(means(random)), "x", color=color)
        baseline = f"{means(random)[0]:>8.2f}" if random else f"{'–':>8}"
        interval = f"{left:.2f} [{low:.2f}, {high:.2f}]"
        print(f"{count:>12,} {alpha:>6g} {len(seeds):>6} {interval:>24} {baseline} {rise:>+19.1f}%")
    axes.plot(*zip(*line, strict=True), "o-", color=color, label=f"{count:,} weights ({100 * share:.1g} %)")
axes.axhline(bias["before"], color="tab:red", linewidth=1, label="unedited")
axes.set_xlabel(f"rise of {options.cost.replace('_', ' ')} [%]")
axes.set_ylabel(options.bias.replace("_", " "))
axes.legend(fontsize=8)
figure.savefig(options.out, dpi=120)
print(f"figure: {options.out}")
