"""The quickest worker there is, which also proves that it is alone: it holds a lock that a second worker of
the same deployment would find taken. With `--slow STARTED FINISH` a request to `/infer` makes the first file,
and is answered once the second is there."""

import fcntl
import os
import pathlib
import socket
import sys
import time


def main() -> None:
    folder = pathlib.Path(os.environ["CRASH_DIR"])
    lock = (folder / f"{os.environ['CRASH_DEPLOYMENT']}.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        (folder / "DOUBLED").open("a").write(f"{os.environ['CRASH_DEPLOYMENT']} {os.getpid()}\n")
        sys.exit(9)
    host, port = (sys.argv[sys.argv.index(name) + 1] for name in ("--host", "--port"))
    server = socket.create_server((host, int(port)))
    answer = f'{{"status": "ready", "pid": {os.getpid()}}}'
    while True:
        connection, _ = server.accept()
        with connection:
            connection.settimeout(2)
            try:
                if b"/infer" in connection.recv(65536) and "--slow" in sys.argv:
                    wait(*sys.argv[sys.argv.index("--slow") + 1 :][:2])
                head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(answer)}\r\nconnection: close\r\n\r\n"
                connection.sendall((head + answer).encode())
            except OSError:
                continue


def wait(started: str, finish: str) -> None:
    pathlib.Path(started).touch()
    while not pathlib.Path(finish).exists():
        time.sleep(0.01)


main()
