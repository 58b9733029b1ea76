"""Runs the ``main`` of a job: errors of the user become one sentence and an exit status."""

import errno
import os
import re
import sys
from collections.abc import Callable

_FILE_SYSTEM_ERRORS = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EFBIG: "the file would be larger than is allowed here",
    errno.ELOOP: "too many symbolic links lead there",
    errno.EMFILE: "too many files are open (ulimit -n)",
}
"""Errors of a file system that the user can fix."""


def run(main: Callable[[], int]) -> None:
    """Ends the process with what ``main`` returns.

    Otherwise with 2 and one sentence if the request or its input is invalid or a server cannot be
    reached, 130 after Ctrl-C, 141 if the reader of the output has ended (``| head``).
    """
    try:
        status = main()
    except BrokenPipeError:  # a ConnectionError, so it comes first
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
    except Exception as error:
        if not (sentence := _file_system_error(error)):
            raise
        print(f"error: {sentence}", file=sys.stderr)
        status = 2
    sys.exit(status)


def _file_system_error(error: BaseException | None) -> str:
    """One sentence if an error or its cause is one of ``_FILE_SYSTEM_ERRORS``; else an empty
    string.

    Libraries in other languages (Arrow, safetensors, torch) only have the system's error number in
    their message.
    """
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if number is None and (
            match := re.search(r"(?:errno |code: |os error )(\d+)", str(error), re.IGNORECASE)
        ):
            number = int(match[1])
        if number in _FILE_SYSTEM_ERRORS:
            where = (
                f"{error.filename}: "
                if isinstance(error, OSError) and error.filename is not None
                else ""
            )
            return f"{where}{_FILE_SYSTEM_ERRORS[number]}"
        error = error.__cause__ or error.__context__
    return ""


def _sentence(error: Exception) -> str:
    """The message of an error; without ``[Errno 2]`` for errors of the system."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)
