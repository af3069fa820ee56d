"""The paper's claims C1 to C15, and what a study says of each by the rules of claims.yaml."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lce.study.report import rules
from lce.study.report.results import Results


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, the paper's number, the rule by which it holds, and what a study says of it.

    ``holds`` is None where the study does not hold what the rule needs.
    """

    number: str
    text: str
    paper: str
    rule: str
    holds: bool | None
    measured: str


def judge(results: Results) -> list[Claim]:
    """All claims with what the study's ``results`` say of them."""
    claims: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    found = []
    for number, about in claims.items():
        holds, measured = getattr(rules, about.pop("function"))(results)
        found.append(Claim(number, **about, holds=None if holds is None else bool(holds), measured=measured))
    return found
