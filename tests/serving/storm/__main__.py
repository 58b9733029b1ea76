"""Ten thousand malformed, slow, oversized and interrupted requests against a running server, while
a good client goes on.

    python -m tests.serving.storm [--requests 10000] [--seed 1] [--only NUMBER]

It ends with 1 if a process died, an answer was no sentence, memory grew by 10 % or more, or the
good client's p50 became 1.5 times its own.
"""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tests.serving.bundles import make_bundle, two_halves
from tests.serving.storm.attacks import attack
from tests.serving.storm.clouds import cloud_bundle
from tests.serving.storm.run import server, storm
from tests.serving.storm.wire import deliver, judge

MAX_GROWTH, MAX_SLOWDOWN = 0.10, 1.5


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--per-second", type=float, default=60.0, help="bad requests begun")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="one attack, and its answer")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the server ends too
    picture = two_halves()
    with tempfile.TemporaryDirectory() as folder:
        models = {
            "image": make_bundle(Path(folder) / "image", "boxes", "labels"),
            "cloud": cloud_bundle(Path(folder) / "cloud"),
        }
        with server(models, "serve.timeout_s=10") as (port, pid, log):
            if options.only is not None:
                made = attack(options.seed, options.only, picture)
                outcome = deliver(port, made)
                sent = [part if isinstance(part, float) else part[:600] for part in made.sends]
                print(f"{made.kind}, then {made.end}: {sent}")
                print(f"{outcome.answer[:2000]!r}\n{judge(made, outcome) or 'as it must be'}")
                return 0
            report = storm(
                port,
                pid,
                log,
                picture,
                requests=options.requests,
                seed=options.seed,
                per_second=options.per_second,
            )
    print(report.to_text())
    failed = (
        bool(report.faults or report.lost or report.tracebacks or report.refused)
        or report.growth >= MAX_GROWTH
        or report.slowdown >= MAX_SLOWDOWN
    )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
