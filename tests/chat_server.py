"""Two writers for tests: a server that speaks the OpenAI chat-completions protocol, and a model
in a folder that writes a known text."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from tiny import make_tokenizer
from transformers import AutoModelForCausalLM, Qwen3Config

Answer = str | dict[str, Any]  # a text, or a whole choice; {"status": ..., "error": ...} fails


class ChatServer:
    """Answers with ``reply(messages)``; ``asked`` holds every request's body."""

    def __init__(self, reply: Callable[[list[dict]], Answer]) -> None:
        self.reply, self.asked, self.headers = reply, [], []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.headers.append({k.lower(): v for k, v in self.headers.items()})
                server.asked.append(body)
                status, value = server.answer(self.path, body)
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def answer(self, path: str, body: dict) -> tuple[int, dict]:
        if path != "/v1/chat/completions" or body["model"] != "scholar":
            return 404, {"error": {"message": f"no model {body['model']} at {path}"}}
        said = self.reply(body["messages"])
        if isinstance(said, dict) and "status" in said:
            return said["status"], {"error": said["error"]}
        choice = {"index": 0, "finish_reason": "stop"}
        if isinstance(said, str):
            said = {"message": {"role": "assistant", "content": said}}
        value = {"id": "c", "object": "chat.completion", "created": 0, "model": "scholar"}
        return 200, value | {"choices": [choice | said]}

    def users(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.asked]

    @contextmanager
    def running(self) -> Iterator[ChatServer]:
        thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            thread.join()


def make_speaker(folder: Path, text: str = " go so", ends: bool = True) -> Path:
    """A Hugging Face folder whose model writes ``text`` after any prompt.

    Its layers add nothing, so the next token follows from the present one alone; the output matrix
    leads from the prompt's last token through the text to the end, or round and round.
    """
    tokenizer = make_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        head_dim=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    table = torch.nn.functional.normalize(torch.randn(len(tokenizer), 32), dim=1)
    words = tokenizer(text, add_special_tokens=False)["input_ids"]
    start = tokenizer("<|s|>assistant", add_special_tokens=False)["input_ids"][-1]
    chain = [start, *words, tokenizer.eos_token_id if ends else words[0]]
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(table)
        model.lm_head.weight.zero_()
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        for here, there in pairwise(chain):
            model.lm_head.weight[there] += 9 * table[here]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
