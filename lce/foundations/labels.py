"""How names and values of scores are written for people."""

import re

LABELS = {
    "stereoset_ss": "StereoSet SS",
    "stereoset_lm": "StereoSet LM",
    "stereoset_icat": "StereoSet ICAT",
    "crows_pairs": "CrowS-Pairs (bias-bench)",
    "crows_pairs_original": "CrowS-Pairs (original)",
    "occupation_pronouns": "occupation pronouns",
    "occupation_pronouns_held_out": "occupation pronouns, held-out sentences",
    "forced_choice": "forced choice, male or female",
    "plain_perplexity": "perplexity, plain text",
    "pseudo_perplexity": "pseudo-perplexity",
    "stereoset": "StereoSet",
}


def label(name: str) -> str:
    """The ``name`` of a score in words, such as WEAT 8 for weat8."""
    if name in LABELS:
        return LABELS[name]
    known = re.fullmatch(r"(weat|seat)(\d+b?)", name)
    return f"{known[1].upper()} {known[2]}" if known else name


def number_text(value: float | None, form: str = ".2f") -> str:
    """A score in the number format ``form``; a dash for None."""
    return "–" if value is None else format(value, form)


def p_text(p_value: float | None) -> str:
    """A p-value with four decimals, or an upper bound; empty for None."""
    if p_value is None:
        return ""
    return f"{p_value:.4f}" if p_value >= 0.0001 else "< 0.0001"


def interval_text(ends: list[float] | None) -> str:
    """Both ends of an interval, ``2.10 to 3.40``; a dash for None."""
    return f"{ends[0]:.2f} to {ends[1]:.2f}" if ends else "–"
