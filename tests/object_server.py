"""An S3 server on the loopback, and a proxy before it that lets requests fail."""

import contextlib
import http.client
import itertools
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

KEYS = {"AWS_ACCESS_KEY_ID": "rsprune-test", "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-may-see"}


#: A server of the S3 protocol over a folder; `make dev` builds it.
PROGRAM = Path(sys.executable).parent / "s3s-fs"


@contextlib.contextmanager
def object_server(folder):
    """Serve the folders in ``folder`` as buckets; gives the port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--host", "127.0.0.1", "--port", str(port)]
    keys = ["--access-key", KEYS["AWS_ACCESS_KEY_ID"], "--secret-key", KEYS["AWS_SECRET_ACCESS_KEY"]]
    program = subprocess.Popen([PROGRAM, *words, *keys, folder], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield port
    finally:
        program.kill()
        program.wait()


class FaultyProxy(ThreadingHTTPServer):
    """Passes requests on to a port; each that ``fault(number, method, path)`` names a fault for fails in that way.

    Faults: "500", "503", "reset" (before an answer), "cut" (half of the body, then the end), "short" (half of the body,
    as if it were all), "slow" (bytes in drops), "silent" (no answer), "stalled" (half of the body, and nothing more),
    "403", "404".
    """

    daemon_threads = True
    # As many connections at once as a client opens.
    request_queue_size = 128

    def __init__(self, upstream, fault=lambda number, method, path: None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.fault = upstream, fault
        self.numbers = itertools.count()
        self.over = threading.Event()
        self.requests = []  # (method, path, range, fault)
        self.port = self.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """A client that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _pass_on(self):
        server, method = self.server, self.command
        fault = server.fault(next(server.numbers), method, self.path)
        server.requests.append((method, self.path, self.headers.get("Range"), fault))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault == "silent":
            server.over.wait()
            return
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.connection.close()
            self.close_connection = True
            return
        if fault in ("500", "503", "403", "404"):
            code = {"500": "InternalError", "503": "SlowDown", "403": "AccessDenied", "404": "NoSuchKey"}[fault]
            answer = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
            self.send_response(int(fault))
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            if method != "HEAD":
                self.wfile.write(answer)
            return
        upstream = http.client.HTTPConnection("127.0.0.1", server.upstream, timeout=60)
        # The signature covers the host that the client spoke to.
        upstream.request(method, self.path, body or None, dict(self.headers))
        answer = upstream.getresponse()
        data = answer.read()
        upstream.close()
        length = answer.getheader("Content-Length") or str(len(data))
        if fault == "short" and method != "HEAD":  # which has no body
            data = data[: len(data) // 2]
            length = str(len(data))
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Length", length)
        self.end_headers()
        if method == "HEAD":
            return
        if fault == "cut":
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif fault == "stalled":
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            server.over.wait()
        elif fault == "slow":
            for start in range(0, len(data), max(1, len(data) // 5)):
                self.wfile.write(data[start : start + max(1, len(data) // 5)])
                self.wfile.flush()
                time.sleep(0.02)
        else:
            self.wfile.write(data)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on
