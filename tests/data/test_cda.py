from __future__ import annotations

import pytest

from lce.data.cda import annotate, identity, render
from lce.data.specification import BiasSpecification


@pytest.mark.parametrize(
    ("sentence", "kind", "groups"),
    [
        ("She is a nurse.", "biased", (0, 0)),
        ("She is a surgeon.", "biased", (0, 1)),
        ("He is a nurse.", "biased", (1, 0)),
        ("The sky is blue.", "neutral", (None, None)),
        ("He met the lady, a nurse.", "other", (None, None)),
        ("She is a nurse and a cook.", "other", (None, None)),
        ("She is tall.", "other", (None, None)),
        ("A nurse came.", "other", (None, None)),
    ],
)
def test_exactly_one_target_and_one_attribute(
    spec: BiasSpecification, sentence: str, kind: str, groups: tuple[int | None, int | None]
) -> None:
    found = annotate(sentence, spec)
    assert (found.kind, (found.target_group, found.attribute_group)) == (kind, groups)


@pytest.mark.parametrize(
    ("source", "stereotypical", "anti"),
    [
        ("She is a nurse.", "She is a nurse.", "He is a nurse."),
        ("SHE is an engineer.", "HE is an engineer.", "SHE is an engineer."),
        ("A lady in child-care.", "A lady in child-care.", "A gentleman in child-care."),
        ("The sky is blue.", "The sky is blue.", "The sky is blue."),
    ],
)
def test_variants_mirror_each_other(spec: BiasSpecification, source: str, stereotypical: str, anti: str) -> None:
    found = annotate(source, spec)
    assert render(source, found, "stereotypical") == stereotypical
    assert render(source, found, "anti-stereotypical") == anti
    assert render(source, found, "neutral") == source


def test_identity_is_shared_by_counterfactuals_and_copies(spec: BiasSpecification) -> None:
    one = identity("She is a nurse.", spec, 0)
    assert one == identity("HE  is a nurse.", spec, 0)
    assert one != identity("She is a cook.", spec, 0)
    assert one != identity("She is a nurse.", spec, 1)
