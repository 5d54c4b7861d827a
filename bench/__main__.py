"""`python -m bench`: all figures, one table each; 1 if something that must hold does not."""

import sys
from time import perf_counter

from bench import calendar, intake, latency

BENCHES = {"calendar": calendar.main, "intake": intake.main, "latency": latency.main}


def main() -> int:
    """Runs one after the other, and says at the end what was missed."""
    start = perf_counter()
    missed = []
    for name, bench in BENCHES.items():
        if bench():
            missed.append(name)
        print()
    said = f"what must hold does not: {', '.join(missed)}" if missed else "all that must hold does"
    print(f"{said} ({perf_counter() - start:.0f} s)")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
