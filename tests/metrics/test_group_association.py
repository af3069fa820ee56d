"""How predictions depend on groups: the measures against scipy and hand examples, and what chance does to them."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats.contingency import association

from lce.metrics.group_association import (
    ACCURACY,
    CORRECTED_V,
    LEAN,
    GroupAssociation,
    V,
    cramers_v,
)

TABLES = arrays.arrays(float, st.tuples(st.just(2), st.integers(2, 6)), elements=st.integers(0, 30).map(float))


def metric(classes=3, is_matched=False, **columns):
    """A metric of one view for each value; what is not given is 0, and every view is of another person."""
    n = len(next(iter(columns.values())))
    made = GroupAssociation("gender", classes, is_matched)
    known = {"item": np.arange(n), "person": np.arange(n), "block": np.arange(n), "lean": np.zeros(n)} | columns
    kinds = {name: float if name == "lean" else int for name in made.columns}
    made.update(**{name: torch.as_tensor(np.asarray(known.get(name, np.zeros(n)), kinds[name])) for name in kinds})
    return made


def chance(seed, people=40, views=2, classes=5, per_block=1):
    """People whose group has nothing to do with what is predicted; those of a block are predicted alike."""
    random = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), views)
    block = person // per_block
    liked = random.integers(classes, size=people // per_block)
    group = np.arange(people) % 2 if per_block > 1 else random.permutation(np.arange(people) % 2)
    predicted = np.where(random.random(len(person)) < 0.6, liked[block], random.integers(classes, size=len(person)))
    return {
        "item": np.arange(len(person)), "person": person, "block": block, "group": group[person],
        "label": np.full(len(person), -1), "predicted": predicted, "lean": (predicted % 2) * 0.5 + 0.25,
    }  # fmt: skip


@given(TABLES)
def test_v_is_that_of_scipy_and_the_corrected_one_that_of_the_formula(table):
    [plain], [corrected] = cramers_v(table[None])
    if (table.sum(1) == 0).any():
        assert np.isnan(plain)
        assert np.isnan(corrected)
        return
    kept = table[:, table.sum(0) > 0]
    if kept.shape[1] == 1:
        assert plain == corrected == 0
        return
    assert plain == pytest.approx(association(kept.astype(int), "cramer"), abs=1e-9)
    n, (r, c) = kept.sum(), kept.shape
    expected = np.outer(kept.sum(1), kept.sum(0)) / n
    phi = ((kept - expected) ** 2 / expected).sum() / n
    phi = max(0, phi - (r - 1) * (c - 1) / (n - 1))
    smaller = min(r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)) - 1
    assert corrected == pytest.approx(sqrt(phi / smaller) if smaller > 1e-12 else 0, abs=1e-9)
    assert 0 <= corrected <= plain + 1e-9 <= 1 + 2e-9


def test_several_tables_are_each_their_own():
    tables = np.array([[[8, 1, 0], [1, 7, 0]], [[3, 3, 3], [3, 3, 3]], [[9, 0, 0], [0, 0, 9]], [[0, 0, 0], [1, 1, 1]]])
    plain, corrected = cramers_v(tables.astype(float))
    for i, table in enumerate(tables[:3]):
        assert (plain[i], corrected[i]) == tuple(float(one[0]) for one in cramers_v(table[None].astype(float)))
    assert plain[1] == corrected[1] == 0
    assert plain[2] == pytest.approx(1)
    assert np.isnan(plain[3])


def test_as_many_classes_as_pictures_show_nothing():
    """V is 1 there whatever is predicted; the corrected one takes off all of it."""
    plain, corrected = cramers_v(np.array([[[1.0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]]))
    assert plain[0] == pytest.approx(1)
    assert corrected[0] == 0


def test_a_hand_example():
    """Four people of three views; the fifth has no group, and no view of theirs counts for the lean or V."""
    found = metric(
        person=[0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4],
        item=[0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4],
        group=[0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, -1],
        label=[0, 0, 0, 1, 1, 1, -1, -1, -1, 0, 0, 0, 2],
        predicted=[0, 0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 1, 2],
        lean=[0.9, 0.9, 0.6, 0.6, 0.5, 0.7, 0.1, 0.1, 0.1, 0.3, 0.9, 0.3, 1.0],
    ).scores()
    assert found[LEAN].value == pytest.approx(4.2 / 6 - 1.8 / 6)
    assert found[ACCURACY].value == pytest.approx((2 + 2 + 1 + 1) / 10)
    assert found[V].value == pytest.approx(association([[3, 3], [1, 5]], "cramer"))
    assert {name: score.n for name, score in found.items()} == {LEAN: 4, V: 4, CORRECTED_V: 4, ACCURACY: 4}
    assert list(found) == [LEAN, V, CORRECTED_V, ACCURACY]


def test_values_are_the_scores_and_the_first_is_what_the_metric_computes():
    made = metric(5, **chance(0))
    assert made.values() == pytest.approx({name: score.value for name, score in made.scores().items()}, nan_ok=True)
    assert float(made.compute()) == pytest.approx(made.values()[LEAN])


def test_without_classes_there_is_no_accuracy_and_without_a_group_no_bias():
    unlabelled = metric(group=[0, 1, 0, 1], label=[-1] * 4, predicted=[0, 1, 0, 1], lean=[1.0, 0, 1, 0])
    assert np.isnan(unlabelled.values()[ACCURACY])
    assert unlabelled.scores()[ACCURACY].as_json() == {"value": None, "interval": None, "n": 0}
    alone = metric(group=[0, 0, -1], label=[0, 1, 1], predicted=[0, 1, 1], lean=[1.0, 0, 1]).values()
    assert all(np.isnan(alone[name]) for name in (LEAN, V, CORRECTED_V))
    assert alone[ACCURACY] == 1


def test_one_class_for_all_is_no_association():
    values = metric(group=[0, 1, 0, 1], predicted=[2, 2, 2, 2], lean=[0.3] * 4).values()
    assert (values[V], values[CORRECTED_V], values[LEAN]) == (0, 0, pytest.approx(0))


def test_the_order_of_rows_and_the_numbers_of_people_do_not_matter():
    rows = chance(1, per_block=2)
    order = np.random.default_rng(0).permutation(len(rows["item"]))
    shuffled = {name: values[order] for name, values in rows.items()}
    shuffled["person"] = 1000 - 3 * shuffled["person"]
    assert metric(5, True, **shuffled).values() == pytest.approx(metric(5, True, **rows).values(), nan_ok=True)


def test_more_views_of_the_same_are_no_evidence():
    """The interval and the null are those of people: views of one person are resampled and exchanged together."""
    few, many = chance(2, people=30, views=1), {}
    for name, values in few.items():
        many[name] = np.repeat(values, 6)
    first, second = metric(5, **few), metric(5, **many)
    for name in (LEAN, V):
        assert second.scores()[name].as_json() == first.scores()[name].as_json()
        np.testing.assert_allclose(second.null(300)[name], first.null(300)[name])


def test_blocks_are_resampled_whole():
    """Where the two people of every block are alike, each resample has as many of both groups, and no bias."""
    rows = chance(3, people=40, views=1, per_block=2)
    rows["predicted"] = np.repeat(rows["predicted"][::2], 2)
    rows["lean"] = np.repeat(rows["lean"][::2], 2)
    lean = metric(5, True, **rows).scores()[LEAN]
    assert lean.value == pytest.approx(0)
    assert np.abs(lean.resampled).max() < 1e-9
    apart = metric(5, False, **(rows | {"block": rows["person"]})).scores()[LEAN]
    assert np.abs(apart.resampled).max() > 0.05


def test_intervals_cover_what_all_would_have():
    """95 % of the intervals of the lean of random people hold the true one, which is 0.2."""
    random, covered = np.random.default_rng(0), 0
    for _ in range(60):
        group = np.arange(80) % 2
        lean = random.normal(0.5 + 0.2 * (group == 0), 0.3)
        low, high = metric(group=group, predicted=group, lean=lean).scores()[LEAN].as_json()["interval"]
        covered += low <= 0.2 <= high
    assert covered >= 51


@pytest.mark.parametrize(("per_block", "is_matched"), [(1, False), (2, True)])
def test_chance_is_taken_for_bias_as_often_as_is_said(per_block, is_matched):
    """Above the 99th percentile of the null in about one of a hundred data sets without any bias, and p evenly so."""
    above, shares, middle = {LEAN: 0, CORRECTED_V: 0}, [], []
    for seed in range(120):
        made = metric(5, is_matched, **chance(seed, per_block=per_block))
        values, null = made.values(), made.null(300)
        for name in above:
            above[name] += values[name] > np.percentile(null[name], 99)
        shares.append((null[LEAN] >= values[LEAN]).mean())
        middle.append(null[LEAN].mean())
    assert max(above.values()) <= 6
    assert np.abs(middle).max() < 0.05, "the null is about no lean"
    assert 0.35 < np.mean(shares) < 0.65
    assert 0.05 < np.mean(np.array(shares) < 0.15) < 0.3


def test_real_bias_is_found():
    rows = chance(0)
    rows["lean"] = rows["lean"] + 0.4 * (rows["group"] == 0)
    rows["predicted"] = np.where(rows["group"] == 0, rows["predicted"] // 3, rows["predicted"])
    made = metric(5, **rows)
    for name, null in made.null().items():
        assert made.values()[name] > np.percentile(null, 99)


def test_where_pictures_are_matched_groups_are_exchanged_within_blocks_alone():
    """In blocks of a man and a woman who look alike, no exchange changes anything, however much blocks differ."""
    block = np.repeat(np.arange(12), 2)
    rows = {"block": block, "group": np.tile([0, 1], 12), "predicted": block % 3, "lean": block / 12}
    null = metric(3, True, **rows).null(200)
    assert np.abs(null[LEAN]).max() < 1e-9
    assert null[V].max() < 1e-9
    assert metric(3, False, **rows).null(200)[LEAN].std() > 0.05


def test_blocks_of_one_group_alone_keep_it():
    rows = {
        "block": [0, 0, 1, 1, 2],
        "group": [0, 0, 1, 1, -1],
        "predicted": [0, 0, 1, 1, 1],
        "lean": [1, 1, 0, 0, 0.5],
    }
    found = metric(2, True, **rows)
    assert np.allclose(found.null(50)[LEAN], found.values()[LEAN])


def test_paired_tests_find_a_difference_and_no_other():
    rows = chance(4)
    rows["label"] = rows["predicted"]
    first = metric(5, **rows)
    same = first.tests(metric(5, **rows))
    assert [test["p_value"] for test in (*same[LEAN], *same[ACCURACY])] == [1.0, 1.0]
    less = metric(5, **(rows | {"lean": rows["lean"] - 0.2 * (rows["group"] == 0)}))
    found = less.tests(first)
    assert found[LEAN][0]["p_value"] < 0.01
    assert found[ACCURACY][0]["p_value"] == 1.0
