"""On the path of a test's hosts: lets a small machine play a run of many minutes, whose steps last
what steps of larger networks do.

Python imports this file when it starts. Ranks, and nothing else, then rest before each step for as
many seconds as the file ``$TESTS_PACE`` says at that moment. If it says something else, they raise
it. If there is ``$TESTS_PRECEDENCE``, ranks that rest go before all else on the machine from their
first step on, as they would on hosts with processors of their own while other hosts start.
"""

import os
import sys

if "mtl_ray.training.rank_process" in sys.orig_argv and "TESTS_PACE" in os.environ:
    import functools
    import time
    from contextlib import suppress
    from pathlib import Path
    from typing import Any

    from mtl_ray.training.step import Step

    _plain = Step.__call__

    @functools.cache
    def _go_first() -> None:
        for thread in os.listdir("/proc/self/task") if "TESTS_PRECEDENCE" in os.environ else ():
            with suppress(ProcessLookupError):  # it has just ended
                os.sched_setscheduler(int(thread), os.SCHED_RR, os.sched_param(1))

    def _step(self: Step, *given: Any) -> Any:
        wanted = Path(os.environ["TESTS_PACE"]).read_text()
        if not wanted.replace(".", "").isdigit():
            raise RuntimeError(wanted)
        if float(wanted):
            _go_first()
            time.sleep(float(wanted))
        return _plain(self, *given)

    Step.__call__ = _step  # type: ignore[method-assign]
