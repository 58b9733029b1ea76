"""Serves bundles over HTTP until it is interrupted; or compares the answers of a server with a
model.
"""

import argparse
import json
import os
import queue
import signal
import sys
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.inputs.cloud_options import FEATURES_OPTION

EPILOG = """examples:
  python -m jobs.serve bundles/digits bundles/bccd --port 8000
  python -m jobs.serve digits=s3://bucket/bundles/17 serve.yaml serve.replicas=2
  python -m jobs.serve compare http://127.0.0.1:8000/predictions/digits runs/digits image.jpg
  python -m jobs.serve compare http://127.0.0.1:8000 runs/street shards/street/val"""


def main(argv: Sequence[str] | None = None) -> int:
    """0 after Ctrl-C or SIGTERM."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["compare"]:
        return compare(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="python -m jobs.serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
    )
    parser.add_argument(
        "targets",
        nargs="+",
        metavar="BUNDLE_OR_CONFIG",
        help="bundle URIs, NAME=URI, config files, and serve.key=value",
    )
    parser.add_argument(
        "--host", help="address to listen on (127.0.0.1: this machine only; 0.0.0.0: every machine)"
    )
    parser.add_argument(
        "--engine", metavar="NAME[:PRECISION]", help="engine of all bundles, such as openvino:int8"
    )
    parser.add_argument("--port", type=int, help="port to listen on (8000)")
    parser.add_argument(
        "--grpc-port", type=int, help="port of the Open Inference Protocol over gRPC (off)"
    )
    given = parser.parse_intermixed_args(arguments)

    from mtl_ray.distributed.serve import running
    from mtl_ray.serving.config import read_targets

    overrides = [target for target in given.targets if target.startswith("serve.")]
    options = [
        f"serve.{name}={json.dumps(getattr(given, name))}"  # "::" alone would be no text
        for name in ("host", "port", "engine", "grpc_port")
        if getattr(given, name) is not None
    ]
    targets = [target for target in given.targets if target not in overrides]
    config = read_targets(targets, [*overrides, *options])
    with running(config) as server:
        signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda which, _: signals.put(which))
        print(
            f"{server.url} answers; Ctrl-C ends it. It is a page to try the models; /docs "
            "describes the API. For example:"
        )
        for name in (*config.models, *config.pipelines):
            print(f"  curl --data-binary @FILE {server.url}/predictions/{name}", flush=True)
        if any(target.endswith((".yaml", ".yml")) for target in targets):
            print(f"kill -HUP {os.getpid()} reads the config again, without a pause", flush=True)
        while signals.get() == signal.SIGHUP:
            try:
                server.update(read_targets(targets, [*overrides, *options]))
                print("the new config is served", flush=True)
            except (ValueError, FileNotFoundError) as error:
                print(f"the new config is not served: {error}", file=sys.stderr, flush=True)
        print("ending: running requests are finished first", flush=True)
    return 0


def compare(argv: Sequence[str]) -> int:
    """1 if an answer differs from the model."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.serve compare",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
        description="Sends images (or files of another input) to a server and to a model, and "
        "exits with 1 if they differ.",
    )
    parser.add_argument(
        "url", help="http://HOST:PORT/predictions/MODEL, or http://HOST:PORT if one model is served"
    )
    parser.add_argument("target", help="run folder, checkpoint or bundle")
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="files, folders, patterns in quotes, or splits"
    )
    parser.add_argument("--features", help=f"of point clouds: {FEATURES_OPTION}")
    parser.add_argument(
        "--score-thr",
        type=float,
        default=0.05,
        help="boxes with a lower score need no partner (0.05)",
    )
    parser.add_argument(
        "--api-key-env", metavar="NAME", help="environment variable with the server's API key"
    )
    given = parser.parse_intermixed_args(argv)

    from mtl_ray.inference.endpoint import EndpointPredictor
    from mtl_ray.inference.predictor import open_predictor
    from mtl_ray.serving.compare import compare_files

    key = os.environ.get(given.api_key_env, "") if given.api_key_env else None
    agree = True
    for comparison in compare_files(
        EndpointPredictor(given.url, api_key=key),
        open_predictor(given.target),
        given.images,
        given.score_thr,
        {} if given.features is None else {"features": given.features},
    ):
        print(
            f"{comparison.file}  {comparison.head}: {comparison.compared} compared, "
            f"{comparison.figures}"
        )
        for sentence in comparison.mismatches:
            print(f"  mismatch: {sentence}")
        agree &= not comparison.mismatches
    print("the endpoint agrees with the model" if agree else "the endpoint differs from the model")
    return 0 if agree else 1


if __name__ == "__main__":
    run(main)
