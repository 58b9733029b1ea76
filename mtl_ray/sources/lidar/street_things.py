"""The things of a generated street, made of simple shapes: cars, cyclists, pedestrians and clutter.

An object's shapes reach all faces of its box but for ``NOISE_M``, so that its measured points are
in the box.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtl_ray.sources.lidar.street_rays import Ball, Pole, SolidShape, UprightBox

NOISE_M = 0.02
"""A measured distance is wrong by at most so much."""


@dataclass(frozen=True, slots=True)
class Thing:
    """A thing that stands on the ground.

    Attributes:
        name: of its class; empty for clutter.
        box: x, y, z of its centre, length, width, height, yaw; empty for clutter.
        shapes: that it is made of.
        reflectance: mean intensity of its points.
    """

    name: str
    box: tuple[float, ...]
    shapes: tuple[SolidShape, ...]
    reflectance: float


@dataclass(frozen=True, slots=True)
class Spot:
    """A place on the ground with a heading: x, y, z of the ground there, and yaw in radians."""

    x: float
    y: float
    z: float
    yaw: float

    def block(
        self, along: Sequence[float], across: Sequence[float], up: Sequence[float]
    ) -> UprightBox:
        """A block from and to metres along the heading, to its left, and above the ground."""
        # The same nine decimals on every machine, as the directions of the rays.
        c, s = round(math.cos(self.yaw), 9), round(math.sin(self.yaw), 9)
        front, left, above = ((low + high) / 2 for low, high in (along, across, up))
        half_length, half_width, half_height = (
            (high - low) / 2 for low, high in (along, across, up)
        )
        return UprightBox(
            self.x + c * front - s * left, self.y + s * front + c * left, self.z + above,
            half_length, half_width, half_height, c, s,
        )  # fmt: skip

    def pole(self, front: float, left: float, radius: float, up: Sequence[float]) -> Pole:
        """A pole at metres along the heading and to its left."""
        c, s = round(math.cos(self.yaw), 9), round(math.sin(self.yaw), 9)
        x, y = self.x + c * front - s * left, self.y + s * front + c * left
        return Pole(x, y, self.z + up[0], self.z + up[1], radius)

    def box(self, length: float, width: float, height: float) -> tuple[float, ...]:
        """A box that stands here."""
        return (self.x, self.y, self.z + height / 2, length, width, height, self.yaw)


def car(spot: Spot, rng: np.random.Generator) -> Thing:
    """A cabin on a body on wheels: with a boot, with a steep rear, or high."""
    kind = int(rng.integers(3))
    length = _about(rng, (4.2, 3.7, 4.4)[kind], 0.3)
    width = _about(rng, 1.66, 0.12)
    height = _about(rng, (1.46, 1.5, 1.68)[kind], 0.08)
    half, side, top = length / 2 - NOISE_M, width / 2 - NOISE_M, height - NOISE_M
    belt = height * (0.58, 0.6, 0.62)[kind]
    front, rear = ((0.18, -0.36), (0.2, -0.49), (0.22, -0.48))[kind]
    wheel = 0.16 * length
    shapes = (
        spot.block((-half, half), (-side, side), (0.22, belt)),
        spot.block(
            (rear * length, front * length), (-0.88 * side, 0.88 * side), (belt, top)
        ),
        *(
            spot.block((at - 0.3, at + 0.3), (-0.96 * side, 0.96 * side), (0.0, 0.3))
            for at in (half - wheel - 0.1, wheel + 0.1 - half)
        ),
    )  # fmt: skip
    return Thing("Car", spot.box(length, width, height), shapes, float(rng.uniform(0.15, 0.6)))


def pedestrian(spot: Spot, rng: np.random.Generator) -> Thing:
    """Two legs in a step, a body with arms, a head."""
    length, width = _about(rng, 0.8, 0.2), _about(rng, 0.64, 0.08)
    height = _about(rng, 1.74, 0.12)
    step, side, leg, top = length / 2 - NOISE_M, width / 2 - NOISE_M, 0.09, 0.48 * height
    shapes = (
        spot.pole(step - leg, width / 5, leg, (0.0, top)),
        spot.pole(leg - step, -width / 5, leg, (0.0, top)),
        spot.block((-0.16, 0.16), (-side, side), (top, 0.84 * height)),
        Ball(spot.x, spot.y, spot.z + 0.92 * height - NOISE_M, 0.12, 0.08 * height),
    )
    return Thing(
        "Pedestrian", spot.box(length, width, height), shapes, float(rng.uniform(0.2, 0.5))
    )


def cyclist(spot: Spot, rng: np.random.Generator) -> Thing:
    """A bicycle, a rider who leans forward, a head."""
    length, width = _about(rng, 1.76, 0.1), _about(rng, 0.6, 0.08)
    height = _about(rng, 1.74, 0.08)
    half, side, saddle = length / 2 - NOISE_M, width / 2 - NOISE_M, 0.5 * height
    c, s = round(math.cos(spot.yaw), 9), round(math.sin(spot.yaw), 9)
    shapes = (
        spot.block((-half, -half + 0.6), (-0.04, 0.04), (0.0, 0.62)),
        spot.block((half - 0.6, half), (-0.04, 0.04), (0.0, 0.62)),
        spot.block((-0.45 * half, 0.5 * half), (-0.07, 0.07), (0.3, saddle)),
        spot.block((0.45 * half, 0.55 * half), (-side, side), (0.9, 1.05)),  # the handlebar
        spot.block((-0.25, 0.12), (-0.7 * side, 0.7 * side), (saddle, 0.84 * height)),
        Ball(
            spot.x + 0.1 * c,
            spot.y + 0.1 * s,
            spot.z + 0.91 * height - NOISE_M,
            0.13,
            0.09 * height,
        ),
    )
    return Thing("Cyclist", spot.box(length, width, height), shapes, float(rng.uniform(0.2, 0.5)))


def wall(spot: Spot, length: float, rng: np.random.Generator) -> Thing:
    """The front of a house or a garden wall."""
    height = float(rng.uniform(3.0, 8.0) if rng.random() < 0.7 else rng.uniform(1.2, 2.2))
    shape = spot.block((-length / 2, length / 2), (-0.3, 0.3), (0.0, height))
    return Thing("", (), (shape,), float(rng.uniform(0.1, 0.4)))


def clutter(spot: Spot, rng: np.random.Generator) -> Thing:
    """A lamp post, a tree, a bush, a bin or a box."""
    kind = int(rng.integers(5))
    shapes: tuple[SolidShape, ...]
    if kind == 0:
        shapes = (spot.pole(0, 0, float(rng.uniform(0.06, 0.12)), (0.0, 6.0)),)
    elif kind == 1:
        stem, crown = float(rng.uniform(0.12, 0.3)), float(rng.uniform(0.9, 1.7))
        shapes = (
            spot.pole(0, 0, stem, (0.0, 3.5)),
            Ball(spot.x, spot.y, spot.z + 3.2 + crown, crown, crown),
        )
    elif kind == 2:
        size = float(rng.uniform(0.4, 1.0))
        shapes = (Ball(spot.x, spot.y, spot.z + 0.6 * size, size, size),)
    else:
        side, height = float(rng.uniform(0.25, 0.5)), float(rng.uniform(0.7, 1.4))
        shapes = (spot.block((-side, side), (-side, side), (0.0, height)),)
    return Thing("", (), shapes, float(rng.uniform(0.05, 0.6)))


def _about(rng: np.random.Generator, mean: float, spread: float) -> float:
    """A length to the millimetre, at most ``spread`` from the mean, mostly near it."""
    return round(mean + spread * float(rng.random() + rng.random() - 1), 3)
