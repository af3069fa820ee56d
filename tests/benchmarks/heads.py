"""Taking a CLIP's image embedding apart into heads, and ablating every head, against the published ways, in one run.

The published decomposition (Gandelsman et al. 2024) materialises in every layer what each head writes to each token
from each other token, (pictures, tokens, tokens, heads, width), two pictures at a time, and keeps the class token's
row. Here, a head's output on the class token is read before the output projection, and the rest is one product. The
shape is ViT-B/16; memory is what a process takes beyond the loaded model. Ablating every head of a CLIP of the size
of lce's own: a whole forward pass for each, against the layers from the ablated head on. All weights are random.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path

import torch
from common import PEER_OWN_RATIO, apart, in_turns, machine, report, spent, timed
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPConfig, CLIPModel

from lce.foundations.logs import quieten
from lce.models.fast_linear import OneDnnLinear
from lce.models.image_states import ImageStates
from lce.models.image_terms import Reading
from lce.models.image_tower import ImageTower

PICTURES, TOGETHER, ABLATED = 2, 2, 64


def model_of_shape(layers: int, width: int, heads: int, patch: int, size: int) -> CLIPModel:
    """A CLIP whose image encoder has this shape, with random weights."""
    shape = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
    vision = shape | {"intermediate_size": 4 * width, "patch_size": patch, "image_size": size}
    torch.manual_seed(0)
    return CLIPModel(CLIPConfig(vision_config=vision, text_config={"num_hidden_layers": 1})).eval()


def published(tower: ImageTower, pixels: Tensor) -> Tensor:
    """The terms of all heads, (n, L, H, D), by way of every token's output from every other token."""
    vision, terms = tower.vision, []
    states = vision.pre_layrnorm(vision.embeddings(pixels))
    for layer in tower.layers:
        block, normal = layer.self_attn, layer.layer_norm1(states)
        query, key, value = (
            part(normal).unflatten(-1, (tower.heads, tower.head_width))
            for part in (block.q_proj, block.k_proj, block.v_proj)
        )
        weights = (torch.einsum("bnhc,bmhc->bhnm", query, key) / tower.head_width**0.5).softmax(-1)
        output = block.out_proj.weight.unflatten(1, (tower.heads, tower.head_width))
        written = torch.einsum("bnmhc,dhc->bnmhd", torch.einsum("bhnm,bmhc->bnmhc", weights, value), output)
        terms.append(written[:, 0].sum(1))
        states = states + written.sum((2, 3)) + block.out_proj.bias
        states = states + layer.mlp(layer.layer_norm2(states))
    last = states[:, 0]
    length = tower.projection(vision.post_layernorm(last)).norm(dim=1)
    spread = (last.var(1, correction=0) + vision.post_layernorm.eps).sqrt()
    centred = torch.stack(terms, 1) - torch.stack(terms, 1).mean(-1, keepdim=True)
    return tower.projection(centred * vision.post_layernorm.weight) / (spread * length)[:, None, None, None]


def streamed(tower: ImageTower, pixels: Tensor) -> Tensor:
    with OneDnnLinear():
        return Reading(tower).head_terms(ImageStates.of(tower, pixels))


def decomposed(way: str) -> tuple[float, int, Tensor]:
    """Seconds, bytes beyond the loaded model, and the terms, of all pictures."""
    tower = ImageTower.of(model_of_shape(12, 768, 12, 16, 224))
    torch.manual_seed(1)
    pixels = torch.randn(PICTURES, 3, 224, 224)
    with torch.inference_mode():
        ImageStates.of(tower, pixels[:1, :, :, :])  # so that nothing is done for the first time
        before = memory_now()
        work = published if way == "published" else streamed
        with Watched() as watched:
            seconds, found = timed(lambda: torch.cat([work(tower, part) for part in pixels.split(TOGETHER)]))
    return seconds, max(watched.most, memory_now()) - before, found


def memory_now() -> int:
    """What this process holds [bytes]."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * 4096


class Watched:
    """The most memory that the process holds in the block [bytes], looked at every few milliseconds."""

    def __enter__(self) -> Watched:
        self.most, self.done = memory_now(), False
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.done:
            self.most = max(self.most, memory_now())
            time.sleep(0.002)

    def __exit__(self, *_: object) -> None:
        self.done = True
        self.thread.join()


def ablated() -> list[str]:
    """A row about the zero-ablation of every head of a CLIP of the size of lce's own."""
    model = model_of_shape(8, 192, 6, 12, 72)
    tower = ImageTower.of(model)
    torch.manual_seed(1)
    pixels = torch.randn(ABLATED, 3, 72, 72)
    edits = []
    for layer in range(len(tower.layers)):
        output = tower.output(layer)
        for head in range(tower.heads):
            weight = output.weight.clone()
            weight[:, head * tower.head_width : (head + 1) * tower.head_width] = 0
            edits.append({layer: (weight, output.bias)})

    def one_by_one() -> Tensor:
        found = []
        for edit in edits:
            ((layer, (weight, _)),) = edit.items()
            before = tower.output(layer).weight.detach().clone()
            tower.output(layer).weight.data.copy_(weight)
            found.append(normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=1))
            tower.output(layer).weight.data.copy_(before)
        return torch.stack(found)

    def from_there_on() -> Tensor:
        found = torch.empty(len(edits), ABLATED, tower.projection.out_features)
        with OneDnnLinear():
            for number, embedding in ImageStates.of(tower, pixels).embeddings(edits):
                found[number] = embedding
        return found

    with torch.inference_mode():
        apart = f"{float((from_there_on() - one_by_one()).abs().max()):.1e}"
        turns = in_turns(spent(from_there_on), spent(one_by_one))
    return [f"every one of {len(edits)} heads ablated, 8 layers × 192", *turns.cells(), "", apart]


def main() -> None:
    quieten()
    seen = {}

    def decompose(way: str) -> float:
        time, *seen[way] = apart(decomposed, way)
        return time

    turns = in_turns(partial(decompose, "streamed"), partial(decompose, "published"))
    (held, ours), (taken, theirs) = seen["streamed"], seen["published"]
    memory = f"{taken / 1e6:,.0f} and {held / 1e6:,.0f} MB: {taken / held:.0f}"
    differ = f"{float((ours - theirs).abs().max()):.1e}"
    rows = [[f"terms of all heads, ViT-B/16, {PICTURES} pictures", *turns.cells(), memory, differ], ablated()]
    print(machine(torch.device("cpu")))
    headings = ["", "published way", *PEER_OWN_RATIO[1:], "times less memory", "differ by at most"]
    report("Heads of CLIP's image encoder", headings, rows)


if __name__ == "__main__":
    main()
