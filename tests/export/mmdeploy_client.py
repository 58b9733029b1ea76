"""What MMDeploy's runtime answers; run by a python that has it: FOLDER CLASS IMAGES.npz OUT.npz."""

import sys

import mmdeploy_runtime
import numpy as np


def main() -> None:
    folder, kind, images, out = sys.argv[1:]
    model = getattr(mmdeploy_runtime, kind)(model_path=folder, device_name="cpu", device_id=0)
    answers = {}
    for name, image in np.load(images).items():
        answer = model(np.ascontiguousarray(image[:, :, ::-1]))  # it takes BGR, as cv2 reads
        if kind == "Detector":
            answers[f"{name}.dets"], answers[f"{name}.labels"] = answer[0], answer[1]
            if answer[2]:  # of heads with masks
                answers[f"{name}.masks"] = np.stack([np.asarray(mask) > 0 for mask in answer[2]])
        else:
            answers[name] = np.asarray(answer)
    np.savez(out, **answers)


main()
