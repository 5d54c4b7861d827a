"""`python -m bench [NAME ...]`: the figures of all benches, or of some; 1 if something that must hold does not."""

import sys
from importlib import import_module
from time import perf_counter

from bench.figures import HEADER, machine

USUAL = (
    *("calendar", "intake", "latency", "latency-load", "deadlines", "storm", "rebuild", "cold-load", "memory"),
    *("recover", "layers", "one-ticket", "crowd"),
)
LONG = ("rest", "peers", "growth", "soak")  # only by name
MODULES = {"peers": "comparison", "rest": "idle"}  # where the module has another name than its bench


def main() -> int:
    """Runs one after the other, and says at the end what was missed."""
    wanted = sys.argv[1:] or USUAL
    if unknown := set(wanted) - {*USUAL, *LONG}:
        print(f"{', '.join(unknown)} is no bench; they are {', '.join((*USUAL, *LONG))}", file=sys.stderr)
        return 2
    print(machine())
    print(HEADER)
    start = perf_counter()
    missed = []
    for name in wanted:
        began = perf_counter()
        if import_module(f"bench.{MODULES.get(name, name.replace('-', '_'))}").main():
            missed.append(name)
        print(f"  ({name}: {perf_counter() - began:.0f} s)\n", flush=True)
    said = f"what must hold does not: {', '.join(missed)}" if missed else "all that must hold does"
    print(f"{said} ({perf_counter() - start:.0f} s)")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
