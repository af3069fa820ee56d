"""Measure the bias of one language model, masked or causal, against that of another: scores, differences, paired tests.

    python examples/compare_models.py MODEL AGAINST --limit 50

The models are folders or names on the Hugging Face hub, with the same vocabulary. The benchmarks are fetched once.
"""

from argparse import ArgumentParser

import lce

parser = ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("model")
parser.add_argument("against")
parser.add_argument("--bias_type", default="gender")
parser.add_argument("--limit", type=int, help="only the first so many items of each benchmark")
parser.add_argument("--downloads", default="data/downloads", help="where the benchmarks are kept")
options = parser.parse_args()

settings = lce.EvaluationSettings(
    metrics=["weat", "stereoset", "crows_pairs"], bias_type=options.bias_type, limit=options.limit
)
model, tokenizer = lce.load_language_model(options.model)
other, _ = lce.load_language_model(options.against)
suite = lce.BiasSuite(settings, tokenizer, options.downloads, kind=lce.kind_named(options.model))

print(f"{'score':<16} {'model':>8} {'against':>8} {'difference':>11} {'95 % interval':>18} {'p':>7}")
for metric, metric_of_other in zip(suite.measure(model), suite.measure(other), strict=True):
    scores, others = metric.scores(), metric_of_other.scores()
    for name, difference in lce.differences(metric, metric_of_other).items():
        low, high = difference["interval"]
        p = f"{difference['tests'][0]['p_value']:.4f}" if difference["tests"] else "–"
        values = f"{scores[name].value:>8.2f} {others[name].value:>8.2f} {difference['value']:>+11.2f}"
        print(f"{name:<16} {values} {low:>+8.2f} to {high:>+6.2f} {p:>7}")
