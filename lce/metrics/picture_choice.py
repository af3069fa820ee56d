"""Which of two answers about a picture is likelier: a forced choice, by the probabilities of the next token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lce.foundations.errors import LceError
from lce.metrics.forced_choice import spellings
from lce.models.image_text import ImageText


class PictureChoice:
    """The two answers to a question, each by the tokens that are one of its words whole.

    Args:
        prompt: the question with the start of the answer: see `ImageText.prompt`.
        words: of each answer, in lower case; their capitalised spellings count, too.

    Raises:
        LceError: none of the words of an answer is a token.
    """

    def __init__(self, model: ImageText, prompt: str, words: Sequence[Sequence[str]]) -> None:
        self.model, self.prompt = model, prompt
        self.tokens: list[list[int]] = []
        for answer in words:
            every = [spelled for word in answer for spelled in (word, word.capitalize())]
            found = spellings(every, model.processor.tokenizer)
            if not found:
                raise LceError(f"choice.words: none of {', '.join(answer)} is one token of {model.name}'s tokenizer")
            self.tokens.append(found)

    def log_probabilities(self, inputs: dict[str, Tensor]) -> Tensor:
        """Of both answers to the prompts that were read, (n, 2)."""
        states = self.model.read(inputs, lambda *_: None, [])[:, -1]
        with torch.inference_mode():
            logits = self.model.model.get_output_embeddings()(states).float()
            logs = logits.log_softmax(1)
            return torch.stack([logs[:, tokens].logsumexp(1) for tokens in self.tokens], 1).cpu()
