"""``stage=pin`` against a hub that speaks HTTP, and runs that use what it wrote."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from rmas_train.__main__ import main
from rmas_train.compose import compose
from rmas_train.errors import ConfigError

LICENCES = {"models": "apache-2.0", "datasets": None}


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub's API does; what contains `missing` is not there."""

    def do_GET(self):
        _, _, kind, *name = self.path.split("?")[0].split("/")
        name = "/".join(name)
        found = "Mixture-Code" not in name
        body = {"error": "Repository not found"}
        if found:
            sha = f"{sum(name.encode()):040x}"
            licence = LICENCES[kind]
            body = {"id": name, "sha": sha, "cardData": {"license": licence} if licence else {}}
        self.send_response(200 if found else 404)
        if not found:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.chdir(tmp_path)
    yield url
    server.shutdown()
    server.server_close()


def test_pins_are_written_added_to_and_used(hub, tmp_path):
    assert main(["stage=pin", "experiment=sequential_light", "run_dir=run"]) == 0
    assert main(["stage=pin", "experiment=deliberation", "run_dir=run"]) == 0
    pins = yaml.safe_load((tmp_path / "pins.yaml").read_text())
    assert set(pins["models"]) == {
        "Qwen/Qwen3-1.7B",
        "meta-llama/Llama-3.2-1B-Instruct",
        "Qwen/Qwen2.5-Math-1.5B-Instruct",
        "Qwen/Qwen3.5-4B",
    }
    pin = pins["models"]["Qwen/Qwen3-1.7B"]
    assert pin["revision"] == f"{sum(b'Qwen/Qwen3-1.7B'):040x}"
    assert pin["licence"] == "apache-2.0" and pin["seen"]
    assert pins["datasets"]["RecursiveMAS/Sequential-Math"]["licence"] is None
    config = compose(["experiment=sequential_light"])
    assert config.agents["planner"].revision == pin["revision"]
    assert all(config.data.hub.values())
    own = "a" * 40
    config = compose(["experiment=sequential_light", f"agents.planner.revision={own}"])
    assert config.agents["planner"].revision == own


def test_an_adapter_on_the_hub_is_pinned_too(hub, tmp_path):
    typed = ["experiment=sequential_light", "agents.critic.adapter=org/adapter"]
    assert main(["stage=pin", *typed, "run_dir=run"]) == 0
    sha = yaml.safe_load((tmp_path / "pins.yaml").read_text())["models"]["org/adapter"]["revision"]
    assert compose(typed).agents["critic"].adapter_revision == sha


def test_without_a_pins_file_nothing_is_invented(hub):
    for agent in compose(["experiment=mixture"]).agents.values():
        assert agent.revision is None


def test_a_repository_that_is_not_there_writes_nothing(hub, tmp_path, capsys):
    assert main(["stage=pin", "experiment=mixture", "run_dir=run"]) == 2
    printed = capsys.readouterr().err
    assert "RecursiveMAS/Mixture-Code: the hub gave no commit (not there, or private)" in printed
    assert not (tmp_path / "pins.yaml").exists()


def test_no_network_is_one_line(hub, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert main(["stage=pin", "experiment=deliberation", "run_dir=run"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "Qwen/Qwen3.5-4B: the hub gave no commit" in line


def test_nothing_to_pin_is_said(hub, capsys):
    assert main(["stage=pin", "run_dir=run"]) == 2
    assert "names no hub id" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: [1]", "key models is"),
        ("models: {a/b: {revision: main, licence: null, seen: now}}", "'main' is no commit"),
        ("models: {a/b: {}}", "key models.a/b.licence is missing"),
        ("[", "make it again with stage=pin"),
    ],
)
def test_a_damaged_pins_file_is_named(hub, tmp_path, text, message):
    (tmp_path / "pins.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        compose(["experiment=deliberation"])
