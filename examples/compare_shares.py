"""How many weights, and how strongly? Results of `lce edit` in one figure: the bias that is left, and what it costs.

    python examples/compare_shares.py RUN/edits/*/result.json --out shares.png

Each result becomes a line with a point for every α; crosses are its random baselines. The same is printed as a table.
"""

import json
from argparse import ArgumentParser
from pathlib import Path

from matplotlib.figure import Figure

parser = ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("results", nargs="+", type=Path, help="result.json of several edits of one target")
parser.add_argument("--bias", default="occupation_pronouns", help="score that is to fall, upwards in the figure")
parser.add_argument("--cost", default="perplexity", help="score that is to stay, to the right; its rise in percent")
parser.add_argument("--out", default="shares.png")
options = parser.parse_args()

results = sorted((json.loads(path.read_text()) for path in options.results), key=lambda one: one["selected"]["count"])
figure = Figure(figsize=(7.5, 4.5), layout="constrained")
axes = figure.subplots()
print(f"{'weights':>12} {'alpha':>6} {options.bias:>20} {'random':>8} {options.cost:>16}")
for number, result in enumerate(results):
    title = f"{result['selected']['count']:,} weights ({result['selected']['share']:.3%})"
    points, random = [], []
    for edit in sorted(result.get("edits", [result]), key=lambda one: one["alpha"]):
        bias, cost = (edit["scores"][name] for name in (options.bias, options.cost))
        points.append((100 * (cost["after"] / cost["before"] - 1), bias["after"], f"{edit['alpha']:g}"))
        random.append((100 * (cost["uninformed"] / cost["before"] - 1), bias["uninformed"]))
        print(
            f"{result['selected']['count']:>12,} {edit['alpha']:>6g} {bias['after']:>20.2f} {bias['uninformed']:>8.2f}"
            f" {cost['after']:>8.2f} {points[-1][0]:>+6.1f}%"
        )
    color = f"C{number}"
    axes.plot([x for x, _, _ in points], [y for _, y, _ in points], "o-", color=color, label=title)
    axes.plot([x for x, _ in random], [y for _, y in random], "x", color=color)
    for x, y, alpha in points:
        axes.annotate(alpha, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8, color=color)
axes.axhline(bias["before"], color="tab:red", linewidth=1, label="unedited")
axes.set_xscale("symlog", linthresh=1)
axes.set_xlabel(f"rise of {options.cost} [%]")
axes.set_ylabel(options.bias.replace("_", " "))
axes.legend(fontsize=8)
figure.savefig(options.out, dpi=120)
print(f"figure: {options.out}")
