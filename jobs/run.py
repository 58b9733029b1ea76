"""What every job does around its ``main``: errors of the user become one sentence and an exit status."""

import os
import sys
from collections.abc import Callable


def run(main: Callable[[], int]) -> None:
    """Ends the process with what ``main`` returns.

    Otherwise with 2 and one sentence where the request or its input is wrong, 130 after Ctrl-C, 141 where nobody reads the
    output any more (``| head``).
    """
    try:
        status = main()
    except (ValueError, FileNotFoundError, FileExistsError, PermissionError) as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        status = 130
    sys.exit(status)
