"""Training a projector: nothing else changes, only the settings matter, and a stopped training resumes."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import vlms
from painted import paint
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration

from lce.cli import main
from lce.foundations.errors import LceError
from lce.models.assembled import assemble, put_together
from lce.training.clip.batches import in_memory
from lce.training.projector import train as of_train
from lce.training.projector.batches import IGNORED, AnsweredBatches, Prompt, spoken_name
from lce.training.projector.module import ProjectorModule
from lce.training.projector.settings import check_projector
from lce.training.projector.validation import shares_named


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("projector")


@pytest.fixture(scope="module")
def pictures(folder):
    return paint(folder / "pictures", 5)


@pytest.fixture(scope="module")
def whole(folder, pictures):
    """A finished training."""
    return vlms.trained(folder, pictures, folder / "whole")


def weights(model):
    return LlavaForConditionalGeneration.from_pretrained(model).state_dict()


def projector(model):
    return {name: values for name, values in weights(model).items() if "projector" in name}


def assert_same(one, other):
    tensors = projector(other)
    assert tensors
    assert {name: torch.equal(values, tensors[name]) for name, values in projector(one).items()} == dict.fromkeys(
        tensors, True
    )


def test_only_the_projector_is_trained(folder, whole):
    before = assemble(*vlms.parts(folder))[0].state_dict()
    for name, values in weights(whole).items():
        assert torch.equal(values, before[name]) == ("projector" not in name), name


def test_the_projector_and_its_parts_make_the_same_model(whole):
    again, _ = put_together(whole.parent / "projector")
    for name, values in projector(whole).items():
        assert torch.equal(again.state_dict()[name], values), name


def test_what_is_written_besides(whole):
    record = json.loads((whole.parent / "record.json").read_text(encoding="utf-8"))
    assert record["held_out_pictures"] == 2 * 12
    assert {"occupation", "gender"} <= set(record)
    events = EventAccumulator(str(whole.parent / "logs"))
    events.Reload()
    assert {"train/loss", "validation/occupation"} <= set(events.Tags()["scalars"])
    assert (whole.parent / "checkpoints/last.ckpt").stat().st_size < (whole / "model.safetensors").stat().st_size


def test_only_the_seed_makes_a_difference(folder, pictures, whole, tmp_path):
    assert_same(vlms.trained(folder, pictures, tmp_path / "again"), whole)
    other = projector(vlms.trained(folder, pictures, tmp_path / "other", seed=1))
    assert not all(torch.equal(values, other[name]) for name, values in projector(whole).items())


@pytest.mark.parametrize("done", [2, 7])
def test_one_that_is_stopped_resumes(folder, pictures, whole, tmp_path, monkeypatch, done):
    """From its last checkpoint, if there is one, and has the weights of one that was never stopped."""
    steps = []
    original = ProjectorModule.training_step

    def stopping(self, *rest):
        steps.append(1)
        return original(self, *rest) if len(steps) <= done else 1 / 0

    with monkeypatch.context() as patch:
        patch.setattr(ProjectorModule, "training_step", stopping)
        with pytest.raises(ZeroDivisionError):
            vlms.trained(folder, pictures, tmp_path / "stopped")
    assert not (tmp_path / "stopped/model").exists()
    steps.clear()
    monkeypatch.setattr(ProjectorModule, "training_step", lambda self, *a: (steps.append(1), original(self, *a))[1])
    assert_same(vlms.trained(folder, pictures, tmp_path / "stopped"), whole)
    assert len(steps) == vlms.STEPS - (4 if done > 4 else 0)


def test_the_command_prints_the_folder_last(folder, pictures, tmp_path, capsys):
    asked = vlms.settings(folder, pictures, tmp_path / "run", steps=2)
    command = vlms.configuration(asked, tmp_path / "run.yaml")
    for _ in range(2):
        assert main(command) == 0
        assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "run/model")
    assert main([*command, "--train.steps", "3"]) == 2
    assert "holds results of other settings (train" in capsys.readouterr().err


def test_processes_of_a_launcher_are_refused(folder, pictures, tmp_path, capsys, monkeypatch):
    command = vlms.configuration(vlms.settings(folder, pictures, tmp_path / "run"), tmp_path / "run.yaml")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(command) == 2
    assert "WORLD_SIZE: expected one process: a projector is trained by one, got 2" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_finished_one_is_not_trained_again(folder, pictures, whole, monkeypatch):
    monkeypatch.setattr(of_train, "_train", None)
    assert vlms.trained(folder, pictures, whole.parent) == whole


def test_the_loss_is_that_of_the_answers_tokens(folder, pictures):
    model, processor, _ = assemble(*vlms.parts(folder))
    asked = vlms.settings(folder, pictures, folder / "unused")
    rows = of_train.read_table(pictures / "table.csv")
    prompt = Prompt(processor, asked.question)
    batch = AnsweredBatches(rows, in_memory(pictures, rows, 24), prompt, asked).batch(3)
    module = ProjectorModule(model, asked.train, None)
    module.log = lambda *_, **__: None
    found = module.training_step(batch, 0)
    logits = model(input_ids=batch.ids, attention_mask=batch.attention, pixel_values=batch.pixels).logits
    wanted = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=IGNORED)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_what_is_learned_is_the_answer_and_its_end(folder, pictures):
    _, processor, _ = assemble(*vlms.parts(folder))
    prompt = Prompt(processor, "What is it?")
    ids, attention, labels = prompt.answered(["a circle", "a drawing of a red square"])
    for row, answer in enumerate(("a circle", "a drawing of a red square")):
        learned = labels[row][labels[row] != IGNORED].tolist()
        assert processor.tokenizer.decode(learned) == f"{answer}<|im_end|>"
        text = processor.tokenizer.decode(ids[row][attention[row].bool()])
        assert text.endswith(f"<|im_start|>assistant\n{answer}<|im_end|>")


def test_a_length_in_the_decoders_tokenizer_does_not_cut_the_question(folder, pictures, tmp_path):
    """As tokenizer.json keeps it, if the tokenizer cut texts before it was saved."""
    clip, decoder = vlms.parts(folder)
    shutil.copytree(decoder, tmp_path / "decoder")
    path = tmp_path / "decoder/tokenizer.json"
    cutting = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncation": cutting}), encoding="utf-8")
    prompts = [Prompt(assemble(clip, one)[1], "What is it?") for one in (decoder, str(tmp_path / "decoder"))]
    assert prompts[0].ids == prompts[1].ids


def test_the_gender_is_named_where_it_is_drawn():
    row = {"kind": "occupation", "gender": "woman", "name": "cook", "class": "cook"}
    assert spoken_name(row) == "woman cook"
    assert spoken_name(row | {"gender": "person"}) == "cook"
    assert spoken_name({"kind": "other", "gender": "", "name": "tree"}) == "tree"


def test_answers_are_counted_as_right():
    table = [{"class": "cook", "gender": gender} for gender in ("woman", "woman", "man", "person", "person")]
    answers = ["a woman cook", "a man cook", "a woman and man cook", "a cook", "a woman pilot"]
    assert shares_named(table, answers) == {"occupation": 0.8, "gender": 1 / 3, "none": 0.5}


def test_settings_that_cannot_be_right_are_refused(folder, pictures):
    for options, said in (
        ({"answer": "a drawing"}, "answer: expected {} once"),
        ({"question": " "}, "question: expected some text"),
        ({"shares": {"circle": 2.0}}, "shares.circle"),
        ({"occupations": 0.8, "people": 0.4}, "train.occupations and train.people"),
        ({"steps": 0}, "train.steps"),
    ):
        with pytest.raises(LceError, match=said):
            check_projector(vlms.settings(folder, pictures, folder / "unused", **options))
