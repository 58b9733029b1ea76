"""Exports a model by the arguments of MMDeploy's tools/deploy.py."""

import argparse
import sys
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.distributed.outputs import absolute_output


def main(argv: Sequence[str] | None = None) -> int:
    """0 if the bundle was written and answers as torch on the images; else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.deploy",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"{__doc__} The deploy config is read, not run; the bundle in --work-dir is "
        "written only if its numbers are those of torch. python -m jobs.export has more options.",
        epilog="example:\n  python -m jobs.deploy mmdeploy/configs/mmdet/detection/"
        "detection_onnxruntime_dynamic.py runs/mine runs/mine picture.jpg --work-dir out "
        "--dump-info",
    )
    parser.add_argument("deploy_cfg", metavar="DEPLOY_CFG", help="a config of mmdeploy/configs")
    parser.add_argument(
        "model_cfg", metavar="MODEL_CFG", help="our config or run; of one of OpenMMLab you are told"
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a run or checkpoint of ours")
    parser.add_argument("img", metavar="IMG", help="is predicted by torch and by the engine, drawn")
    parser.add_argument("--test-img", nargs="+", metavar="IMG", help="images instead of IMG")
    parser.add_argument("--work-dir", default=".", metavar="DIR", help="of the bundle (default .)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--dump-info", action="store_true", help="files for MMDeploy's runtime")
    for name in ("--calib-dataset-cfg", "--quant-image-dir", "--log-level", "--uri"):
        parser.add_argument(name, metavar="VALUE", help="accepted; not used here")
    for name in ("--quant", "--show"):
        parser.add_argument(name, action="store_true", help="accepted; not used here")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="section.key=value",
        help="changes to the config of the run, such as export.samples=4",
    )
    args = parser.parse_args(argv)
    from mtl_ray.export.deploy import DeployJob, deploy
    from mtl_ray.export.parity import ParityError, parity_table

    job = DeployJob(
        deploy_config=args.deploy_cfg,
        model_config=args.model_cfg,
        checkpoint=args.checkpoint,
        images=tuple(args.test_img or [args.img]),
        to=absolute_output("--work-dir", args.work_dir),
        device=args.device,
        dump_info=args.dump_info,
        overrides=tuple(args.cfg_options),
    )
    try:
        done = deploy(job)
    except ParityError as error:
        print(parity_table(error.parity))
        print(f"error: {error}; no bundle was written", file=sys.stderr)
        return 1
    print(parity_table(done.bundle.parity))
    print("\n".join(done.lines))
    return int(not done.agrees)


if __name__ == "__main__":
    run(main)
