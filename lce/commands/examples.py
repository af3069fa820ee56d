"""Command lines to start from, by command: what the help shows first."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "lce": (
        "lce train --variant stereotypical          # then --variant anti-stereotypical",
        "lce edit --alpha 2                         # edit the one where it differs from the other, and measure",
        "lce evaluate MODEL --against BASE",
        "lce patch apply MODEL --patch patch.safetensors --out EDITED",
    ),
    "data": (
        "lce data",
        "lce data --data.folder data/mine --data.corpus.source files --data.corpus.files '[my.txt, more.parquet]'",
        "lce data --data.folder data/race --data.specification configs/bias/race.yaml",
    ),
    "pretrain": (
        "lce pretrain --config configs/pretrain.yaml",
        "lce pretrain --config configs/pretrain.yaml --output runs/small --layers 2 --train.steps 500",
    ),
    "train": (
        "lce train --variant stereotypical",
        "lce train --variant anti-stereotypical --seed 1",
        "lce train --sparsities '[0.1, 0.2, 0.4]' --sparsity 0.4 --experiment runs/mine",
        "lce train --config configs/bert-base.yaml --trainer.accelerator gpu --trainer.precision bf16-mixed",
        "torchrun --nproc-per-node 4 -m lce.cli train --trainer.devices 4 --trainer.strategy ddp",
    ),
    "localize": (
        "lce localize",
        "lce localize --localization value --k 0.1 --output selection.safetensors",
        "lce localize TARGET REFERENCE --k 0.01 --output selection.safetensors    # two checkpoints, no experiment",
    ),
    "edit": (
        "lce edit --alpha 2",
        "lce edit --alpha 0 0.5 1 2 4                                 # several strengths, with their curves",
        "lce edit --strategy pruning --localization value --k 0.1",
        "lce edit --target neutral --reference stereotypical --alpha -2",
        "lce edit TARGET REFERENCE --alpha 2 --patch patch.safetensors    # two checkpoints, no experiment",
    ),
    "evaluate": (
        "lce evaluate bert-base-uncased --evaluation.bias_type race --evaluation.stereoset_split test",
        "lce evaluate EDITED --against BASE --limit 50",
        "lce evaluate MODEL --evaluation.weat '[weat6, seat8b, my-test.yaml]'",
        "lce evaluate MODEL --evaluation.metrics '[perplexity, pseudo_perplexity]' --evaluation.text my.txt",
    ),
    "sweep": (
        "lce sweep --config configs/study.yaml --dry-run     # every cell, and what they will take",
        "lce sweep --config configs/study.yaml",
        "lce sweep --config configs/study.yaml --status      # done, running, failed, left",
        "lce sweep --config configs/study-bert-base.yaml --address auto",
    ),
    "report": ("lce report runs/study",),
    "localize TARGET REFERENCE": (
        "lce localize TARGET REFERENCE --k 0.01 --output selection.safetensors",
        "lce localize TARGET REFERENCE --localization mask --sparsity 0.3 --output selection.safetensors",
    ),
    "edit TARGET REFERENCE": (
        "lce edit TARGET REFERENCE --alpha 2 --k 0.01 --patch patch.safetensors",
        "lce edit TARGET REFERENCE --selection selection.safetensors --alpha 2 --output EDITED",
        "lce edit TARGET REFERENCE --localization mask --sparsity 0.3 --strategy mask-switch --output EDITED",
        "lce edit TARGET REFERENCE --tensors '[embeddings]' --k 5000 --alpha 0.5 --patch patch.safetensors",
    ),
    "lce patch": (
        "lce patch apply MODEL --patch patch.safetensors --out EDITED",
        "lce patch inspect patch.safetensors --html patch.html",
    ),
    "patch diff": ("lce patch diff MODEL EDITED --out patch.safetensors",),
    "patch apply": ("lce patch apply MODEL --patch patch.safetensors --out EDITED",),
    "patch revert": ("lce patch revert EDITED --patch patch.safetensors --out BACK",),
    "patch verify": ("lce patch verify MODEL --patch patch.safetensors",),
    "patch inspect": (
        "lce patch inspect patch.safetensors",
        "lce patch inspect patch.safetensors --html patch.html",
    ),
    "patch compose": (
        "lce patch compose one.safetensors two.safetensors --out both.safetensors",
        "lce patch compose one.safetensors two.safetensors --prefer second --out both.safetensors",
    ),
    "patch scale": ("lce patch scale --patch patch.safetensors --alpha 0.5 --out weaker.safetensors",),
    "patch to-peft": ("lce patch to-peft MODEL --patch patch.safetensors --out ADAPTER",),
}
