"""Counterfactual data augmentation (CDA): one corpus, rewritten to support a stereotype or its opposite.

A sentence is *biased* if it holds exactly one target term (group T_i) and exactly one attribute term (set
A_j); it is stereotypical if i = j and anti-stereotypical otherwise. It is *neutral* if it holds no term at
all. The stereotypical variant of a corpus swaps the target term wherever i ≠ j, the anti-stereotypical
variant wherever i = j, so the two differ in the swapped target terms and in nothing else (Lutz et al. 2024,
section 4.1).
"""

from dataclasses import dataclass
from typing import Literal

from lce.config import Variant
from lce.data.specification import BiasSpecification
from lce.foundations.seeds import derive

Bias = Literal["biased", "neutral", "other"]


@dataclass(frozen=True)
class Annotation:
    """What CDA needs to know about a sentence; the groups are 0 or 1, None where ``kind`` is not biased."""

    kind: Bias
    target_group: int | None = None
    attribute_group: int | None = None
    counterfactual: str | None = None


def annotate(sentence: str, spec: BiasSpecification) -> Annotation:
    """Find the specification's terms in ``sentence`` and rewrite it if it is biased."""
    terms = list(spec.find(sentence))
    if not terms:
        return Annotation("neutral")
    targets = [term for term in terms if term.is_target]
    attributes = [term for term in terms if not term.is_target]
    if len(targets) != 1 or len(attributes) != 1:
        return Annotation("other")
    return Annotation("biased", targets[0].group, attributes[0].group, spec.swap(sentence, targets[0]))


def render(text: str, annotation: Annotation, variant: Variant) -> str:
    """``text`` as it stands in ``variant`` of the corpus."""
    if annotation.kind != "biased" or variant == "neutral" or annotation.counterfactual is None:
        return text
    is_stereotypical = annotation.target_group == annotation.attribute_group
    return text if is_stereotypical == (variant == "stereotypical") else annotation.counterfactual


def identity(sentence: str, spec: BiasSpecification, seed: int) -> int:
    """A 63-bit number shared by a sentence, its counterfactuals and its trivial copies.

    It ignores case, white space and which term of a target pair is used. Whether a sentence is held out, and whether
    it is sampled, follow from this number alone: no sentence can be in the training set of one variant and in the
    evaluation set of another.
    """
    canonical = sentence
    for term in reversed(list(spec.find(sentence))):
        if term.is_target and term.group == 1:
            canonical = spec.swap(canonical, term)
    return derive(seed, " ".join(canonical.lower().split()))
