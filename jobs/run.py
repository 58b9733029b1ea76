"""What every job does around its ``main``: errors of the user become one sentence and an exit status."""

import os
import sys
from collections.abc import Callable


def run(main: Callable[[], int]) -> None:
    """Ends the process with what ``main`` returns.

    Otherwise with 2 and one sentence where the request or its input is wrong or a server that it names is not there, 130 after
    Ctrl-C, 141 where nobody reads the output any more (``| head``).
    """
    try:
        status = main()
    except BrokenPipeError:  # is a ConnectionError too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except (
        ValueError,
        FileNotFoundError,
        FileExistsError,
        IsADirectoryError,
        NotADirectoryError,
        PermissionError,
        ConnectionError,
    ) as error:
        print(f"error: {_sentence(error)}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        status = 130
    sys.exit(status)


def _sentence(error: Exception) -> str:
    """What an error says; of the system's own ``[Errno 2] No such file or directory: 'a'`` the words alone."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)
