"""Jobs with several tools, one module each: ``python -m jobs.NAME TOOL ...``."""

import argparse
from collections.abc import Mapping, Sequence
from importlib import import_module


def main(name: str, about: str, tools: Mapping[str, str], argv: Sequence[str] | None = None) -> int:
    """Runs the tool that the first argument names.

    Args:
        name: of the package of the job; the tool ``train-time`` is its module ``train_time``, which
            has ``main(argv) -> int``.
        about: the purpose of the tools.
        tools: the purpose of each tool by its name.
        argv: the command line.
    """
    width = max(map(len, tools))
    listed = "\n".join(f"  {tool:{width}}  {does}" for tool, does in tools.items())
    parser = argparse.ArgumentParser(
        prog=f"python -m {name}",
        description=about,
        usage=f"python -m {name} TOOL ...",
        epilog=f"tools (TOOL --help shows its options and an example):\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("tool", choices=tools, metavar="TOOL", help="one of the tools below")
    parser.add_argument(
        "arguments", nargs=argparse.REMAINDER, metavar="...", help="arguments of the tool"
    )
    args = parser.parse_args(argv)
    module = args.tool.replace("-", "_")
    status: int = import_module(f"{name}.{module}").main(args.arguments)
    return status
