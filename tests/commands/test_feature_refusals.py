"""What `lce localize features` and `lce edit features` cannot do they refuse in one line, and leave nothing behind."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import planted
import pytest
import torch
from feature_runs import configured, features
from patches import files

from lce.cli import main
from lce.models.autoencoder_files import save_autoencoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What is fine, and beside it autoencoders and models that are not."""
    folder = configured(tmp_path_factory.mktemp("features"))
    sae = planted.autoencoder()
    rows = sae.encoder[:8], sae.decoder[:, :8], sae.encoder_bias, sae.decoder_bias[:8]
    narrow = replace(sae, **dict(zip(("encoder", "decoder", "encoder_bias", "decoder_bias"), rows, strict=True)))
    save_autoencoder(narrow, folder / "narrow")
    save_autoencoder(replace(sae, site=""), folder / "siteless")
    save_autoencoder(replace(sae, site="layers.5"), folder / "deep")
    (folder / "empty").mkdir()
    speechless = json.loads((folder / "model/tokenizer.json").read_text(encoding="utf-8"))
    speechless["model"]["vocab"]["zhe"] = speechless["model"]["vocab"].pop("she")
    shutil.copytree(folder / "model", folder / "speechless")
    (folder / "speechless/tokenizer.json").write_text(json.dumps(speechless), encoding="utf-8")
    unbiased = planted.model()
    with torch.no_grad():
        unbiased.model.embed_tokens.weight[:] = unbiased.model.embed_tokens.weight[0]
    shutil.copytree(folder / "model", folder / "unbiased")
    unbiased.save_pretrained(folder / "unbiased")
    (folder / "mine").mkdir()
    (folder / "mine/notes").write_text("mine", encoding="utf-8")
    return folder


def check_refused(folder, capfd, message, run):
    """One line on the screen, and no file that was not there before."""
    before = files(folder)
    capfd.readouterr()
    assert run() == 2
    printed = capfd.readouterr()
    errors = [line for line in printed.err.splitlines() if line.startswith("lce: error:")]
    assert len(errors) == 1, printed.err
    assert message in errors[0]
    assert "Traceback" not in printed.err
    assert files(folder) == before
    assert not list(folder.rglob(".lce-*"))
    assert not (folder / "run").exists()


