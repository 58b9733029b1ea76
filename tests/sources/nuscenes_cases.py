"""A small dataset in the layout of nuScenes or Lyft: a car drives through a world of fixed points
and of objects that move at constant velocities, so that everything read from it is known.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CAMERAS = ("FRONT", "FRONT_RIGHT", "FRONT_LEFT", "BACK", "BACK_LEFT", "BACK_RIGHT")
CATEGORIES = (
    "vehicle.car",
    "human.pedestrian.adult",
    "static_object.bicycle_rack",
    "vehicle.bus.rigid",
)
TABLES = (
    *("attribute", "calibrated_sensor", "category", "ego_pose", "instance", "log", "map"),
    *("sample", "sample_annotation", "sample_data", "scene", "sensor", "visibility"),
)
START = 1_532_402_927_600_000
KEY_STEP, SWEEP_STEP = 500_000, 50_000
"""Microseconds between key frames, and between sweeps."""
Rows = dict[str, list[dict[str, Any]]]


def matrix(rotation: NDArray[np.float64], translation: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4, 4) of a unit quaternion and a translation, by rotating the unit vectors."""
    w, v = rotation[0], rotation[1:]
    found = np.eye(4)
    for axis in range(3):
        e = np.eye(3)[axis]
        found[:3, axis] = e + 2 * np.cross(v, np.cross(v, e) + w * e)
    found[:3, 3] = translation
    return found


def tilted(rng: np.random.Generator, yaw: float, tilt: float = 0.03) -> NDArray[np.float64]:
    """A unit quaternion: a heading, and a little roll and pitch."""
    quaternion = np.array([np.cos(yaw / 2), *(rng.normal(size=2) * tilt), np.sin(yaw / 2)])
    return quaternion / np.linalg.norm(quaternion)


