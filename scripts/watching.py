#!/usr/bin/env python3
"""Measures what it costs that somebody follows the live page.

Starts the router with simulated processors and posts payments at a steady rate. Whether the page's events are
followed changes every few seconds, so that both are measured side by side on a machine that is noisy, and what
is told are medians. CPU time is that of the router's processes and the monitor, as the kernel counts it.
"""

import argparse
import contextlib
import http.client
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid

PORTS = {"--port": 9990, "--metrics-port": 9991, "--default-port": 9992, "--fallback-port": 9993}
CLIENTS = 4
# How long until a change of who watches is over, and how long is measured then.
SETTLE_SECONDS = 1.5
BLOCK_SECONDS = 6
START_SECONDS = 30
THREADS_SECONDS = 12


def numbers(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("takes a whole number from 1")
    return number


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=pathlib.Path, default=pathlib.Path("target/release"),
                        help="the folder of the router's programs (target/release)")
    parser.add_argument("--rate", type=numbers, default=230,
                        help="payments a second (230, as in the contest)")
    parser.add_argument("--blocks", type=numbers, default=8,
                        help="measurements of each kind, 8 seconds each (8)")
    return parser.parse_args()


@contextlib.contextmanager
def running(programs, data):
    """The router, from when it is ready until it has ended."""
    ports = [part for option, port in PORTS.items() for part in (option, str(port))]
    log = data / "log"
    with log.open("w") as output:
        router = subprocess.Popen([programs / "rinha-test", "up", "--data", data / "router", *ports],
                                  stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_SECONDS
        while "\nready" not in log.read_text(encoding="utf-8"):
            if router.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the router did not start:\n{log.read_text(encoding='utf-8')}")
            time.sleep(0.2)
        yield router
    finally:
        router.send_signal(signal.SIGINT)
        router.wait()


def daemons(router):
    """The router's processes and the monitor, by name."""
    found = {}
    for name in ("lb", "api", "store", "monitor"):
        lines = subprocess.run(["pgrep", "-P", str(router.pid), "-x", name], capture_output=True,
                               text=True, check=True)
        found[name] = [pathlib.Path("/proc", pid, "task") for pid in lines.stdout.split()]
    return found


def cpu_ms(found):
    """The CPU time that each had so far, without threads that have ended."""
    def of(task):
        try:
            return int((task / "schedstat").read_text().split()[0])
        except OSError:
            return 0
    return {name: sum(of(task) for tasks in all_tasks for task in tasks.iterdir()) / 1e6
            for name, all_tasks in found.items()}


def payment():
    """The body of a new payment."""
    return f'{{"correlationId":"{uuid.uuid4()}","amount":19.90}}'


def post(first, every, stop, failures):
    """Posts payments at this pace until it is told to stop."""
    client = http.client.HTTPConnection("127.0.0.1", PORTS["--port"], timeout=10)
    due = first
    try:
        while not stop.wait(max(0.0, due - time.monotonic())):
            client.request("POST", "/payments", payment(), {"Content-Type": "application/json"})
            answer = client.getresponse()
            answer.read()
            if answer.status != 202:
                failures.append(f"status {answer.status}")
            due += every
    except (OSError, http.client.HTTPException) as error:
        failures.append(repr(error))


def measure(found, is_watched):
    """CPU milliseconds in a second of each process, in one block."""
    events = f"http://127.0.0.1:{PORTS['--metrics-port']}/events"
    command = ["curl", "--silent", "--no-buffer", events]
    watcher = subprocess.Popen(command, stdout=subprocess.DEVNULL) if is_watched else None
    try:
        time.sleep(SETTLE_SECONDS)
        before, start_s = cpu_ms(found), time.monotonic()
        time.sleep(BLOCK_SECONDS)
        after, seconds = cpu_ms(found), time.monotonic() - start_s
        if watcher and watcher.poll() is not None:
            sys.exit("the page's events ended by themselves")
    finally:
        if watcher:
            watcher.terminate()
            watcher.wait()
    return {name: (after[name] - before[name]) / seconds for name in found}


def measure_blocks(router, options):
    """Blocks of both kinds in turn, by whether the page was followed."""
    stop, failures = threading.Event(), []
    now, every = time.monotonic(), CLIENTS / options.rate
    clients = [threading.Thread(target=post,
                                args=(now + at * every / CLIENTS, every, stop, failures))
               for at in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        found = daemons(router)
        # Threads of the start have ended by then, and with them what they took.
        time.sleep(THREADS_SECONDS)
        blocks = {False: [], True: []}
        for number in range(2 * options.blocks):
            print(f"\rblock {number + 1} of {2 * options.blocks}", end="", file=sys.stderr)
            is_watched = number % 2 == 1
            blocks[is_watched].append(measure(found, is_watched))
            if failures:
                break
        print(file=sys.stderr)
    finally:
        stop.set()
        for client in clients:
            client.join()
    if failures:
        sys.exit(f"not all payments were taken in: {failures[:5]}")
    return blocks


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    with tempfile.TemporaryDirectory() as folder:
        with running(options.programs, pathlib.Path(folder)) as router:
            blocks = measure_blocks(router, options)
    names = blocks[True][0].keys()
    medians = [{name: statistics.median(block[name] for block in blocks[kind]) for name in names}
               for kind in (False, True)]
    print("CPU milliseconds a second  nobody watches  the page is followed")
    for name in names:
        print(f"{name:25} {medians[0][name]:15.2f} {medians[1][name]:21.2f}")
    alone, watched = (sum(of.values()) for of in medians)
    print(f"{'all':25} {alone:15.2f} {watched:21.2f}   {100 * (watched / alone - 1):+.1f} %")


if __name__ == "__main__":
    main()
