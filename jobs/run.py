"""What every job does around its ``main``: errors of the user become one sentence and an exit status."""

import errno
import os
import re
import sys
from collections.abc import Callable

_PLACES = {
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
"""What a place for files may refuse; whoever chose the place can mend it."""


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
    except Exception as error:
        if not (refused := _refused_by_a_place(error)):
            raise
        print(f"error: {refused}", file=sys.stderr)
        status = 2
    sys.exit(status)


def _refused_by_a_place(error: BaseException | None) -> str:
    """One sentence if an error, or what caused it, is a disk that is full, read-only or the like; else nothing.

    Libraries that write files in other languages (Arrow, safetensors, torch) wrap the number of the system's error in a text.
    """
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if number is None and (said := re.search(r"(?:errno |code: |os error )(\d+)", str(error), re.IGNORECASE)):
            number = int(said[1])
        if number in _PLACES:
            where = f"{error.filename}: " if isinstance(error, OSError) and error.filename is not None else ""
            return f"{where}{_PLACES[number]}"
        error = error.__cause__ or error.__context__
    return ""


def _sentence(error: Exception) -> str:
    """What an error says; of the system's own ``[Errno 2] No such file or directory: 'a'`` the words alone."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)
