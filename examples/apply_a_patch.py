"""Apply somebody's patch to one's own copy of the model, and show which weights it changed.

    python examples/apply_a_patch.py MODEL --patch patch.safetensors

MODEL is a folder or a name on the Hugging Face hub. A patch that is damaged, or made for another model, is refused.
"""

from argparse import ArgumentParser

import lce

parser = ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("model")
parser.add_argument("--patch", required=True)
parser.add_argument("--out", help="folder to save the patched model in")
options = parser.parse_args()

patch = lce.Patch.load(options.patch)
for key in ("target", "reference", "strategy", "alpha"):
    print(f"{key}: {patch.provenance.get(key, 'not stated')}")
state = patch.verify(options.model)
print(f"{options.model} is {'the base of this patch' if state == 'base' else 'patched already'}")
if state == "patched":
    raise SystemExit

model = lce.from_pretrained(options.model, patch=options.patch)
base = type(model).from_pretrained(options.model, dtype="auto")
for name, before in base.named_parameters():
    after = model.get_parameter(name)
    changed = after != before
    if changed.any():
        step = (after - before)[changed].float().abs().mean()
        print(f"{name}: {changed.sum():,} of {changed.numel():,} weights, by {step:.2e} on average")
if options.out:
    model.save_pretrained(options.out)
    print(f"patched model saved in {options.out}")
