"""Where things stand in a generated street: lanes, parked cars, pavements, walls; or a square."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from mtl_ray.sources.lidar.street_things import (
    Spot,
    Thing,
    car,
    clutter,
    cyclist,
    pedestrian,
    wall,
)

SENSOR_HEIGHT_M = 1.73
"""Of the lidar above the ground, as on KITTI's car."""
FAR_M = 55.0
"""No object stands farther along the street."""
_SQUARES = 0.3
"""Share of scenes that are squares."""
Maker = Callable[[Spot, np.random.Generator], Thing]


@dataclass(slots=True)
class StreetScene:
    """A scene under construction.

    Attributes:
        ground: a, b, c, d of the plane a x + b y + c z + d = 0.
        turn: radians from the x axis to the direction of the street.
        things: that stand in it.
        taken: x, y, radius of each thing that stands freely.
    """

    ground: tuple[float, float, float, float]
    turn: float
    things: list[Thing] = field(default_factory=list)
    taken: list[tuple[float, float, float]] = field(default_factory=list)

    def spot(self, along: float, left: float, yaw: float) -> Spot:
        """A place by metres along the street and to its left, and a heading from the street's."""
        c, s = round(math.cos(self.turn), 9), round(math.sin(self.turn), 9)
        x, y = round(c * along - s * left, 3), round(s * along + c * left, 3)
        a, b, up, d = self.ground
        heading = (self.turn + yaw + math.pi) % (2 * math.pi) - math.pi
        return Spot(x, y, round(-(a * x + b * y + d) / up, 4), round(heading, 4))

    def is_free(self, along: float, left: float, radius: float) -> bool:
        """Whether nothing that stands freely is so near, nor the own car."""
        spot = self.spot(along, left, 0)
        own = max(abs(along) - 3.0, abs(left) - 1.2) > radius
        return own and all(
            (spot.x - x) ** 2 + (spot.y - y) ** 2 > (radius + other) ** 2
            for x, y, other in self.taken
        )

    def put(
        self, maker: Maker, rng: np.random.Generator, place: tuple[float, float, float]
    ) -> Thing:
        """Makes a thing at (along, left, yaw)."""
        thing = maker(self.spot(*place), rng)
        self.things.append(thing)
        return thing


def lay_out(rng: np.random.Generator, *, behind: bool) -> StreetScene:
    """A scene around the sensor.

    Args:
        rng: decides everything.
        behind: whether there is something behind the sensor too.
    """
    a, b = (round(float(rng.uniform(-0.012, 0.012)), 6) for _ in range(2))
    scene = StreetScene((-a, -b, 1.0, SENSOR_HEIGHT_M), round(float(rng.uniform(-0.12, 0.12)), 4))
    start = -FAR_M if behind else 3.0
    if rng.random() < _SQUARES:
        _square(scene, rng, start)
    else:
        _street(scene, rng, start)
    return scene


def _street(scene: StreetScene, rng: np.random.Generator, start: float) -> None:
    """Own lane, oncoming lane, parked cars on both sides, pavements, walls."""
    lanes = (
        (0.0, 0.0, 25.0, 0.03),
        (3.4, math.pi, 25.0, 0.03),
        (-3.0, 0.0, float(rng.uniform(2, 14)), 0.06),
        (6.6, math.pi * int(rng.integers(2)), float(rng.uniform(2, 14)), 0.06),
    )
    for left, yaw, gap, wobble in lanes:
        _row_of_cars(scene, rng, start, (left, yaw), gap, wobble)
    for _ in range(int(rng.integers(0, 4))):
        side = float((-1.5, 5.0)[int(rng.integers(2))])
        yaw = (0.0 if side < 0 else math.pi) + float(rng.uniform(-0.1, 0.1))
        _put_free(scene, rng, cyclist, 1.1, (start + 3, 40), (side - 0.15, side + 0.15), yaw)
    for _ in range(int(rng.integers(1, 6))):
        low = float((-6.6, 8.4)[int(rng.integers(2))])
        yaw = float(rng.choice([0, math.pi, math.pi / 2])) + float(rng.uniform(-0.4, 0.4))
        _put_free(scene, rng, pedestrian, 0.7, (start + 3, 35), (low, low + 1.6), yaw)
    for _ in range(int(rng.integers(4, 11))):
        low = float((-8.2, 10.6)[int(rng.integers(2))])
        _put_free(scene, rng, clutter, 0.6, (start + 3, FAR_M), (low, low + 0.8), 0.0)
    for side in (-1.0, 1.0):
        _row_of_walls(scene, rng, start, side * float(rng.uniform(10, 14)) + 1.5)


def _row_of_cars(
    scene: StreetScene,
    rng: np.random.Generator,
    start: float,
    lane: tuple[float, float],
    gap: float,
    wobble: float,
) -> None:
    """Cars one behind the other at some metres to the left, with a heading."""
    left, yaw = lane
    along = start + float(rng.uniform(1, 1 + gap))
    while along < FAR_M:
        place = (
            along + 2.3,
            left + float(rng.uniform(-0.25, 0.25)),
            yaw + float(rng.uniform(-wobble, wobble)),
        )
        if abs(left) > 1 or abs(along + 2.3) > 8:  # the own car has its lane
            scene.put(car, rng, place)
        along += 5.2 + gap * float(rng.uniform(0, 2))


def _row_of_walls(scene: StreetScene, rng: np.random.Generator, start: float, left: float) -> None:
    along = start
    while along < FAR_M + 10:
        length = float(rng.uniform(6, 18))
        if rng.random() < 0.6:
            place = scene.spot(along + length / 2, left, float(rng.uniform(-0.02, 0.02)))
            scene.things.append(wall(place, length, rng))
        along += length + float(rng.uniform(0.5, 6))


def _square(scene: StreetScene, rng: np.random.Generator, start: float) -> None:
    """Cars, cyclists and pedestrians anywhere, with any heading; walls far to the sides."""
    kinds: tuple[tuple[Maker, int, int, float], ...] = (
        (car, 5, 11, 2.6),
        (cyclist, 1, 4, 1.1),
        (pedestrian, 1, 6, 0.7),
        (clutter, 3, 8, 0.9),
    )
    for maker, least, most, radius in kinds:
        for _ in range(int(rng.integers(least, most))):
            free = rng.random() < 0.3
            yaw = float(rng.uniform(-math.pi, math.pi)) if free else (
                math.pi / 2 * int(rng.integers(4)) + float(rng.uniform(-0.1, 0.1))
            )  # fmt: skip
            far = 48.0 if maker is car or maker is clutter else 34.0
            along = float(rng.uniform(start + 3, far))
            wide = min(20.0, max(4.0, 0.75 * abs(along)))
            _put_free(scene, rng, maker, radius, (along, along + 4), (-wide, wide), yaw)
    for side in (-1.0, 1.0):
        _row_of_walls(scene, rng, start, side * float(rng.uniform(24, 30)))


def _put_free(
    scene: StreetScene,
    rng: np.random.Generator,
    maker: Maker,
    radius: float,
    along: tuple[float, float],
    left: tuple[float, float],
    yaw: float,
) -> None:
    """Puts a thing where nothing stands, unless twelve places in a row are taken."""
    for _ in range(12):
        place = (float(rng.uniform(*along)), float(rng.uniform(*left)), yaw)
        if scene.is_free(place[0], place[1], radius):
            thing = scene.put(maker, rng, place)
            spot = scene.spot(*place)
            scene.taken.append((spot.x, spot.y, radius))
            assert thing.shapes
            return
