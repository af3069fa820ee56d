"""Edit a masked language model where it differs from another one, look at a prediction, and keep the edit as a patch.

    python examples/edit_two_models.py TARGET REFERENCE --alpha 2 --share 0.01 --patch edit.patch.safetensors

TARGET and REFERENCE are folders or names on the Hugging Face hub, of the same architecture.
"""

from argparse import ArgumentParser

import torch

import lce


def predictions(model, tokenizer, text):
    """The five most probable words for the mask in ``text``."""
    inputs = tokenizer(text.replace("[MASK]", tokenizer.mask_token), return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[inputs["input_ids"] == tokenizer.mask_token_id][0]
    best = logits.softmax(-1).topk(5)
    return ", ".join(f"{tokenizer.decode([i])} {p:.1%}" for i, p in zip(best.indices, best.values, strict=True))


parser = ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("target")
parser.add_argument("reference")
parser.add_argument("--alpha", type=float, default=2.0, help="strength: 1 puts the reference's values in")
parser.add_argument("--share", type=float, default=0.01, help="share of the weights to edit")
parser.add_argument("--patch", default="edit.patch.safetensors", help="file to write")
parser.add_argument("--text", default="The nurse said that [MASK] was tired.")
options = parser.parse_args()

pair = lce.open_pair(options.target, options.reference)
selection = lce.select(pair, lce.EditSettings(localization="value", share=options.share))
edit = lce.WeightEdit(selection, pair.target, pair.reference, alpha=options.alpha)
print(f"{selection.count:,} of {selection.size:,} weights selected")

model, tokenizer = lce.load_language_model(options.target)
print("before:", predictions(model, tokenizer, options.text))
with edit.applied(model):
    print("within:", predictions(model, tokenizer, options.text))
print("after: ", predictions(model, tokenizer, options.text))
patch = edit.patch(options.patch, {"target": options.target, "reference": options.reference})
print(f"{patch.count:,} changed weights kept in {patch.file}")
