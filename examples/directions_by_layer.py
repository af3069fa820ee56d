"""At which layer does a direction carry what occupations say about gender? All are tried, on held-out occupations.

    python examples/directions_by_layer.py MODEL [ALPHA]

At each layer, the direction from women's to men's occupations is taken out, found by one half of the occupations and
measured on the other: the gap in log P(he) − log P(she) that is left, in sentences that it was not found in.
"""

import sys

import lce
from lce.edit.site_edit import DirectionEdit
from lce.evaluation.cross_fitted import cross_fitted, halves
from lce.localize.directions import occupation_direction
from lce.localize.feature_units import Reader
from lce.metrics.occupation_pronouns import HELD_OUT, SENTENCES, OccupationPronounsScorer
from lce.metrics.scoring import TokenBudget
from lce.models.sites import find_site, layer_stack

name, alpha = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
model, tokenizer = lce.load_language_model(name)
kind, parts = lce.kind_named(name), halves(0)
scorer = OccupationPronounsScorer("gap", HELD_OUT, tokenizer, kind)


def measure(one):
    return [scorer.score(one, TokenBudget())]


print(f"unedited: {float(measure(model)[0].compute()):.2f} nats")
for layer in range(len(layer_stack(model)[1])):
    reader = Reader(model, tokenizer, kind, find_site(model, f"layers.{layer}"))
    states = reader.states(SENTENCES, "last")
    edits = [DirectionEdit(occupation_direction(reader, states.among(part)), alpha) for part in parts]
    (found,) = cross_fitted(edits, parts, model, measure)
    print(f"layer {layer + 1}: {float(found.compute()):.2f} nats left")
