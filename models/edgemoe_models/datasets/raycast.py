"""Exact ray casting of the few solids that scenes are built of; NumPy, all rays at once.

World frame: x right, y forward, z up, metres, ground at z = 0. ``hit`` takes rays ``origin + t * direction``
(origin [3] or [P, 3], direction [P, 3] or [3]) and returns the first t > ``EPSILON`` [P], infinity where it misses.
``normal`` and ``surface`` take points [P, 3] on the solid and return outward unit normals [P, 3] and texture
coordinates in metres [P, 2].
"""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgemoe_models.exact.functions import arc_tangent, sine_cosine

Floats = npt.NDArray[np.float32]

#: A ray that leaves a surface ignores hits nearer than this (metres along unit directions).
EPSILON = np.float32(2e-3)
_INF = np.float32(np.inf)


class Solid(Protocol):
    """What a scene needs of a solid."""

    def hit(self, origin: Floats, direction: Floats) -> Floats: ...

    def normal(self, points: Floats) -> Floats: ...

    def surface(self, points: Floats) -> Floats: ...


@dataclasses.dataclass(frozen=True)
class Camera:
    """A pinhole at (0, 0, ``height``) m, looking along +y, pitched down by ``pitch`` radians.

    ``focal`` is the focal length in image widths, so one camera serves every resolution.
    """

    height: float
    pitch: float
    focal: float

    def axes(self) -> Floats:
        """Rows: the camera's x (right), y (down) and z (forward) axes in the world frame, [3, 3]."""
        sin, cos = sine_cosine(self.pitch)
        return np.array([[1, 0, 0], [0, -sin, -cos], [0, cos, -sin]], np.float32)

    def directions(self, rows: int, columns: int) -> Floats:
        """A ray a pixel centre [rows*columns, 3]; their z in the camera frame is 1, so t is the depth."""
        scale = 1.0 / (self.focal * columns)
        x = (np.arange(columns) + 0.5 - columns / 2) * scale
        y = (np.arange(rows) + 0.5 - rows / 2) * scale
        local = np.ones((rows, columns, 3), np.float32)
        local[..., 0] = x
        local[..., 1] = y[:, None]
        return along(local.reshape(-1, 3), self.axes().T)

    @property
    def origin(self) -> Floats:
        """The pinhole, [3]."""
        return np.array([0, 0, self.height], np.float32)


def _nearest(t: Floats, valid: npt.NDArray[np.bool_]) -> Floats:
    return np.where(valid & (t > EPSILON), t, _INF)


def dot(a: Floats, b: Floats) -> Floats:
    """Inner products over the last axis, of 2 or 3, added in its order: what BLAS gives depends on the machine."""
    products: list[Floats] = [a[..., i] * b[..., i] for i in range(a.shape[-1])]
    return sum(products[1:], products[0])


def along(vectors: Floats, axes: Floats) -> Floats:
    """Vectors [..., 3] by their components along axes [3, 3], one a row."""
    return np.stack([dot(vectors, axis) for axis in axes], -1)


def length(vectors: Floats) -> Floats:
    """Euclidean lengths over the last axis, kept."""
    squares = dot(vectors, vectors)
    return np.sqrt(squares)[..., None]


def _turned(vectors: Floats, yaw: float) -> Floats:
    """Vectors [..., 3] seen from a frame turned by ``yaw`` about z."""
    sin, cos = sine_cosine(yaw)
    return along(vectors, np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]], np.float32))


@dataclasses.dataclass(frozen=True)
class Ground:
    """The plane z = 0."""

    def hit(self, origin: Floats, direction: Floats) -> Floats:
        t = -origin[..., 2] / direction[..., 2]
        return _nearest(t, direction[..., 2] < 0)

    def normal(self, points: Floats) -> Floats:
        return np.broadcast_to(np.array([0, 0, 1], np.float32), points.shape)

    def surface(self, points: Floats) -> Floats:
        return points[:, :2]


@dataclasses.dataclass(frozen=True)
class Wall:
    """A thin upright wall: the line at ``distance`` m along heading ``yaw`` (0 = forward), ``height`` m high."""

    distance: float
    yaw: float
    height: float

    @property
    def _heading(self) -> Floats:
        return np.array([*sine_cosine(self.yaw), 0], np.float32)

    def hit(self, origin: Floats, direction: Floats) -> Floats:
        t = (np.float32(self.distance) - dot(origin, self._heading)) / dot(direction, self._heading)
        z = origin[..., 2] + t * direction[..., 2]
        return _nearest(t, (z >= 0) & (z <= self.height))

    def normal(self, points: Floats) -> Floats:
        return np.broadcast_to(-self._heading, points.shape)

    def surface(self, points: Floats) -> Floats:
        sin, cos = sine_cosine(self.yaw)
        return np.stack([dot(points, np.array([cos, -sin, 0], np.float32)), points[:, 2]], 1)


@dataclasses.dataclass(frozen=True)
class Standing:
    """A solid that stands on the ground at (x, y), within ``radius`` of it, ``height`` high, turned by ``yaw``."""

    x: float
    y: float
    radius: float
    height: float
    yaw: float

    def _local(self, points: Floats) -> Floats:
        return points - np.array([self.x, self.y, 0], np.float32)

    def surface(self, points: Floats) -> Floats:
        local = self._local(points)
        angle = arc_tangent(local[:, 1], local[:, 0]).astype(np.float32) + np.float32(self.yaw)
        return np.stack([angle * np.float32(self.radius), local[:, 2]], 1)


