"""From documents to the examples of all variants: one parquet file, and a report of what it holds.

Documents stream through one ``datasets`` map (several processes, cached by fingerprint, memory-mapped). Only
a 63-bit identity per sentence is held in memory, so that all of Wikipedia can be prepared.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from lce.checks import check_data
from lce.config import DataSettings
from lce.data.cda import annotate, identity
from lce.data.sources import load_documents
from lce.data.specification import BiasSpecification, load_specification
from lce.foundations.atomic_files import replaced_file, writing
from lce.foundations.errors import LceError
from lce.foundations.files import claim, made_with, read_json, save_config, write_json
from lce.foundations.locks import held
from lce.foundations.overwriting import check_replaceable
from lce.foundations.paths import CONFIG, DATA_LOCK, EXAMPLES, REPORT, SENTENCES

if TYPE_CHECKING:
    import datasets

log = logging.getLogger(__name__)

SHOWN_PAIRS = 5
RESULTS = ("*.parquet",)


def prepare_examples(settings: DataSettings) -> dict[str, Any]:
    """Write the training and evaluation examples of all three variants; return the report.

    The file has one row per source sentence: ``text``, its ``counterfactual``, the two groups, whether it
    is held out for ``evaluation``, and its ``role``: ``biased`` and ``neutral`` rows make up the stereotypical and
    anti-stereotypical variants, ``control`` rows the neutral variant, which shares no sentence with them.
    """
    check_data(settings)
    folder, identity = Path(settings.folder), identity_of(settings)
    if not _is_prepared(folder, identity):
        with held(folder / DATA_LOCK, f"{folder}: another process prepares it", patience=-1):
            check_replaceable(folder / REPORT, "report of data")
            claim(folder, identity, RESULTS, "data")
            if not _is_prepared(folder, identity):
                _prepare(settings, folder)
    return dict(read_json(folder / REPORT))


def _is_prepared(folder: Path, identity: dict[str, Any]) -> bool:
    return (folder / REPORT).exists() and (folder / EXAMPLES).exists() and made_with(folder) == identity


def _prepare(settings: DataSettings, folder: Path) -> None:
    """Write the examples, and then the report."""
    spec = load_specification(settings.specification)
    with writing(folder):
        sentences = _sentences(settings, spec)
    first = _first_of_each(sentences)
    kind = sentences.data.column("kind")
    biased, neutral = (first[pc.equal(kind, name).to_numpy()[first]] for name in ("biased", "neutral"))
    if not len(biased):
        raise LceError(
            f"data: none of the {len(first):,} sentences holds exactly one target and one attribute term of "
            f"{settings.specification}; give more text or other terms"
        )
    neutral = _sampled(sentences, neutral)
    wanted = round(settings.neutral_ratio * len(biased))
    roles = {
        "biased": biased,
        "neutral": neutral[:wanted],
        "control": neutral[wanted : 2 * wanted + len(biased)],
    }
    rows = np.concatenate(list(roles.values()))
    role = np.repeat(list(roles), [len(part) for part in roles.values()])
    order = np.argsort(rows, kind="stable")
    examples = sentences.select(rows[order]).remove_columns(["kind", "identity"]).add_column("role", list(role[order]))
    with replaced_file(folder / EXAMPLES) as temporary:
        examples.to_parquet(temporary)
    report = _report(examples, spec, total=len(sentences), distinct=len(first))
    save_config(folder / CONFIG, {"data": asdict(settings)}, "data")
    write_json(folder / REPORT, report)


def prepare_sentences(settings: DataSettings) -> Path:
    """Write every distinct sentence of the corpus (``text``, ``evaluation``), for pretraining; return the file."""
    check_data(settings)
    path = Path(settings.folder) / SENTENCES
    folder = path.parent
    with held(folder / DATA_LOCK, f"{folder}: another process prepares it", patience=-1):
        claim(folder, identity_of(settings), RESULTS, "data")
        if not path.exists():
            with writing(folder):
                sentences = _sentences(settings, load_specification(settings.specification))
            distinct = sentences.select(_first_of_each(sentences)).select_columns(["text", "evaluation"])
            with replaced_file(path) as temporary:
                distinct.to_parquet(temporary)
    return path


def identity_of(settings: DataSettings) -> dict[str, Any]:
    """What the prepared files depend on: the settings, and the contents of the files that they name.

    Raises:
        LceError: the bias specification cannot be read.
    """
    spec = load_specification(settings.specification)
    shared = {key: value for key, value in asdict(settings).items() if key not in ("folder", "downloads", "processes")}
    files = {name: _file_digest(Path(name)) for name in settings.corpus.files if Path(name).is_file()}
    return shared | {"specification": json.loads(json.dumps(asdict(spec))), "files": files}


def _file_digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _sentences(settings: DataSettings, spec: BiasSpecification) -> datasets.Dataset:
    from datasets.fingerprint import Hasher

    cache = Path(settings.folder) / "cache"
    documents = load_documents(settings.corpus, Path(settings.downloads), cache)
    log.info("%s: prepares the text of %s documents", settings.folder, f"{len(documents):,}")
    work = partial(
        split_and_annotate,
        spec=spec,
        language=settings.language,
        words=(settings.min_words, settings.max_words),
        evaluation_fraction=settings.evaluation_fraction,
        seed=settings.split_seed,
    )
    cache.mkdir(parents=True, exist_ok=True)
    sentences = documents.map(
        work,
        cache_file_name=str(cache / f"sentences-{Hasher.hash((documents._fingerprint, work))}.arrow"),
        batched=True,
        batch_size=200,
        num_proc=settings.processes if settings.processes > 1 else None,
        features=_features(),
        remove_columns=documents.column_names,
        desc="Sentences",
    )
    if not len(sentences):
        span = f"{settings.min_words} to {settings.max_words} words"
        raise LceError(f"data: the {len(documents):,} documents hold no sentence of {span}")
    return sentences


def _features() -> datasets.Features:
    from datasets import Features, Value

    types = {
        "text": "string",
        "counterfactual": "string",
        "target_group": "int8",
        "attribute_group": "int8",
        "evaluation": "bool",
        "kind": "string",
        "identity": "int64",
    }
    return Features({name: Value(dtype) for name, dtype in types.items()})


def split_and_annotate(
    documents: dict[str, list[str]],
    spec: BiasSpecification,
    language: str,
    words: tuple[int, int],
    evaluation_fraction: float,
    seed: int,
) -> dict[str, list[Any]]:
    """One batch of documents → the columns of `_features`, a row per sentence of ``words`` = (least, most) words."""
    import sentencex

    rows: dict[str, list[Any]] = {name: [] for name in _features()}
    for document in documents["text"]:
        for sentence in sentencex.segment(language, document or ""):
            text = " ".join(sentence.split())
            if not words[0] <= text.count(" ") + 1 <= words[1]:
                continue
            found = annotate(text, spec)
            number = identity(text, spec, seed)
            row = vars(found) | {"text": text, "identity": number}
            row["evaluation"] = (number >> 31) / 2**32 < evaluation_fraction
            for name, value in row.items():
                rows[name].append(value)
    return rows


def _first_of_each(sentences: datasets.Dataset) -> np.ndarray:
    """Rows of the first sentence of each identity, in ascending order."""
    identities = sentences.data.column("identity").to_numpy()
    return np.sort(np.unique(identities, return_index=True)[1])


def _sampled(sentences: datasets.Dataset, rows: np.ndarray) -> np.ndarray:
    """``rows`` in a random order that depends on the sentences' identities alone.

    It is that of the low 31 bits, because the high 32 bits decide the evaluation split.
    """
    identities = sentences.data.column("identity").to_numpy()[rows]
    return rows[np.argsort(identities & (2**31 - 1), kind="stable")]


def _report(examples: datasets.Dataset, spec: BiasSpecification, total: int, distinct: int) -> dict[str, Any]:
    table = examples.to_pandas()
    biased = table[table["role"] == "biased"]
    cells = Counter(zip(biased["target_group"], biased["attribute_group"], strict=True))
    stereotypical = biased["target_group"] == biased["attribute_group"]
    pairs = biased.head(SHOWN_PAIRS)
    return {
        "specification": spec.name,
        "sentences": total,
        "distinct_sentences": distinct,
        "cells": [
            {"target_group": spec.groups[i], "attribute_group": spec.groups[j], "sentences": cells[i, j]}
            for i in (0, 1)
            for j in (0, 1)
        ],
        "swapped": {"stereotypical": int((~stereotypical).sum()), "anti-stereotypical": int(stereotypical.sum())},
        "roles": {role: int(count) for role, count in table["role"].value_counts().sort_index().items()},
        "held_out": {role: int(part["evaluation"].sum()) for role, part in table.groupby("role")},
        "pairs": [{"source": a, "rewritten": b} for a, b in zip(pairs["text"], pairs["counterfactual"], strict=True)],
    }
