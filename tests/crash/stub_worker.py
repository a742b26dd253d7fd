"""The quickest worker there is, which also proves that it is alone: it holds a lock that a second worker of
the same deployment would find taken."""

import fcntl
import os
import pathlib
import socket
import sys


def main() -> None:
    folder = pathlib.Path(os.environ["CRASH_DIR"])
    lock = (folder / f"{os.environ['CRASH_DEPLOYMENT']}.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        (folder / "DOUBLED").open("a").write(f"{os.environ['CRASH_DEPLOYMENT']} {os.getpid()}\n")
        sys.exit(9)
    server = socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])))
    answer = f'{{"status": "ready", "pid": {os.getpid()}}}'
    while True:
        connection, _ = server.accept()
        with connection:
            connection.settimeout(2)
            try:
                connection.recv(65536)
                head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(answer)}\r\nconnection: close\r\n\r\n"
                connection.sendall((head + answer).encode())
            except OSError:
                continue


main()
