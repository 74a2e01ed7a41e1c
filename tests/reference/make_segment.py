"""Writes ../cases/segment.json: what Segment's clients send, word for word, and how they take answers.

    python tests/reference/make_segment.py PATH/TO/node_modules

Needs segment-analytics-python and playwright (with Debian's chromium) beside this Python, and
@segment/analytics-node and @segment/analytics-next in the folder named.
"""

import gzip
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from segment.analytics.client import Client

KEY = "upk_segment"
HEADERS = ("Content-Type", "Content-Encoding", "Authorization", "User-Agent", "X-Retry-Count", "Origin")
ANSWERS: tuple[tuple[int, dict[str, str], bytes], ...] = (
    (200, {}, b'{"success": true, "accepted": 1, "duplicates": 0, "rejected": [], "noted": []}'),
    (200, {}, b""),
    (200, {}, b"<html>"),
    (202, {}, b"{}"),
    (204, {}, b""),
    *((status, {}, b'{"code": "x", "message": "y"}') for status in (400, 401, 403, 404, 408, 413, 415, 422, 500, 503)),
    (422, {}, b"<html>"),
    (429, {}, b"{}"),
    (429, {"Retry-After": "1"}, b"{}"),
    (503, {"Retry-After": "1"}, b"{}"),
)
MOMENT = datetime(2026, 3, 1, 2, 3, 4, 567_000, tzinfo=UTC)

# The same calls in the words of each client; the last is a beacon of the page that is left.
NODE = """
const { Analytics } = require('@segment/analytics-node')
const analytics = new Analytics({writeKey: '%(key)s', host: '%(url)s', path: '/v1/batch', flushAt: 100, maxRetries: 2})
const failed = []
analytics.on('error', (error) => failed.push(String(error.reason)))
const calls = {
  all: () => {
    analytics.identify({userId: 'u1', anonymousId: 'a1', traits: {tier: 'gold', 城市: '杭州'}})
    analytics.track({userId: 'u1', event: 'Order Completed', timestamp: new Date('%(moment)s'),
      properties: {revenue: 25.5, currency: 'USD', products: [{sku: 'tea', price: 12.75}]}})
    analytics.track({anonymousId: 'a1', event: 'Experiment Viewed', context: {traits: {tier: 'gold'}},
      properties: {experiment_id: 'recall', experiment_name: 'Recall', variation_id: 'ten', variation_name: '10 yuan'}})
    analytics.page({userId: 'u1', category: 'Docs', name: 'Pricing', properties: {url: 'https://shop.example/p'}})
    analytics.screen({userId: 'u1', name: 'Basket', properties: {items: 3}})
    analytics.group({userId: 'u1', groupId: 'g1', traits: {plan: 'team'}})
    analytics.alias({userId: 'u1', previousId: 'a1'})
    analytics.track({userId: 'u1', event: 'cut \\ud83d', messageId: 'mine'})
  },
  one: () => analytics.track({userId: 'u1', event: 'e'}),
}
calls['%(calls)s']()
analytics.closeAndFlush({timeout: 5000}).then(() => console.log(JSON.stringify(failed)))
"""
PAGE = """
async (o) => {
  const [analytics] = await AnalyticsNext.AnalyticsBrowser.load(
    {writeKey: o.key, cdnSettings: {integrations: {'Segment.io': {apiKey: o.key}}, metrics: {sampleRate: 0}}},
    {integrations: {'Segment.io': {apiHost: o.host + '/v1', protocol: 'http', deliveryStrategy: o.strategy}},
     disableClientPersistence: true})
  window.failed = []
  analytics.on('error', (e) => window.failed.push(String(e.reason)))
  if (!o.all) { analytics.track('e'); return }
  analytics.page('Docs', 'Pricing')
  analytics.track('Experiment Viewed', {experiment_id: 'recall', variation_id: 'ten'})
  await analytics.identify('u1', {tier: 'gold', 城市: '杭州'})
  analytics.track('Order Completed', {revenue: 25.5, currency: 'USD'}, {timestamp: new Date(o.moment)})
  analytics.screen('Basket', {items: 3})
  analytics.group('g1', {plan: 'team'})
  analytics.alias('u2')
  analytics.track('cut \\ud83d')
}
"""


class Loopback:
    """Records requests; ``answers`` are given in turn, then 200."""

    def __init__(self, modules: Path) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        outer = self
        bundle = modules / "@segment/analytics-next/dist/umd"

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                cross = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*, Authorization"}
                cross["Access-Control-Expose-Headers"] = "Retry-After"
                for name, value in {**headers, **cross}.items():
                    self.send_header(name, value)
                if status != 204:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_OPTIONS(self) -> None:
                self.reply(200, {}, b"")

            def do_GET(self) -> None:
                path = bundle / self.path.lstrip("/")
                if path.is_file():
                    self.reply(200, {"Content-Type": "text/javascript"}, path.read_bytes())
                else:
                    self.reply(200, {"Content-Type": "text/html"}, b"<title>p</title><script src=/index.js></script>")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                sent = {name: self.headers[name] for name in HEADERS if self.headers[name]}
                text = (gzip.decompress(body) if sent.get("Content-Encoding") == "gzip" else body).decode()
                outer.requests.append({"path": self.path, "headers": sent, "body": text})
                self.reply(*(outer.answers.pop(0) if outer.answers else ANSWERS[0]))

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self) -> list[dict[str, Any]]:
        """What arrived since the last call, with the port of this run taken out."""
        taken, self.requests = self.requests, []
        return json.loads(json.dumps(taken).replace(self.host, "127.0.0.1:8000"))


