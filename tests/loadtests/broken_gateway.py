"""`python broken_gateway.py PORT FAULT`: answers the load test's requests at once and, by its fault, not as promised."""

import itertools
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("wrong", "lost", "none")


class Handler(BaseHTTPRequestHandler):
    """One answer for every picture; one in ten is spoilt."""

    protocol_version = "HTTP/1.1"
    fault = "none"
    numbers = itertools.count(1)

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        is_spoilt = next(self.numbers) % 10 == 0
        if is_spoilt and self.fault == "lost":
            self.close_connection = True
            return
        document = {
            "label": "healthy" if is_spoilt and self.fault == "wrong" else "benign",
            "reason": None,
            "probabilities": {"benign": 0.75, "malignant": 0.25},
            "none_score": 0.0,
            "thresholds": {"malignant": 0.5, "none": 3.0},
            "model": {"name": "lesion", "version": 1},
        }
        self._answer(json.dumps(document).encode())

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    Handler.fault = sys.argv[2]
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