class World:
    """The dataset before it is written.

    Args:
        root: the folder.
        tables: where the tables are, relative to it.
        data: where the files are, relative to it.
        scenes: their names.
        frames: key frames of each scene.
        seed: of everything.
        tilt: how much sensors, vehicle and objects roll and pitch, in radians.
    """

    def __init__(
        self,
        root: Path,
        tables: str = "v1.0-mini",
        data: str = "",
        scenes: tuple[str, ...] = ("scene-0061", "scene-0103"),
        frames: int = 3,
        seed: int = 0,
        tilt: float = 0.03,
        categories: tuple[str, ...] = CATEGORIES,
    ) -> None:
        self.root, self.tables, self.data = root, root / tables, root / data
        self.rng, self.frames, self.tilt = np.random.default_rng(seed), frames, tilt
        self.categories = categories
        self.rows: Rows = {name: [] for name in TABLES}
        self.points = self.rng.uniform((-40, -40, -2), (40, 40, 3), (60, 3))
        self._sensors()
        for name in scenes:
            self._scene(name)

    def write(self) -> "World":
        self.tables.mkdir(parents=True, exist_ok=True)
        for name, rows in self.rows.items():
            (self.tables / f"{name}.json").write_text(json.dumps(rows, indent=0))
        return self

    def find(self, table: str, token: str) -> dict[str, Any]:
        return next(row for row in self.rows[table] if row["token"] == token)

    def _sensors(self) -> None:
        rng = self.rng
        names = ("LIDAR_TOP", *(f"CAM_{place}" for place in CAMERAS))
        for number, name in enumerate(names):
            modality = "camera" if name.startswith("CAM") else "lidar"
            self.rows["sensor"].append(
                {"token": f"s-{name}", "channel": name, "modality": modality}
            )
            intrinsic = [[1266.4, 0.0, 816.3], [0.0, 1266.4, 491.5], [0.0, 0.0, 1.0]]
            self.rows["calibrated_sensor"].append(
                {
                    "token": f"c-{name}",
                    "sensor_token": f"s-{name}",
                    "translation": rng.normal(size=3).tolist(),
                    "rotation": tilted(rng, number - 1.57, self.tilt).tolist(),
                    "camera_intrinsic": intrinsic if modality == "camera" else [],
                }
            )
        for number, name in enumerate(self.categories):
            self.rows["category"].append({"token": f"k{number}", "name": name, "description": ""})
        self.rows["attribute"] = [
            {"token": "a0", "name": "vehicle.moving", "description": ""},
            {"token": "a1", "name": "pedestrian.standing", "description": ""},
        ]
        self.rows["visibility"] = [{"token": "1", "level": "v0-40", "description": ""}]
        self.rows["log"] = [
            {"token": "log", "logfile": "l", "vehicle": "v", "date_captured": "d", "location": "l"}
        ]
        self.rows["map"] = [
            {"token": "map", "log_tokens": ["log"], "category": "c", "filename": "maps/m.png"}
        ]

    def _scene(self, name: str) -> None:
        samples = [f"{name}-{number}" for number in range(self.frames)]
        self.rows["scene"].append(
            {
                "token": f"t-{name}",
                "log_token": "log",
                "name": name,
                "description": "",
                "nbr_samples": len(samples),
                "first_sample_token": samples[0],
                "last_sample_token": samples[-1],
            }
        )
        previous = ""
        for number, sample in enumerate(samples):
            time = START + number * KEY_STEP
            self.rows["sample"].append(
                {
                    "token": sample,
                    "timestamp": time,
                    "scene_token": f"t-{name}",
                    "prev": samples[number - 1] if number else "",
                    "next": samples[number + 1] if number + 1 < len(samples) else "",
                }
            )
            for sweep in range(0 if number == 0 else -3, 1):  # three sweeps before each key frame
                previous = self._measure("LIDAR_TOP", sample, time + sweep * SWEEP_STEP, previous)
            for place in CAMERAS:
                self._measure(f"CAM_{place}", sample, time - 12_000, "")
        self._objects(name, samples)

    def _measure(self, channel: str, sample: str, time: int, previous: str) -> str:
        """A row of sample_data with its pose and, of the lidar, its file."""
        key = time == self.find("sample", sample)["timestamp"] or channel != "LIDAR_TOP"
        token = f"d-{channel}-{sample}-{time}"
        seconds = (time - START) / 1e6
        place = np.array([100 + 8 * seconds, 50 + 2 * seconds, 0.3 * seconds])
        pose = {
            "token": f"p-{token}",
            "timestamp": time,
            "rotation": tilted(self.rng, 0.3 + 0.4 * seconds, self.tilt).tolist(),
            "translation": place.tolist(),
        }
        self.rows["ego_pose"].append(pose)
        camera = channel != "LIDAR_TOP"
        folder = "samples" if key else "sweeps"
        file = f"{folder}/{channel}/{token}.{'jpg' if camera else 'pcd.bin'}"
        self.rows["sample_data"].append(
            {
                "token": token,
                "sample_token": sample,
                "ego_pose_token": pose["token"],
                "calibrated_sensor_token": f"c-{channel}",
                "timestamp": time,
                "fileformat": "jpg" if camera else "pcd",
                "is_key_frame": key,
                "height": 900 if camera else 0,
                "width": 1600 if camera else 0,
                "filename": file,
                "prev": previous,
                "next": "",
            }
        )
        if previous:
            self.find("sample_data", previous)["next"] = token
        path = self.data / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if camera:
            path.write_bytes(b"\xff\xd8\xff\xd9")
        else:
            seen = self.seen(token)
            close = np.array([[0.5, -0.5, 0.0, 1, 2]])  # of the own car
            rest = np.column_stack([np.arange(len(seen)), np.zeros(len(seen))])
            points = np.concatenate([np.column_stack([seen, rest]), close])
            points.astype("<f4").tofile(path)
        return token

    def seen(self, token: str) -> NDArray[np.float64]:
        """(60, 3): the fixed points of the world in the frame of the lidar of a measurement."""
        world = self.points + np.array([100.0, 50.0, 0.0])
        back = np.linalg.inv(self.to_global(token))
        return np.asarray(world @ back[:3, :3].T + back[:3, 3])

    def to_global(self, token: str) -> NDArray[np.float64]:
        """(4, 4) from the sensor of a measurement."""
        data = self.find("sample_data", token)
        rows = (
            self.find("ego_pose", data["ego_pose_token"]),
            self.find("calibrated_sensor", data["calibrated_sensor_token"]),
        )
        ego, sensor = (
            matrix(np.array(row["rotation"]), np.array(row["translation"])) for row in rows
        )
        return np.asarray(ego @ sensor)

    def _objects(self, scene: str, samples: list[str]) -> None:
        """One object of each category, of which the last is annotated once."""
        for number, _ in enumerate(self.categories):
            velocity = self.rng.normal(size=3) * (1, 1, 0.1)
            start = self.rng.uniform((80, 30, -1), (120, 70, 1))
            instance = f"i-{scene}-{number}"
            here = samples[:1] if number == len(self.categories) - 1 else samples
            tokens = [f"n-{sample}-{number}" for sample in here]
            self.rows["instance"].append(
                {
                    "token": instance,
                    "category_token": f"k{number}",
                    "nbr_annotations": len(here),
                    "first_annotation_token": tokens[0],
                    "last_annotation_token": tokens[-1],
                }
            )
            for place, sample in enumerate(here):
                moved = start + velocity * place * KEY_STEP / 1e6
                self.rows["sample_annotation"].append(
                    {
                        "token": tokens[place],
                        "sample_token": sample,
                        "instance_token": instance,
                        "visibility_token": "1",
                        "attribute_tokens": ["a0"] if number == 0 else [],
                        "translation": moved.tolist(),
                        "size": [1.9 + number, 4.5 + number, 1.6],
                        "rotation": tilted(self.rng, 1.0 + number, self.tilt).tolist(),
                        "prev": tokens[place - 1] if place else "",
                        "next": tokens[place + 1] if place + 1 < len(here) else "",
                        "num_lidar_pts": 7 * number,
                        "num_radar_pts": number,
                    }
                )
