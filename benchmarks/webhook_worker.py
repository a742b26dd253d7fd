"""A worker that is ready at once, and notes when it first said so. A program of its own: the managed provider
starts it in the place of the real one, on the standard library alone."""

import os
import pathlib
import socket
import sys
import time


def main() -> None:
    note = pathlib.Path(os.environ["BENCH_NOTE"])
    server = socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])))
    answer = b'HTTP/1.1 200 OK\r\ncontent-length: 19\r\nconnection: close\r\n\r\n{"status": "ready"}'
    while True:
        connection, _ = server.accept()
        with connection:
            connection.settimeout(2)
            try:
                if connection.recv(65536).startswith(b"GET /ready") and not note.exists():
                    note.write_text(repr(time.monotonic()))
                connection.sendall(answer)
            except OSError:
                continue


main()
