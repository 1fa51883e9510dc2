#!/usr/bin/env python3
"""Measures how long the first request of a connection takes, and a later one, beside the floor.

Starts the router with simulated processors and the floor, a bare server that answers a constant. Then connections are
opened, in turn to both, one after the other with pauses between, so that everything is as cold as at the contest's load.
On each a payment is posted at once, and another one after a pause. With several builds of the programs, each is measured in
each round.
"""

import argparse
import contextlib
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from watching import PORTS, numbers, payment, running

FLOOR_PORT = 9994
PAUSE_SECONDS = 0.002
TIMEOUT_SECONDS = 10
SHARES = (50, 90)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=pathlib.Path, action="append", metavar="DIR",
                        help="a folder of the router's programs (target/release); may be given again")
    parser.add_argument("--rounds", type=numbers, default=3, help="how often each is measured (3)")
    parser.add_argument("--connections", type=numbers, default=500,
                        help="connections to each in a round (500)")
    return parser.parse_args()


def request():
    body = payment()
    head = ("POST /payments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n")
    return (head + body).encode()


def answered_us(connection):
    """How long a payment on this connection takes, in microseconds."""
    asked = request()
    begin = time.perf_counter_ns()
    connection.sendall(asked)
    answer = connection.recv(4096)
    end = time.perf_counter_ns()
    if not answer.startswith(b"HTTP/1.1 202"):
        sys.exit(f"a payment is answered with {answer[:80]!r}")
    return (end - begin) / 1000


def connect(port):
    """How long the first and the second request on a new connection take, in microseconds."""
    time.sleep(PAUSE_SECONDS)
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        first = answered_us(connection)
        time.sleep(PAUSE_SECONDS)
        return first, answered_us(connection)


@contextlib.contextmanager
def floor(programs):
    """The floor, from when it listens until it has ended."""
    command = [programs / "rinha-test", "floor", "--listen", f"127.0.0.1:{FLOOR_PORT}"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", FLOOR_PORT)).close()
                break
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit("the floor did not start")
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait()


def percentiles(values):
    cuts = statistics.quantiles(values, n=100)
    return [cuts[share - 1] for share in SHARES]


def measure(programs, count):
    """By server, percentiles of first requests and of later ones."""
    ports = {"floor": FLOOR_PORT, "router": PORTS["--port"]}
    with (tempfile.TemporaryDirectory() as folder, floor(programs),
          running(programs, pathlib.Path(folder))):
        taken = {name: [] for name in ports}
        for _ in range(count):
            for name, port in ports.items():
                taken[name].append(connect(port))
    return {name: [part for kind in zip(*pairs) for part in percentiles(kind)]
            for name, pairs in taken.items()}


def main():
    options = arguments()
    builds = options.programs or [pathlib.Path("target/release")]
    rounds = {build: [] for build in builds}
    for _ in range(options.rounds):
        for build in builds:
            rounds[build].append(measure(build, options.connections))
    titles = [f"{kind} p{share}" for kind in ("first", "later") for share in SHARES]
    print(f"medians of {options.rounds} rounds, us", *titles, sep=" | ")
    for build, measured in rounds.items():
        for name in ("floor", "router"):
            columns = zip(*(figures[name] for figures in measured))
            print(f"{build} {name}", *(f"{statistics.median(column):.0f}" for column in columns), sep=" | ")


if __name__ == "__main__":
    main()
