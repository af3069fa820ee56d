from __future__ import annotations

from itertools import combinations
from pathlib import Path
from statistics import mean, stdev

import pytest
import torch
from conftest import BASE

from lce.errors import LceError
from lce.metrics.weat import Weat, WeatScorer, associations, effect_size, load_word_sets, p_value
from lce.models import load_masked_lm


def layer(*rows: tuple[float, float]) -> torch.Tensor:
    return torch.tensor([rows])


def test_a_case_worked_by_hand() -> None:
    """With a = (1, 0) and b = (0, 1): s = cos − sin of the angle, i.e. 1, 0 for X and 0, −1 for Y, but for (3, 4)."""
    x, y = layer((2, 0), (1, 1)), layer((3, 4), (0, 5))
    standardised = associations(x, y, layer((1, 0)), layer((0, 1)))
    s = [1.0, 0.0, 0.6 - 0.8, -1.0]
    expected = (mean(s[:2]) - mean(s[2:])) / stdev(s)
    assert effect_size(standardised, 2).item() == pytest.approx(expected)
    reached = [sum(s[i] for i in first) >= s[0] + s[1] - 1e-9 for first in combinations(range(4), 2)]
    assert p_value(standardised, 2) == pytest.approx(sum(reached) / 6)
    metric = Weat()
    metric.update(standardised, 2)
    assert metric.compute().item() == pytest.approx(expected)


def test_swapping_the_sets_turns_the_sign() -> None:
    random = torch.Generator().manual_seed(0)
    x, y, a, b = (torch.randn(3, 5, 8, generator=random) for _ in range(4))
    effect = effect_size(associations(x, y, a, b), 5)
    torch.testing.assert_close(effect_size(associations(y, x, a, b), 5), -effect)
    torch.testing.assert_close(effect_size(associations(x, y, b, a), 5), -effect)


def test_against_the_definition_on_the_bundled_model() -> None:
    model, tokenizer = load_masked_lm(BASE)
    sets = load_word_sets("weat8")

    def vectors(word: str) -> list[torch.Tensor]:
        encoded = tokenizer(word, return_tensors="pt")
        with torch.no_grad():
            states = model.bert(**encoded, output_hidden_states=True).hidden_states
        return [state[0, 1:-1].mean(0) for state in states[1:]]

    words = {word: vectors(word) for group in (sets.x, sets.y, sets.a, sets.b) for word in group}
    effects = []
    for i in range(model.config.num_hidden_layers):

        def s(word: str, i: int = i) -> float:
            def close(group: tuple[str, ...]) -> float:
                return mean(torch.cosine_similarity(words[word][i], words[w][i], dim=0).item() for w in group)

            return close(sets.a) - close(sets.b)

        x, y = [s(w) for w in sets.x], [s(w) for w in sets.y]
        effects.append((mean(x) - mean(y)) / stdev(x + y))
    metric, p = WeatScorer(sets, tokenizer).score(model)
    assert metric.compute().item() == pytest.approx(mean(effects), abs=1e-4)
    assert 0 < p < 0.05


def test_own_word_sets(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("x: [sun]\ny: [moon]\na: [day]\nb: [night]\n", encoding="utf-8")
    assert load_word_sets(path).x == ("sun",)
    for text, message in (
        ("x: [sun]", "exactly the lists"),
        ("x: [sun]\ny: []\na: [day]\nb: [night]", "y must be a list"),
        ("x: [sun]\ny: [a, b]\na: [day]\nb: [night]", "same size"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(LceError, match=message):
            load_word_sets(path)
    with pytest.raises(LceError, match="known are weat6, weat7, weat8"):
        load_word_sets("weat99")
