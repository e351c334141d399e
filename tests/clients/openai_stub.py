"""OpenaiStub: answers chat completions as OpenAI's API does, so that the SDK's provider calls need no network.

What it answers follows from the question, so a test can say which usage must be reported: the prompt costs one
token a character; the answer repeats the prompt's words, a token each; a prompt that begins with `fail` is
refused with 400, as a content filter would.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = request["messages"][-1]["content"]
        if self.path != "/v1/chat/completions":
            self._send(404, "application/json", b"{}")
        elif prompt.startswith("fail"):
            error = {"message": "refused", "type": "invalid_request_error", "param": None, "code": "content_filter"}
            self._send(400, "application/json", json.dumps({"error": error}).encode())
        elif request.get("stream"):
            self._send(200, "text/event-stream", b"".join(self._chunks(request, prompt)))
        else:
            self._send(200, "application/json", json.dumps(self._completion(request, prompt)).encode())

    def _completion(self, request: dict, prompt: str) -> dict:
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(prompt.split())}
        message = {"role": "assistant", "content": prompt, "refusal": None}
        return self._head(request, "chat.completion") | {
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
            "usage": usage | {"total_tokens": sum(usage.values())},
        }

    def _chunks(self, request: dict, prompt: str):
        head = self._head(request, "chat.completion.chunk")
        deltas = [{"content": word} for word in prompt.split()]
        for delta in [{"role": "assistant", "content": ""}, *deltas]:
            choice = {"index": 0, "delta": delta, "finish_reason": None, "logprobs": None}
            yield b"data: " + json.dumps(head | {"choices": [choice]}).encode() + b"\n\n"
        last = {"index": 0, "delta": {}, "finish_reason": "stop", "logprobs": None}
        yield b"data: " + json.dumps(head | {"choices": [last]}).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"

    @staticmethod
    def _head(request: dict, kind: str) -> dict:
        # The provider names a dated snapshot of the model that was asked for.
        return {"id": "chatcmpl-1", "object": kind, "created": 1_780_000_000, "model": request["model"] + "-2026-01-01"}

    def _send(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class OpenaiStub:
    def __enter__(self) -> "OpenaiStub":
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"
