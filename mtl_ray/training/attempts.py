"""How an attempt takes a run over from the one before, and finds out that a newer one has come."""

import json
import os
import socket
import time
from dataclasses import asdict

from mtl_ray import storage
from mtl_ray.inference.run_folder import BEFORE_NUMBERS, Attempt, attempt_file, newest_attempt

LOOK_EVERY_S = 5.0


class StaleAttemptError(ValueError):
    """A newer attempt owns the run."""


def claim(run_uri: str, *, from_step: int, from_checkpoint: str | None, world_size: int, run_id: str) -> Attempt:
    """Makes the next attempt, which from now on owns the run. Two that claim at once get two numbers; ``run_id`` is the first one's."""
    while True:
        last = newest_attempt(run_uri)
        made = Attempt(
            attempt=1 if last is None else last.attempt + 1,
            from_step=from_step,
            from_checkpoint=from_checkpoint,
            world_size=world_size,
            host=socket.gethostname(),
            pid=os.getpid(),
            started=time.time(),
            run_id=run_id if last is None else last.run_id,
            ends=_ends(last, from_step),
        )
        if storage.write_new(attempt_file(run_uri, made.attempt), json.dumps(asdict(made), indent=1).encode()):
            return made


def _ends(last: Attempt | None, from_step: int) -> dict[int, int]:
    """The last step that counts of each earlier attempt: none later than any later attempt began."""
    if last is None:
        return {BEFORE_NUMBERS: from_step}
    ends = {attempt: min(step, from_step) for attempt, step in last.ends.items()}
    return ends | {last.attempt: from_step} if from_step > last.from_step else ends


class Claim:
    """The right of a process to write into a run's folder, as long as no newer attempt has come."""

    def __init__(self, run_uri: str, attempt: int) -> None:
        self.attempt = attempt
        self._run_uri = run_uri
        self._looked_at = time.monotonic()

    def check(self) -> None:
        """Looks whether this is still the newest attempt.

        Raises:
            StaleAttemptError: if it is not.
        """
        self._looked_at = time.monotonic()
        if storage.exists(attempt_file(self._run_uri, self.attempt + 1)):
            owner = newest_attempt(self._run_uri)
            who = f"attempt {owner.attempt}, process {owner.pid} on {owner.host}" if owner else "another attempt"
            raise StaleAttemptError(f"the run {self._run_uri} goes on elsewhere ({who}); attempt {self.attempt} ends here")

    def check_sometimes(self) -> None:
        """``check`` once in a few seconds; a storage that cannot be reached gives no answer, and is asked again later.

        Raises:
            StaleAttemptError: if this is not the newest attempt.
        """
        if time.monotonic() - self._looked_at >= LOOK_EVERY_S:
            try:
                self.check()
            except OSError:
                return
