from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from subnetworks import SHAPES, subnetwork

from lce.foundations.errors import LceError
from lce.localize.components import by_component, layers_and_components
from lce.localize.heat_map import heat_map, save_heat_map
from lce.localize.selection import Selection
from lce.localize.weights import mask_based, value_based

TARGET, REFERENCE = subnetwork("target", 0), subnetwork("reference", 1)


def test_counts_by_layer_and_component() -> None:
    selection = value_based(TARGET, REFERENCE, 1.0)
    cells = selection.by_layer_and_component()
    assert set(cells) == {(i, c) for i in (0, 1) for c in ("attention.output.dense", "intermediate.dense")}
    assert sum(n for n, _ in cells.values()) == selection.count
    assert sum(total for _, total in cells.values()) == selection.size
    components = by_component(selection.counts, selection.shapes)
    assert sum(about["count"] for about in components.values()) == selection.count


def test_layers_and_components_of_any_architecture() -> None:
    expected = {
        "model.layers.12.mlp.Wo.weight": (12, "mlp.Wo"),
        "model.layers.3.mlp.experts.17.up_proj.weight": (3, "mlp.experts.*.up_proj"),
        "model.embed_tokens.weight": (None, "model.embed_tokens"),
    }
    assert layers_and_components(expected) == expected
    t5 = layers_and_components(
        ["encoder.block.1.layer.0.SelfAttention.q.weight", "decoder.block.1.layer.0.SelfAttention.q.weight"]
    )
    assert list(t5.values()) == [(1, "encoder: layer.*.SelfAttention.q"), (1, "decoder: layer.*.SelfAttention.q")]
    assert layers_and_components(["h.0.attn.c_attn.weight"]) == {"h.0.attn.c_attn.weight": (0, "attn.c_attn")}


def test_saved_and_read_back(tmp_path: Path) -> None:
    selection = mask_based(TARGET, REFERENCE)
    selection.save(tmp_path / "s.safetensors")
    read = Selection.load(tmp_path / "s.safetensors")
    assert all(torch.equal(read.indices[name], selection.indices[name]) for name in SHAPES)
    assert (read.counts, read.shapes) == (selection.counts, selection.shapes)
    assert replace(read, indices={}) == replace(selection, indices={})
    save_heat_map(read, tmp_path / "s.png")
    assert (tmp_path / "s.png").stat().st_size > 5_000


def test_a_selection_found_on_the_way_to_its_file_is_the_same(tmp_path: Path) -> None:
    for name, found, stored in (
        ("mask", mask_based(TARGET, REFERENCE), mask_based(TARGET, REFERENCE, tmp_path / "m.safetensors")),
        (
            "value",
            value_based(TARGET, REFERENCE, count=9),
            value_based(TARGET, REFERENCE, count=9, path=tmp_path / "v.safetensors"),
        ),
    ):
        assert stored.localization == name
        assert all(torch.equal(stored.indices[parameter], found.indices[parameter]) for parameter in SHAPES)


def test_positions_outside_are_refused(tmp_path: Path) -> None:
    selection = mask_based(TARGET, REFERENCE)
    first = next(iter(SHAPES))
    replace(selection, indices={**selection.indices, first: torch.tensor([0, 48])}).save(tmp_path / "s.safetensors")
    with pytest.raises(LceError, match="48 lies outside"):
        Selection.load(tmp_path / "s.safetensors").indices[first]


def test_another_file_is_no_selection(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "s.safetensors")
    with pytest.raises(LceError, match="is no selection"):
        Selection.load(tmp_path / "s.safetensors")
    with pytest.raises(LceError, match="cannot be read"):
        Selection.load(tmp_path / "missing.safetensors")


def test_the_last_layers_of_a_selection() -> None:
    selection = value_based(TARGET, REFERENCE, 0.5)
    last = selection.in_last_layers(1)
    for name in SHAPES:
        expected = selection.indices[name] if ".layer.1." in name else torch.tensor([], dtype=torch.int64)
        assert torch.equal(last.indices[name], expected)
    assert (last.shapes, last.target) == (selection.shapes, selection.target)
    assert selection.in_last_layers(2).counts == selection.counts
    with pytest.raises(LceError, match="last_layers: expected 1 to 2, got 3"):
        selection.in_last_layers(3)


def test_the_map_of_a_tiny_selection_shows_numbers_of_weights() -> None:
    cells = {(0, "query"): (3, 1000), (1, "query"): (0, 1000)}
    for factor, texts in ((1, ["3", "0"]), (100, ["30.00", "0.00"])):
        figure = heat_map({place: (factor * selected, total) for place, (selected, total) in cells.items()}, "")
        assert [text.get_text() for text in figure.axes[0].texts] == texts
        assert figure.axes[1].get_ylabel().endswith("their number") == (factor == 1)
