"""What people see of a patch and a patched model: the card, the page, the push to the hub, the recipes of the docs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from architectures import logits, saved
from conftest import ROOT
from huggingface_hub import ModelCard
from patches import NAME, patch_for

from lce.cli import main
from lce.patch import Patch

SCORES = {"weat8": {"before": 1.3, "after": 0.83}, "crows_pairs": {"before": 54.58, "after": 47.71}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``model`` and its patch ``p`` with scores; ``out`` is the patched model."""
    patch_for(saved("bert", tmp_path / "model"), scores=SCORES, path=tmp_path / "p")
    (tmp_path / "model/README.md").write_text("---\nlicense: mit\nlanguage: en\n---\n# Base\n", encoding="utf-8")
    command = ["patch", "apply", str(tmp_path / "model"), "--patch", str(tmp_path / "p")]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    return tmp_path


def test_the_card_says_what_was_edited_and_what_it_risks(folder: Path) -> None:
    card = ModelCard.load(folder / "out/README.md")
    assert (card.data.base_model, card.data.license, card.data.language) == ("model", "mit", "en")
    for phrase in (
        "5 of its weights changed",
        "| WEAT 8 | 1.30 | 0.83 |",
        "| alpha | `2.0` |",
        "## Risks",
        "amplifies",
    ):
        assert phrase in card.text
    assert (folder / "out/README.base.md").read_text(encoding="utf-8").endswith("# Base\n")


def test_a_patch_without_scores_asks_for_a_measurement(tmp_path: Path) -> None:
    patch_for(saved("bert", tmp_path / "model"), path=tmp_path / "p")
    command = ["patch", "apply", str(tmp_path / "model"), "--patch", str(tmp_path / "p")]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert "lce evaluate" in (tmp_path / "out/README.md").read_text(encoding="utf-8")


def test_inspect_in_the_terminal_and_as_a_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = folder / "page.html"
    assert main(["patch", "inspect", str(folder / "p"), "--html", str(page)]) == 0
    printed, text = capsys.readouterr().out, page.read_text(encoding="utf-8")
    for phrase in ("5 weights in 2 parameters", "target: tiny", NAME, "can be reverted", "1.30 → 0.83"):
        assert phrase in printed
    for phrase in ("5 weights in 2 parameters", "<td>tiny</td>", NAME, "<svg", "<td>1.30</td><td>0.83</td>"):
        assert phrase in text
    assert not re.search(r'(src|href)="(?!#|data:)', text), "nothing is fetched"


def test_a_reader_that_has_seen_enough(folder: Path) -> None:
    lce = Path(sys.executable).with_name("lce")
    command = [lce, "patch", "inspect", folder / "p"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 0)


def test_push_to_the_hub_up_to_the_network(folder: Path) -> None:
    """``hf upload``, as docs/patches.md has it, against a server that only takes down what it is asked."""
    asked = []

    class Hub(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.path, self.rfile.read(int(self.headers["Content-Length"])).decode()))
            self.send_error(403)

        do_GET = do_HEAD = lambda self: self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_TOKEN": "hf_x",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(folder / "home"),
    }
    hf = Path(sys.executable).with_name("hf")
    command = [hf, "upload", "somebody/model-edited", folder / "out"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    server.shutdown()
    assert done.returncode != 0
    assert asked, done.stderr
    assert asked[0][0] == "/api/repos/create"
    assert "model-edited" in asked[0][1]


def test_the_recipe_of_the_docs_needs_no_lce(folder: Path) -> None:
    """The lines of docs/patches.md themselves, run in a process in which lce cannot be imported."""
    page = (ROOT / "docs/patches.md").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"without `lce`.*?\n\n```python\n(.*?)```", page, re.DOTALL)
    script = f"import sys\nsys.modules['lce'] = None\n{recipe}torch.save(model.state_dict(), 'state.pt')"
    for name, path in (("MODEL", "model"), ("patch.safetensors", "p")):
        script = script.replace(f'"{name}"', repr(str(folder / path)))
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True, timeout=120)
    state = torch.load(folder / "state.pt", weights_only=True)
    base = saved("bert", folder / "again")
    expected = Patch.load(folder / "p").apply(base)
    assert all(torch.equal(state[name], parameter) for name, parameter in expected.named_parameters())
    base.load_state_dict(state)
    assert torch.equal(logits(base), logits(expected))
