from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import own_sentences
from hub_server import Hub
from huggingface_hub import constants

from lce.config import CorpusSettings, DataSettings
from lce.data.module import read_examples
from lce.data.prepare import prepare_examples, prepare_sentences
from lce.foundations.errors import LceError
from lce.foundations.paths import EXAMPLES

SPECIFICATION = str(Path(__file__).parents[2] / "configs/bias/gender.yaml")


def settings(folder: Path, *files: Path, **changes: Any) -> DataSettings:
    corpus = CorpusSettings(source="files", files=[str(file) for file in files])
    return DataSettings(**{"folder": str(folder), "corpus": corpus, "specification": SPECIFICATION} | changes)


def test_variants_differ_in_swapped_terms_only(tmp_path: Path, sentences_file: Path) -> None:
    report = prepare_examples(settings(tmp_path, sentences_file, processes=2))
    path = tmp_path / EXAMPLES
    for evaluation in (False, True):
        stereo, sources = read_examples(path, "stereotypical", evaluation)
        anti, same_sources = read_examples(path, "anti-stereotypical", evaluation)
        assert sources == same_sources
        for a, b, source in zip(stereo, anti, sources, strict=True):
            different = [(x, y) for x, y in zip(a.split(), b.split(), strict=True) if x != y]
            assert len(different) == (1 if "Once" in source else 0)
            assert source in (a, b)
    assert report["roles"]["biased"] == 128, "counterfactuals of each other count once"
    assert sum(cell["sentences"] for cell in report["cells"]) == 128
    assert sum(report["swapped"].values()) == 128
    assert report["pairs"][0]["source"] != report["pairs"][0]["rewritten"]


def test_no_sentence_is_in_training_for_one_and_in_evaluation_for_another(tmp_path: Path, sentences_file: Path) -> None:
    prepare_examples(settings(tmp_path, sentences_file, neutral_ratio=0.2))
    sides = [
        {text.lower() for variant in ("stereotypical", "anti-stereotypical", "neutral")
         for text in read_examples(tmp_path / EXAMPLES, variant, evaluation)[0]}
        for evaluation in (False, True)
    ]  # fmt: skip
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]
    biased_texts = set(read_examples(tmp_path / EXAMPLES, "stereotypical", False)[0])
    assert not biased_texts & set(read_examples(tmp_path / EXAMPLES, "neutral", False)[0])


def test_result_does_not_depend_on_processes_or_order(tmp_path: Path, sentences_file: Path) -> None:
    backwards = tmp_path / "backwards.txt"
    backwards.write_text("\n".join(reversed(own_sentences())), encoding="utf-8")
    prepare_examples(settings(tmp_path / "a", sentences_file, neutral_ratio=0.1))
    prepare_examples(settings(tmp_path / "b", backwards, neutral_ratio=0.1, processes=2))
    neutral = [
        {row["text"] for row in pq.read_table(tmp_path / name / EXAMPLES).to_pylist() if row["role"] == "neutral"}
        for name in "ab"
    ]
    assert neutral[0] == neutral[1]


def test_every_file_format_gives_the_same(tmp_path: Path) -> None:
    lines = own_sentences()
    files = {name: tmp_path / f"x.{name}" for name in ("txt", "csv", "jsonl", "parquet")}
    files["txt"].write_text("\n".join(lines), encoding="utf-8")
    with files["csv"].open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([["text"], *([line] for line in lines)])
    files["jsonl"].write_text("\n".join(json.dumps({"text": line}) for line in lines), encoding="utf-8")
    pq.write_table(pa.table({"text": lines, "other": list(range(len(lines)))}), files["parquet"])
    reports = [prepare_examples(settings(tmp_path / name, file)) for name, file in files.items()]
    assert all(report == reports[0] for report in reports)


