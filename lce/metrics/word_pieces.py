"""How a tokenizer splits a word that follows another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def word_pieces(word: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Sub-tokens of ``word`` as they are after another word: with a leading space where the tokenizer has one."""
    encoded = tokenizer(f"x {word}", add_special_tokens=False, return_offsets_mapping=True)
    return [i for i, (_, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True) if end > 1]
