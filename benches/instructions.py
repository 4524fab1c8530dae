#!/usr/bin/env python3
"""Instructions per request, counted one by one: python3 benches/instructions.py

    python3 benches/instructions.py [--requests LOW HIGH] [--repeat N] [variant ...]

Clocks are noisy, and what runs on another machine at the same moment changes them. The number of
instructions that a request takes is the same on every run to within a fraction of a percent.
Emulators would count too, but those that don't know the processor's SHA instructions make the
program take another way than it takes in service. So this steps through the real program by ptrace.

For each variant the bench program `instructions` is run twice, with few and with more requests. It
says `ready` when it has warmed up and built its requests, and what comes after that is counted; the
difference between the runs is the requests alone. Needs Linux on x86-64 and python3, nothing else.
It takes about a minute. BENCH_QUICK=1 takes fewer requests.
"""

import argparse
import ctypes
import json
import os
import signal
import statistics
import subprocess
import sys

PEEKUSER, SINGLESTEP, ATTACH = 3, 9, 16
RIP = 16 * 8  # where `struct user` has the address of the next instruction
LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE = LIBC.ptrace
PTRACE.restype = ctypes.c_long
PTRACE.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def build():
    """Builds the bench program with the optimisations of `cargo bench`; returns its path."""
    command = ["cargo", "bench", "--bench", "instructions", "--no-run", "--message-format=json"]
    # Not stderr: it shows how the build goes on.
    lines = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    for line in lines.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "instructions":
            return message["executable"]
    sys.exit("cargo has built no program")


def ptrace(request, pid, address=0):
    ctypes.set_errno(0)
    answer = PTRACE(request, pid, address, 0)
    if answer == -1 and ctypes.get_errno():
        sys.exit(f"ptrace: {os.strerror(ctypes.get_errno())} (is it allowed in this container?)")
    return answer


def count(program, variant, requests):
    """The instructions from `ready` to the end of the program."""
    process = subprocess.Popen(
        [program, variant, str(requests)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    if process.stdout.readline() != b"ready\n":
        sys.exit(f"`{program} {variant} {requests}` doesn't get ready")
    pid = process.pid
    ptrace(ATTACH, pid)
    os.waitpid(pid, 0)
    process.stdin.write(b"go\n")
    process.stdin.flush()
    instructions, before = 0, None
    while True:
        ptrace(SINGLESTEP, pid)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            break
        if os.WSTOPSIG(status) != signal.SIGTRAP:
            sys.exit(f"stopped by {signal.Signals(os.WSTOPSIG(status)).name}")
        # An instruction with a `rep` prefix stops the program after each of its iterations.
        here = ptrace(PEEKUSER, pid, RIP)
        instructions += here != before
        before = here
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"`{program} {variant} {requests}` has failed")
    process.stdin.close()
    process.stdout.close()
    return instructions


def main():
    quick = "BENCH_QUICK" in os.environ
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", nargs=2, type=int, default=[2, 5] if quick else [5, 20])
    parser.add_argument("--repeat", type=int, default=1 if quick else 2, help="takes the median")
    parser.add_argument("variant", nargs="*")
    options = parser.parse_args()
    low, high = options.requests

    program = build()
    # On one processor with the program, which is four times as fast as waking another for each step.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    known = subprocess.run([program, "list"], stdout=subprocess.PIPE, check=True, text=True).stdout
    names = dict(line.split("\t") for line in known.splitlines())
    bare = next(iter(names))
    wanted = [bare] + [variant for variant in options.variant or names if variant != bare]
    print(f"{'':<30} {'instructions':>12} {'over bare':>10} {'ratio':>6}   (least to most)")
    base = None
    for variant in wanted:
        counts = [
            (count(program, variant, high) - count(program, variant, low)) / (high - low)
            for _ in range(options.repeat)
        ]
        each = statistics.median(counts)
        base = base or each
        spread = f"({min(counts):.0f} to {max(counts):.0f})"
        name = names.get(variant, variant)
        print(f"{name:<30} {each:>12.0f} {each - base:>10.0f} {each / base:>6.2f}   {spread}", flush=True)


if __name__ == "__main__":
    main()
