"""A worker that serves nothing, quickly: the real one's command line and probes, on the standard library.

Faults by environment: STUB_CRASH (exit status at once), STUB_CRASH_ONCE (a file: crash if it does not exist
yet), STUB_NEVER_READY, STUB_READY_AFTER (seconds), STUB_IGNORE_TERM, STUB_CHILD (starts a grandchild that
ignores SIGTERM, in its own session), STUB_EAT_MB (memory), STUB_CHATTER (lines at start).
POST /infer answers with the pid; /hang: /ready is answered no more; /crash: exits; /say: prints the body.
"""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

STARTED = time.monotonic()
hang = threading.Event()


def answer(request: bytes) -> tuple[int, str]:
    line, _, body = request.partition(b"\r\n")
    path = line.split(b" ")[1]
    if path == b"/ready":
        if hang.is_set():
            time.sleep(3600)
        late = time.monotonic() - STARTED < float(os.environ.get("STUB_READY_AFTER", "0"))
        if late or "STUB_NEVER_READY" in os.environ:
            return 503, '{"status": "loading", "stage": "downloading"}'
        return 200, '{"status": "ready"}'
    if path == b"/infer":
        return 200, f'{{"pid": {os.getpid()}}}'
    if path == b"/env":
        return 200, "\n".join(f"{k}={v}" for k, v in os.environ.items())
    if path == b"/crash":
        print("RuntimeError: told to crash", flush=True)
        os._exit(3)
    if path == b"/hang":
        hang.set()
    if path == b"/say":
        print(body.partition(b"\r\n\r\n")[2].decode(), flush=True)
    return 200, '{"status": "ok"}'


def whole_request(connection: socket.socket) -> bytes:
    request = connection.recv(65536)
    head, _, body = request.partition(b"\r\n\r\n")
    for field in head.lower().split(b"\r\n"):
        if field.startswith(b"content-length:"):
            while len(body) < int(field.split(b":")[1]) and (part := connection.recv(65536)):
                body += part
    return head + b"\r\n\r\n" + body


def serve(connection: socket.socket) -> None:
    with connection:
        status, body = answer(whole_request(connection))
        head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        connection.sendall((head + body).encode())


def crash_if_told() -> None:
    once = pathlib.Path(os.environ.get("STUB_CRASH_ONCE", "/"))
    if not once.exists():
        once.touch()
        print("RuntimeError: only this once", flush=True)
        sys.exit(4)
    if "STUB_CRASH" in os.environ:
        print("loading", flush=True)
        print("ValueError: no such tensor", file=sys.stderr, flush=True)
        sys.exit(int(os.environ["STUB_CRASH"]))


def main() -> None:
    crash_if_told()
    if "STUB_IGNORE_TERM" in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "STUB_CHILD" in os.environ:
        subprocess.Popen(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], start_new_session=True)
    for number in range(int(os.environ.get("STUB_CHATTER", "0"))):
        print(f"line {number}")
    host = sys.argv[sys.argv.index("--host") + 1]
    port = int(sys.argv[sys.argv.index("--port") + 1])
    server = socket.create_server((host, port))
    print(f"stub worker on {port}", flush=True)
    eaten = bytearray()
    if "STUB_EAT_MB" in os.environ:
        for _ in range(int(os.environ["STUB_EAT_MB"])):
            eaten += os.urandom(1024) * 1024
    while True:
        connection, _ = server.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


main()
