"""A model's states at one site, computed chunk by chunk, shuffled, and served in batches.

The texts are put in a random order once and cut into chunks of about so many states. A chunk's states are computed when
they are first needed, and kept: in memory if all of them fit, else on the disk. Each time through the text, the chunks
come in another order, and the states within them too. What a step is trained on depends on the seed and on its number
alone, so a training resumes anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import IterableDataset
from tqdm import tqdm

from lce.data.encoding import EncodedTexts
from lce.foundations.errors import LceError
from lce.foundations.seeds import generator
from lce.metrics.scoring import PROCESSOR_TOKENS, evaluating, padded, token_batches
from lce.models.sites import Site, states_at
from lce.storage.torch_bridge import read_file, write_file

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class States(IterableDataset[Tensor]):
    """Batches of states (batch, width), float32, for ``steps`` steps from step ``start`` on.

    The first token of each text is left out: many models keep there a state of huge norm that says nothing of the text
    (an attention sink).

    Args:
        texts: what the model reads.
        pad_id: the token that fills rows up.
        tokens: as many of the texts as have so many states are used; all by default.
        chunk: states that are computed and shuffled together.
        memory: bytes that all states may take up in memory.
        folder: where they lie if they do not fit it; it is emptied by `remove`.

    Raises:
        LceError: the texts have fewer states than a batch.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        site: Site,
        texts: EncodedTexts,
        pad_id: int,
        width: int,
        batch_size: int,
        seed: int,
        steps: int,
        tokens: int | None,
        chunk: int,
        memory: float,
        folder: Path,
    ) -> None:
        self.model, self.site, self.texts, self.pad_id = model, site, texts, pad_id
        self.batch_size, self.seed, self.steps, self.start = batch_size, seed, steps, 0
        lengths = texts.offsets.diff() - 1
        order = torch.randperm(len(texts), generator=generator(seed, "order of texts"))
        order = order[lengths[order] > 0]
        ends = lengths[order].cumsum(0)
        if tokens is not None:
            order, ends = order[ends <= tokens], ends[ends <= tokens]
        if not len(ends) or int(ends[-1]) < batch_size:
            raise LceError(f"data: the text has fewer states than the {batch_size:,} of a step; give more of it")
        self.count = int(ends[-1])
        number = max(1, self.count // chunk)  # one of them has a batch at least
        cuts = torch.searchsorted(ends, torch.arange(1, number) * (self.count / number)) + 1
        self.chunks = [part.tolist() for part in torch.tensor_split(order, cuts) if len(part)]
        self.batches = [int(lengths[torch.tensor(part)].sum()) // batch_size for part in self.chunks]
        self.folder = folder if self.count * width * 4 > memory else None
        self.kept: dict[int, Tensor] = {}

    def __iter__(self) -> Iterator[Tensor]:
        for epoch, chunk, first, last in self._plan():
            states = self.states(chunk)
            order = torch.randperm(len(states), generator=generator(self.seed, "states", epoch, chunk))
            for batch in range(first, last):
                yield states[order[batch * self.batch_size : (batch + 1) * self.batch_size]]

    def __len__(self) -> int:
        """Of the whole training, wherever it starts: a resumed one counts on."""
        return self.steps

    def _plan(self) -> Iterator[tuple[int, int, int, int]]:
        """(epoch, chunk, first batch, behind the last batch) of what steps ``start`` to ``steps`` are made from."""
        step, epoch = 0, 0
        while step < self.steps:
            for chunk in torch.randperm(len(self.chunks), generator=generator(self.seed, "chunks", epoch)).tolist():
                first, last = max(0, self.start - step), min(self.batches[chunk], self.steps - step)
                if first < last:
                    yield epoch, chunk, first, last
                step += self.batches[chunk]
            epoch += 1

    def states(self, chunk: int) -> Tensor:
        """All states of a chunk, (n, width)."""
        if chunk in self.kept:
            return self.kept[chunk]
        path = self.folder / f"chunk-{chunk:05d}.safetensors" if self.folder else None
        if path and path.exists():
            return read_file(path)[1]["states"]
        states = self.computed([self.texts[i][0].tolist() for i in self.chunks[chunk]], f"states, chunk {chunk + 1}")
        if path:
            write_file(path, {"states": states}, {"kind": "states"})
        else:
            self.kept[chunk] = states
        return states

    def computed(self, sentences: list[list[int]], title: str) -> Tensor:
        """The states of ``sentences`` (token ids), without their first tokens: (n, width)."""
        found: list[Tensor] = [torch.empty(0)] * len(sentences)
        model = self.model
        with evaluating(model), tqdm(total=len(sentences), desc=title, leave=False, delay=2, disable=None) as bar:
            for batch in token_batches([len(ids) for ids in sentences], PROCESSOR_TOKENS):
                ids, attention = padded([sentences[i] for i in batch], self.pad_id, model.device)
                states = states_at(model, self.site, ids, attention).float().cpu()
                for row, i in enumerate(batch):
                    found[i] = states[row, 1 : len(sentences[i])]
                bar.update(len(batch))
        result = torch.cat(found).clone()
        if not bool(torch.isfinite(result).all()):
            raise LceError(f"site {self.site.name}: the model has states there that are not finite numbers")
        return result

    def remove(self) -> None:
        """Remove the states that lie on the disk."""
        for path in self.folder.glob("chunk-*.safetensors") if self.folder else []:
            path.unlink()
