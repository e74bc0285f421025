"""A small HTTP front for the ClickHouse engine, for tests and development.

In come the requests of the `clickhouse` crate and of curl; out go the engine's bytes
or its error text. One query runs at a time, because the process has one session and
each request sets the session's database and settings and takes them back. It never
compresses an answer and never keeps an insert's data beyond its request.
"""

import argparse
import contextlib
import email.parser
import email.policy
import os
import re
import signal
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import chdb
import pyarrow

# Larger than any block that Odometer sends; a request is held in memory once.
BODY_BYTES_MAX = 1 << 30

# Parameters of the HTTP interface that are not settings of the engine. Sessions are
# not among them: a request that asks for one is told so by the engine.
NOT_SETTINGS = {
    "query", "query_id", "database", "default_format", "user", "password",
    "compress", "decompress", "wait_end_of_query", "buffer_size", "role", "quota_key",
    "enable_http_compression", "http_zlib_compression_level", "add_http_cors_header",
    "send_progress_in_http_headers", "http_headers_progress_interval_ms",
}  # fmt: skip

# INSERT INTO target [(columns)] [SETTINGS …] FORMAT name, then data.
INSERT = re.compile(
    rb"\s*(?P<into>INSERT\s+INTO\s+(?:TABLE\s+)?[^()\s]+\s*(?:\((?:[^()]|\([^()]*\))*\))?)\s*"
    rb"(?P<settings>SETTINGS\s.*?)?\s*\bFORMAT\s+(?P<format>\w+)[ \t]*;?\n?",
    re.IGNORECASE | re.DOTALL,
)
CODE = re.compile(r"Code: (\d+)\.")
# As the official server answers; everything else is 500.
STATUS_BY_CODE = {
    "60": 404, "81": 404,  # unknown table, unknown database
    "62": 400, "47": 400, "36": 400, "27": 400, "33": 400, "117": 400, "115": 404,
    "241": 500,
}  # fmt: skip


class Engine:
    """The one session of this process."""

    def __init__(self, folder):
        # The engine drops tables in the background only if it found some metadata when
        # it opened its folder; else `DROP … SYNC` waits for ever. So an empty folder is
        # opened twice.
        with contextlib.closing(chdb.connect(str(folder / "data"))) as first:
            # As the container image makes it from CLICKHOUSE_DB.
            first.query("CREATE DATABASE IF NOT EXISTS odometer")
        self.session = chdb.connect(str(folder / "data"))
        self.lock = threading.Lock()

    def run(self, request):
        """The bytes that the engine answers; RuntimeError carries its text."""
        with self.lock:
            try:
                self.session.query(f"USE {name(request.database)}")
                for key, value in request.settings.items():
                    self.session.query(f"SET {name(key)} = {text(value)}")
                return self.statement(request)
            finally:
                for key in request.settings:
                    self.restore(f"SET {name(key)} = DEFAULT")
                self.restore("USE default")

    def restore(self, statement):
        """Takes a session change back; what was refused has nothing to take back."""
        try:
            self.session.query(statement)
        except RuntimeError:
            pass

    def statement(self, request):
        """Runs the request's one statement, its data through a file."""
        sql, data = request.split()
        if data is None:
            return self.session.query(sql, request.format, params=request.params).bytes()
        with open(os.memfd_create("insert"), "wb") as file:
            file.write(data)
            file.flush()
            sql = sql.replace("{file}", f"/proc/self/fd/{file.fileno()}")
            return self.session.query(sql, request.format, params=request.params).bytes()


def name(word):
    """A quoted identifier."""
    return "`" + word.replace("\\", "\\\\").replace("`", "\\`") + "`"