@pytest.mark.parametrize("command", ["localize", "edit"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sae", "{}/narrow"], "takes states of width 8 (d_in), but at layers.0 those of"),
        (["--sae", "{}/siteless"], "does not say for which site it is; name it by --site"),
        (["--sae", "{}/deep"], "site layers.5: the model has 2 layers"),
        (["--sae", "{}/none"], "none: no such folder"),
        (["--sae", "{}/empty"], "empty: holds no cfg.json"),
        (["--sae", "{}/model"], "model: holds no cfg.json"),
        (["--site", "layers.7"], "site layers.7: the model has 2 layers"),
        (["--site", "nowhere"], "site nowhere: the model has no such module"),
        (["--site", "blocks.0.hook_z"], "is a hook of TransformerLens that lce cannot place"),
        (["--normalisation", "other"], "normalisation: expected"),
        (["--model", "{}/none"], "none: no such folder"),
        (["--model", "{}/sae"], "sae"),
        (["--model", "{}/unbiased"], "rule counts: no feature differs by more than 0.05"),
        (["--difference", "1000"], "rule counts: no feature differs by more than 1000"),
        (["--rule", "difference", "--count", "13"], "count: expected 1 to"),
        (["--count", "0"], "count: expected a positive number of features, got 0"),
        (["--own", "1.5"], "own: expected a share from 0 to 1, got 1.5"),
        (["--activation", "-1"], "activation: expected 0 or more, got -1"),
        (["--contexts", "[nothing]"], "contexts: 'nothing' has no {job} in it"),
        (["--tokens", "first"], "tokens: expected"),
        (["--rule", "attribution", "--model", "{}/speechless", "--compare", "[]"],
         "its tokenizer has no token for he, or none for she"),
        (["--unknown", "1"], "unknown"),
        (["one", "two"], "expected MODEL, or none; got one two"),
    ],
)  # fmt: skip
def test_what_neither_command_can_use(folder, command, options, message, capfd):
    given = [option.replace("{}", str(folder)) for option in options]
    if command == "localize" and "--compare" in given:
        given = given[: given.index("--compare")]
    check_refused(folder, capfd, message, lambda: features(folder, command, *given))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scale", "1"], "scale: expected other numbers than 1, which changes nothing, got [1.0]"),
        (["--scale", "0", "1"], "scale: expected other numbers than 1"),
        (["--scale", "0", "0"], "scale: expected each number once, got [0.0, 0.0]"),
        (["--scale", "[]"], "scale: expected at least one number, got []"),
        (["--scale", ".nan"], "scale"),
        (["--scale", ".inf"], "scale"),
        (["--alpha", "0"], "alpha: expected other numbers than 0, which changes nothing"),
        (["--compare", "[counts]"], "compare: expected other rules than the edit's own, counts, got ['counts']"),
        (["--rule", "attribution", "--compare", "[attribution]"], "compare: expected other rules than the edit's own"),
        (["--compare", "[none]"], "compare: expected"),
        (["--directions", "[]", "--alpha", "1"], "--alpha does not apply without directions"),
        (["--measure", "false", "--random_baselines", "1"], "--random_baselines does not apply without measuring"),
        (["--measure", "false", "--most_perplexity", "1"], "--most_perplexity does not apply without measuring"),
        (["--random_baselines", "-1"], "random_baselines: expected 0 or more, got -1"),
        (["--rule", "difference", "--count", "8", "--compare", "[]"], "random baseline: only"),
        (["--seed", "-1"], "seed: expected 0 or more"),
        (["--trainer.precision", "bf16-true"], "trainer.precision: expected 32-true, bf16-mixed or 16-mixed, got bf16"),
        (["--model", "{}/speechless"], "its tokenizer has no token for he, or none for she"),
        (["--evaluation.metrics", "[forced_choice, perplexity]"], "evaluation.metrics: expected occupation_pronouns"),
        (["--evaluation.metrics", "[occupation_pronouns]", "--evaluation.text", "{}/text.txt"],
         "--evaluation.text does not apply where evaluation.metrics leave out perplexity"),
        (["--evaluation.text", "{}/none.txt"], "none.txt"),
        (["--output", "{}/mine"], "mine: exists and holds no results of lce edit"),
        (["--output", "{}/text.txt"], "text.txt: exists and holds no results of lce edit"),
        (["--patch", "{}/text.txt"], "text.txt: exists and is not a patch made by lce"),
        (["--patch", "{}/mine"], "mine: exists and is not a patch made by lce"),
        (["--target", "x"], "target"),
    ],
)  # fmt: skip
def test_what_cannot_be_edited(folder, options, message, capfd):
    given = [option.replace("{}", str(folder)) for option in options]
    check_refused(folder, capfd, message, lambda: features(folder, "edit", *given))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scale", "0"], "--scale does not apply to lce localize features"),
        (["--patch", "{}/p"], "--patch does not apply to lce localize features"),
        (["--output", "{}/s.yaml"], "s.yaml: is the name that a settings file of localize beside it gets"),
        (["--output", "{}/text.txt"], "text.txt: exists and is not a selection made by lce"),
        (["--output", "{}/config.safetensors"], "config.yaml: exists and is not a settings file of localize"),
    ],
)
def test_what_cannot_be_localized(folder, options, message, capfd):
    given = [option.replace("{}", str(folder)) for option in options]
    check_refused(folder, capfd, message, lambda: features(folder, "localize", *given))


def test_configurations_that_are_wrong(folder, tmp_path, capfd):
    for text, message in (
        ("scale: [1]\n", "scale: expected other numbers than 1"),
        ("scales: [0]\n", "scales"),
        ("scale: many\n", "scale"),
        ("[", "config.yaml"),
    ):
        (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
        command = ["edit", "features", "--config", str(tmp_path / "config.yaml"), "--model", str(folder / "model")]
        check_refused(folder, capfd, message, lambda command=command: main(command))


def test_what_needs_no_pronouns_is_done_without(folder, tmp_path):
    """Of a tokenizer without she, counts and difference find features, and what is not measured can be edited."""
    model = ["--model", folder / "speechless"]
    assert features(folder, "localize", *model, "--output", tmp_path / "s.safetensors") == 0
    few = ["--compare", "[difference]", "--directions", "[occupations]", "--measure", "false"]
    assert features(folder, "edit", *model, *few, "--output", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").glob("*.patch.safetensors"))) == 2 * 2 + 1