def test_made_once_and_never_mixed(tmp_path: Path, sentences_file: Path) -> None:
    first = prepare_examples(settings(tmp_path, sentences_file))
    made = (tmp_path / EXAMPLES).stat().st_mtime_ns
    assert prepare_examples(settings(tmp_path, sentences_file, processes=2)) == first
    assert (tmp_path / EXAMPLES).stat().st_mtime_ns == made
    with pytest.raises(LceError, match=r"neutral_ratio was 1.0, now 2.0"):
        prepare_examples(settings(tmp_path, sentences_file, neutral_ratio=2.0))


def test_changed_content_is_noticed(tmp_path: Path) -> None:
    text, specification = tmp_path / "text.txt", tmp_path / "spec.yaml"
    text.write_text("\n".join(own_sentences()), encoding="utf-8")
    specification.write_text(Path(SPECIFICATION).read_text(encoding="utf-8"), encoding="utf-8")
    own = settings(tmp_path / "data", text, specification=str(specification))
    prepare_examples(own)
    with text.open("a", encoding="utf-8") as more:
        more.write("\nOne more sentence about the river.")
    with pytest.raises(LceError, match="files was"):
        prepare_examples(own)
    text.write_text("\n".join(own_sentences()), encoding="utf-8")
    specification.write_text(specification.read_text(encoding="utf-8").replace("physics", "botany"), encoding="utf-8")
    with pytest.raises(LceError, match="specification was"):
        prepare_examples(own)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pdf", "x", "unknown ending"),
        ("empty.txt", "", "is empty"),
        ("broken.jsonl", "{no json", "cannot be read as json"),
        ("missing.txt", None, "no such file"),
        ("a.csv", "other\nx\n", "no column 'text'"),
        ("plain.txt", "The sky is blue over the hills.", "exactly one target and one attribute"),
        ("short.txt", "Too short.", "hold no sentence"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(LceError, match=message):
        prepare_examples(settings(tmp_path / "out", tmp_path / name))


def test_streaming_needs_a_limit(tmp_path: Path) -> None:
    corpus = CorpusSettings(source="hub", streaming=True)
    with pytest.raises(LceError, match="limit"):
        prepare_examples(settings(tmp_path, corpus=corpus))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("is_there", "reason"),
    [(True, "nor, for this user, such a data set on the hub"), (False, "no copy of it on this machine")],
)
def test_a_data_set_that_the_hub_does_not_give_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool, is_there: bool, reason: str
) -> None:
    hub = Hub()
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    if not is_there:
        hub.close()
    corpus = CorpusSettings(source="hub", hub_name="no-such-owner/no-such-set", streaming=streaming, limit=5)
    with pytest.raises(LceError, match=f"no-such-owner/no-such-set: .*{reason}"):
        prepare_examples(settings(tmp_path, corpus=corpus))
    if is_there:
        hub.close()


def test_the_real_corpora(tmp_path: Path, benchmarks: Path) -> None:
    real = settings(tmp_path, corpus=CorpusSettings(), downloads=str(benchmarks.parent), processes=2)
    report = prepare_examples(real)
    assert report["distinct_sentences"] > 150_000
    assert report["roles"]["biased"] > 4_500
    assert report["roles"]["neutral"] == report["roles"]["biased"]
    assert 0.08 < report["held_out"]["biased"] / report["roles"]["biased"] < 0.12
    benchmark = (benchmarks / "CrowS-Pairs/data/crows_pairs_anonymized.csv").read_text(encoding="utf-8").lower()
    texts = pq.read_table(prepare_sentences(real)).column("text").to_pylist()
    seen = {row[side].lower() for row in csv.DictReader(benchmark.splitlines()) for side in ("sent_more", "sent_less")}
    seen |= _stereoset_sentences(benchmarks / "StereoSet/data/dev.json")
    assert not seen & {text.lower() for text in texts}, "benchmark sentences must not be in the training text"


def _stereoset_sentences(path: Path) -> set[str]:
    examples = json.loads(path.read_text(encoding="utf-8"))["data"]["intrasentence"]
    return {sentence["sentence"].lower() for example in examples for sentence in example["sentences"]}
