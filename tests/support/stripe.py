"""Stripe, for tests: its own mock server, a server that refuses, and events signed as Stripe documents it."""

import hashlib
import hmac
import http.server
import itertools
import json
import subprocess
import threading
import time
import urllib.parse
import urllib.request

from support.kavachd import ROOT, hold_port, wait_until

API_KEY = "sk_test_kavach0000000001"
WEBHOOK_SECRET = "whsec_of_the_tests"
PRICES = {"pro": "price_pro_1", "max": "price_max_1"}
_ids = itertools.count(1)


def settings(url: str) -> dict:
    return {"billing.stripe_url": url, "billing.stripe_api_key": API_KEY, "billing.stripe_webhook_secret": WEBHOOK_SECRET,
            "billing.price_pro": PRICES["pro"], "billing.price_max": PRICES["max"]}


class StripeMock:
    """github.com/stripe/stripe-mock, which scripts/stripe-mock builds: it checks each request against Stripe's own API description."""

    def __init__(self):
        self.held = hold_port()
        self.port = self.held.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "StripeMock":
        binary = ROOT / "build/stripe-mock/stripe-mock"
        self.held.close()
        self.process = subprocess.Popen([binary, "-http-addr", f"127.0.0.1:{self.port}"],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers, "stripe-mock")
        return self

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.url, timeout=5)
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


class StripeProxy:
    """In front of the mock: remembers what was asked, and refuses while `refusal` is a status."""

    def __init__(self, behind: StripeMock):
        self.asked: list[tuple[str, str, dict, dict]] = []  # method, path, form, headers in lower case
        self.refusal = 0
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                form = dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True))
                proxy.asked.append((self.command, self.path, form, headers))
                if proxy.refusal:
                    status = proxy.refusal
                    answer = json.dumps({"error": {"type": "card_error", "code": "card_declined",
                                                   "message": f"for {API_KEY}"}}).encode()
                else:
                    sent = urllib.request.Request(
                        behind.url + self.path, body or None, method=self.command,
                        headers={name: headers[name] for name in ("authorization", "content-type") if name in headers})
                    try:
                        with urllib.request.urlopen(sent, timeout=10) as got:
                            status, answer = got.status, got.read()
                    except urllib.error.HTTPError as error:
                        status, answer = error.code, error.read()
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_GET = do_DELETE = serve

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> "StripeProxy":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def signature(body: bytes, at: int | None = None, secret: str = WEBHOOK_SECRET) -> str:
    stamp = int(time.time()) if at is None else at
    digest = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={stamp},v1={digest}"


def new_id(prefix: str) -> str:
    return f"{prefix}_{time.time_ns()}_{next(_ids)}"


def event(type: str, object: dict, created: int | None = None, id: str | None = None) -> bytes:
    return json.dumps({"id": id or new_id("evt"), "object": "event", "type": type, "api_version": "2024-06-20",
                       "created": int(time.time()) if created is None else created, "livemode": False,
                       "data": {"object": object}}).encode()