@dataclasses.dataclass(frozen=True)
class Box(Standing):
    """An upright box; ``aspect`` is its depth over its width."""

    aspect: float = 1.0

    @property
    def _half(self) -> Floats:
        width = self.radius / math.sqrt(1 + self.aspect * self.aspect)
        return np.array([width, width * self.aspect, self.height / 2], np.float32)

    def _centred(self, points: Floats) -> Floats:
        return _turned(self._local(points), self.yaw) - np.array([0, 0, self.height / 2], np.float32)

    def hit(self, origin: Floats, direction: Floats) -> Floats:
        start, step = self._centred(origin), _turned(direction, self.yaw)
        inverse = 1 / np.where(step == 0, np.float32(1e-12), step)
        first, second = (-self._half - start) * inverse, (self._half - start) * inverse
        enter = np.minimum(first, second).max(-1)
        leave = np.maximum(first, second).min(-1)
        return _nearest(enter, enter <= leave)

    def normal(self, points: Floats) -> Floats:
        relative = self._centred(points) / self._half
        axis = np.abs(relative).argmax(1)
        rows = np.arange(len(points))
        local = np.zeros_like(relative)
        local[rows, axis] = np.sign(relative[rows, axis])
        return _turned(local, -self.yaw)

    def surface(self, points: Floats) -> Floats:
        local = self._centred(points)
        axis = np.abs(local / self._half).argmax(1)
        u = np.where(axis == 0, local[:, 1], local[:, 0])
        v = np.where(axis == 2, local[:, 1], local[:, 2] + np.float32(self.height / 2))
        return np.stack([u, v], 1)


@dataclasses.dataclass(frozen=True)
class Sphere(Standing):
    """A ball of ``radius`` that touches the ground; ``height`` is its diameter."""

    def _centred(self, points: Floats) -> Floats:
        return points - np.array([self.x, self.y, self.radius], np.float32)

    def hit(self, origin: Floats, direction: Floats) -> Floats:
        start = self._centred(origin)
        a, b = dot(direction, direction), dot(start, direction)
        c = dot(start, start) - np.float32(self.radius * self.radius)
        square = b * b - a * c
        return _nearest((-b - np.sqrt(np.maximum(square, 0))) / a, square >= 0)

    def normal(self, points: Floats) -> Floats:
        local = self._centred(points)
        return local / length(local)


@dataclasses.dataclass(frozen=True)
class Cylinder(Standing):
    """An upright cylinder with a flat top."""

    def hit(self, origin: Floats, direction: Floats) -> Floats:
        start = self._local(origin)
        flat, flat_start = direction[..., :2], start[..., :2]
        a, b = dot(flat, flat), dot(flat_start, flat)
        c = dot(flat_start, flat_start) - np.float32(self.radius * self.radius)
        square = b * b - a * c
        side = (-b - np.sqrt(np.maximum(square, 0))) / a
        z = start[..., 2] + side * direction[..., 2]
        side = _nearest(side, (square >= 0) & (z >= 0) & (z <= self.height))
        top = (np.float32(self.height) - start[..., 2]) / direction[..., 2]
        within = a * top * top + 2 * b * top + c <= 0
        return np.minimum(side, _nearest(top, within & (direction[..., 2] < 0)))

    def normal(self, points: Floats) -> Floats:
        local = self._local(points)
        normal = local / np.float32(self.radius)
        normal[:, 2] = 0
        # A point on the top is the one that is as high as the cylinder and not on its side.
        on_top = dot(local[:, :2], local[:, :2]) < np.float32(self.radius * self.radius * 0.9999)
        on_top &= local[:, 2] > np.float32(self.height * 0.999)
        normal[on_top] = (0, 0, 1)
        return normal / length(normal)


@dataclasses.dataclass(frozen=True)
class Cone(Standing):
    """An upright cone with its apex on top."""

    def hit(self, origin: Floats, direction: Floats) -> Floats:
        ratio = self.radius / self.height
        slope = np.float32(ratio * ratio)
        start = self._local(origin)
        below = np.float32(self.height) - start[..., 2]
        dz = direction[..., 2]
        flat, flat_start = direction[..., :2], start[..., :2]
        a = dot(flat, flat) - slope * dz * dz
        b = dot(flat_start, flat) + slope * below * dz
        c = dot(flat_start, flat_start) - slope * below * below
        square = b * b - a * c
        root = np.sqrt(np.maximum(square, 0))
        a = np.where(np.abs(a) < 1e-6, np.float32(1e-6), a)
        best = None
        for t in ((-b - root) / a, (-b + root) / a):
            z = start[..., 2] + t * dz
            t = _nearest(t, (square >= 0) & (z >= 0) & (z <= self.height))
            best = t if best is None else np.minimum(best, t)
        assert best is not None
        return best

    def normal(self, points: Floats) -> Floats:
        local = self._local(points)
        flat = local[:, :2]
        flat = flat / np.maximum(length(flat), np.float32(1e-9))
        side = math.sqrt(self.radius * self.radius + self.height * self.height)
        up = np.full(len(points), self.radius / side, np.float32)
        return np.column_stack([flat * np.float32(self.height / side), up])