def by_python(loopback: Loopback, calls: str, *, packed: bool = False) -> list[str]:
    failed: list[str] = []
    client = Client(
        KEY,
        host=f"http://{loopback.host}",
        gzip=packed,
        max_retries=2,
        on_error=lambda error, _: failed.append(str(error)),
    )
    if calls == "all":
        client.identify("u1", {"tier": "gold", "城市": "杭州"}, anonymous_id="a1")
        order = {"revenue": 25.5, "currency": "USD", "products": [{"sku": "tea", "price": 12.75}]}
        client.track("u1", "Order Completed", order, timestamp=MOMENT)
        viewed = {"experiment_id": "recall", "experiment_name": "Recall", "variation_id": "ten"}
        client.track(None, "Experiment Viewed", viewed, {"traits": {"tier": "gold"}}, anonymous_id="a1")
        client.page("u1", "Docs", "Pricing", {"url": "https://shop.example/p"})
        client.screen("u1", name="Basket", properties={"items": 3})
        client.group("u1", "g1", {"plan": "team"})
        client.alias("a1", "u1")
        client.track("u1", "Order Completed", {"revenue": float("nan")})
        client.track(7, "cut \ud83d", message_id="mine")
    else:
        client.track("u1", "e")
    client.flush()
    client.join()
    return failed


def by_node(loopback: Loopback, calls: str, modules: Path) -> list[str]:
    words = {"key": KEY, "url": f"http://{loopback.host}", "moment": MOMENT.isoformat(), "calls": calls}
    ran = subprocess.run(
        ["node", "-e", NODE % words], env={"NODE_PATH": str(modules), "PATH": "/usr/bin:/bin:/usr/local/bin"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(ran.stdout)


def reaction(loopback: Loopback, send: Callable[[], list[str]]) -> list[dict[str, Any]]:
    """What the client did when its first request was answered so: sent again or not, told its program or not."""
    found = []
    for status, headers, body in ANSWERS:
        loopback.answers = [(status, headers, body)]
        failed = send()
        again = len(loopback.take()) - 1
        found.append(
            {"status": status, "headers": headers, "body": body.decode(), "sent_again": again, "reported": bool(failed)}
        )
    return found


def main(modules: Path) -> None:
    loopback = Loopback(modules)
    requests: dict[str, list[dict[str, Any]]] = {}
    reactions: dict[str, list[dict[str, Any]]] = {}
    by_python(loopback, "all")
    requests["python"] = loopback.take()
    by_python(loopback, "all", packed=True)
    requests["python_gzip"] = loopback.take()
    reactions["python"] = reaction(loopback, lambda: by_python(loopback, "one"))
    by_node(loopback, "all", modules)
    requests["node"] = loopback.take()
    reactions["node"] = reaction(loopback, lambda: by_node(loopback, "one", modules))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])

        def by_browser(strategy: dict[str, Any] | None, *, everything: bool, wait: float) -> list[str]:
            page = browser.new_context().new_page()
            page.goto(f"http://localhost:{loopback.host.split(':')[1]}/shop")
            options = {"key": KEY, "host": loopback.host, "strategy": strategy, "all": everything}
            page.evaluate(PAGE, options | {"moment": MOMENT.isoformat()})
            deadline = time.monotonic() + wait
            while time.monotonic() < deadline:
                page.wait_for_timeout(100)
            failed: list[str] = page.evaluate("window.failed")
            page.close(run_before_unload=False)
            return failed

        batching = {"strategy": "batching", "config": {"size": 100, "timeout": 300}}
        by_browser(None, everything=True, wait=2)
        requests["browser"] = loopback.take()
        by_browser(batching, everything=True, wait=2)
        requests["browser_batching"] = loopback.take()
        reactions["browser"] = reaction(loopback, lambda: by_browser(None, everything=False, wait=5))
        browser_version = browser.version
        browser.close()
    packages = {"segment-analytics-python": version("segment-analytics-python"), "chromium": browser_version}
    for name in ("@segment/analytics-node", "@segment/analytics-next"):
        packages[name] = json.loads((modules / name / "package.json").read_text())["version"]
    document = {
        "made_by": "tests/reference/make_segment.py",
        "versions": packages,
        "requests": requests,
        "reactions": reactions,
    }
    target = Path(__file__).parents[1] / "cases" / "segment.json"
    target.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
