"""A server on the loopback with what the Hugging Face Hub answers about one data set."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class HubServer(ThreadingHTTPServer):
    """The data set ``me/mine`` with these files, by path; ``requests`` are (method, path, range)."""

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.requests = files, []
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _answer(self, data, status=200, **headers):
        self.send_response(status)
        for name, value in ({"Content-Length": len(data)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _json(self, value):
        self._answer(json.dumps(value).encode(), Content_Type="application/json")

    def _entry(self, path):
        data = self.server.files[path]
        return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def _respond(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path, self.headers.get("Range")))
        files, api = self.server.files, "/api/datasets/me/mine"
        if path in (api, f"{api}/revision/main"):
            self._json({"id": "me/mine", "sha": "1" * 40, "private": False, "tags": [], "downloads": 0, "likes": 0})
        elif path.startswith(f"{api}/tree/main"):
            folder = path.removeprefix(f"{api}/tree/main").strip("/")
            found = [self._entry(one) for one in files if one.startswith(f"{folder}/" if folder else "")]
            self._json(found)
        elif path == f"{api}/paths-info/main":
            asked = json.loads(body)["paths"] if body.startswith("{") else []
            folders = [one for one in asked if any(name.startswith(f"{one}/") for name in files)]
            found = [self._entry(one) for one in asked if one in files]
            self._json(found + [{"type": "directory", "path": one, "oid": "0" * 40} for one in folders])
        elif (name := path.removeprefix("/datasets/me/mine/resolve/main/")) in files:
            data, part = files[name], self.headers.get("Range")
            if part:
                first, last = part.removeprefix("bytes=").split("-")
                data = data[int(first) : int(last or len(data) - 1) + 1]
            self._answer(data, 206 if part else 200, ETag=f'"{hashlib.sha1(files[name]).hexdigest()}"')
        else:
            self._answer(b"{}", 404, X_Error_Code="RepoNotFound" if "mine" not in path else "EntryNotFound")

    do_GET = do_POST = do_HEAD = _respond