def text(value):
    """A quoted string."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


class Request:
    """One query, taken from query string and body."""

    def __init__(self, pairs, headers, body):
        if "multipart/form-data" in headers.get("content-type", ""):
            pairs = {**pairs, **form_fields(headers["content-type"], body)}
            body = b""
        if pairs.get("decompress") == "1":
            body = b"".join(decompressed(body))
        self.query = pairs.get("query", "").encode()
        self.body = body
        self.database = pairs.get("database") or headers.get("x-clickhouse-database") or "default"
        self.format = (
            pairs.get("default_format") or headers.get("x-clickhouse-format") or "TabSeparated"
        )
        self.params = {
            key.removeprefix("param_"): value
            for key, value in pairs.items()
            if key.startswith("param_")
        }
        self.settings = {
            key: value
            for key, value in pairs.items()
            if key not in NOT_SETTINGS and not key.startswith("param_")
        }

    def split(self):
        """The statement, and the data of an INSERT with a format, else None.

        Data goes through a file because the engine takes statements as text only.
        """
        sql = self.query or self.body
        found = INSERT.match(sql)
        if found is None or found["format"].upper() == b"VALUES":
            return (self.query + b"\n" + self.body if self.query and self.body else sql).decode(), None
        data = self.body if self.query and self.body else sql[found.end() :]
        words = [found["into"], b"FROM INFILE '{file}'", found["settings"] or b"", b"FORMAT", found["format"]]
        return b" ".join(words).decode(), data


def form_fields(content_type, body):
    """The fields of a multipart form: how the client sends query parameters."""
    head = f"content-type: {content_type}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    return {
        part.get_param("name", header="content-disposition"): part.get_payload(decode=True).decode()
        for part in message.iter_parts()
    }


def decompressed(body):
    """The blocks of a compressed insert: checksum, method, sizes, data."""
    codecs = {0x82: "lz4_raw", 0x90: "zstd"}
    at = 0
    while at < len(body):
        method, packed, size = struct.unpack_from("<BII", body, at + 16)
        block = body[at + 25 : at + 16 + packed]
        if method == 0x02:
            yield block
        elif method in codecs:
            yield pyarrow.decompress(block, size, codecs[method], asbytes=True)
        else:
            raise ValueError(f"unknown compression method {method:#x}")
        at += 16 + packed


class Handler(BaseHTTPRequestHandler):
    """Speaks as much of ClickHouse's HTTP interface as Odometer needs."""

    protocol_version = "HTTP/1.1"
    # An answer is written in two pieces; they must not wait for each other.
    disable_nagle_algorithm = True
    engine = None

    def do_GET(self):
        """Liveness, and read-only queries as curl sends them."""
        if urlsplit(self.path).path in ("/ping", "/replicas_status"):
            self.answer(200, b"Ok.\n")
        else:
            self.query()

    def do_POST(self):
        """Queries and inserts."""
        self.query()

    def query(self):
        """Runs one request to its end."""
        try:
            # The body is read first: what stays unread would be taken for a request.
            self.close_connection, keep = True, self.close_connection
            body = self.read_body()
            self.close_connection = keep
            pairs = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
            result = self.engine.run(Request(pairs, self.headers, body))
        except (RuntimeError, ValueError, pyarrow.ArrowException) as error:
            found = CODE.search(str(error))
            code = found.group(1) if found else "1002"
            message = str(error) if found else f"Code: 1002. DB::Exception: {error}"
            status = STATUS_BY_CODE.get(code, 500)
            self.answer(status, (message + "\n").encode(), {"X-ClickHouse-Exception-Code": code})
        else:
            self.answer(200, result)

    def read_body(self):
        """The request's body, of a known length or in chunks."""
        if "chunked" not in self.headers.get("transfer-encoding", "").lower():
            return self.read_exactly(int(self.headers.get("content-length", 0)), 0)
        pieces, total = [], 0
        while size := int(self.rfile.readline(1024).split(b";")[0], 16):
            pieces.append(self.read_exactly(size, total))
            total += size
            self.rfile.readline(1024)
        while self.rfile.readline(1024).strip():
            pass
        return b"".join(pieces)

    def read_exactly(self, size, before):
        """A piece of the body; a cut one is no request."""
        if before + size > BODY_BYTES_MAX:
            raise ValueError(f"the body is larger than {BODY_BYTES_MAX} bytes")
        piece = self.rfile.read(size)
        if len(piece) != size:
            raise ConnectionResetError("the client left within a body")
        return piece

    def answer(self, status, body, headers=()):
        """Sends a whole answer."""
        self.send_response(status)
        for key, value in dict(headers).items():
            self.send_header(key, value)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code="-", size="-"):
        """Only failures are worth a line."""
        if str(code) >= "400":
            super().log_request(code, size)


class Server(ThreadingHTTPServer):
    """A thread per connection."""

    daemon_threads = True
    # Tests connect all at once; the default of 5 would make some of them wait a second.
    request_queue_size = 128


def main():
    """Opens the engine, listens on loopback, leaves on SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    Handler.engine = Engine(options.folder)
    server = Server(("127.0.0.1", options.port), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server.serve_forever(poll_interval=0.1)
    with Handler.engine.lock:
        Handler.engine.session.close()


if __name__ == "__main__":
    main()
