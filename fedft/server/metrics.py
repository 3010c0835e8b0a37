"""Prometheus metrics and the health page."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from fedft.coordinator.events import ClientAnswered, Event, RoundCommitted, RunFinished, RunStarted
from fedft.errors import Code, FedftError


class ServerMetrics:
    """Counts what the coordinator reports; names begin with ``fedft_``."""

    def __init__(self, connected: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self._round = Gauge("fedft_round", "last committed round", ["run"], registry=self.registry)
        self._rounds = Gauge("fedft_rounds_planned", "rounds of the run", ["run"], registry=self.registry)
        self._seconds = Gauge(
            "fedft_round_seconds", "duration of the last round", ["run"], registry=self.registry
        )
        self._metric = Gauge(
            "fedft_evaluation",
            "metrics of the last evaluation",
            ["run", "scope", "metric"],
            registry=self.registry,
        )
        self._updates = Counter(
            "fedft_updates",
            "clients' parts in rounds",
            ["client", "status", "code"],
            registry=self.registry,
        )
        self._bytes = Counter(
            "fedft_bytes", "bytes of envelopes", ["client", "direction"], registry=self.registry
        )
        self._finished = Counter("fedft_runs_finished", "runs that are complete", registry=self.registry)
        gauge = Gauge("fedft_clients_connected", "open sessions", registry=self.registry)
        gauge.set_function(connected)

    def observe(self, run_id: str, event: Event) -> None:
        """Take in one event."""
        match event:
            case RunStarted():
                self._rounds.labels(run_id).set(event.total_rounds)
            case ClientAnswered(update=update):
                self._updates.labels(update.client, update.status, update.code).inc()
                self._bytes.labels(update.client, "up").inc(update.bytes_up)
                self._bytes.labels(update.client, "down").inc(update.bytes_down + update.bytes_setup)
            case RoundCommitted(record=record):
                self._round.labels(run_id).set(record.round)
                self._seconds.labels(run_id).set(record.seconds)
                for evaluation in record.evaluations:
                    for name, value in evaluation.metrics.items():
                        if not evaluation.group:
                            self._metric.labels(run_id, evaluation.scope, name).set(value)
            case RunFinished():
                self._finished.inc()
            case _:
                pass


def serve_metrics(address: str, metrics: ServerMetrics, healthy: Callable[[], bool]) -> ThreadingHTTPServer:
    """Serve ``/metrics`` and ``/healthz`` on ``address``; FEDFT-6203 when it cannot be bound."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._send(200, CONTENT_TYPE_LATEST, generate_latest(metrics.registry))
            elif self.path == "/healthz":
                good = healthy()
                self._send(200 if good else 503, "text/plain", b"ok\n" if good else b"not healthy\n")
            else:
                self._send(404, "text/plain", b"/metrics or /healthz\n")

        def _send(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: Any) -> None:
            pass

    host, _, port = address.rpartition(":")
    try:
        server = ThreadingHTTPServer((host, int(port)), Handler)
    except (OSError, ValueError) as error:
        raise FedftError(
            Code.ADDRESS_UNAVAILABLE,
            f"cannot serve metrics on {address}: {error}",
            hint="change `metrics` in server.toml",
        ) from None
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
