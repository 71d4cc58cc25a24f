"""Deterministic street-like scenes with exact labels: a walled yard with a road, boxes, balls, cylinders and cones.

A scene is drawn from its seed alone (PCG64), then ray cast at the wanted size: one ray a pixel centre, so every
label is exact there. The picture has textures, one sun with cast shadows, occlusion and sensor noise. Half of the
objects have the colours and the texture that are usual for their class, the other half have any, so shape counts.
NumPy only.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from edgemoe_models.datasets.raycast import (
    Box,
    Camera,
    Cone,
    Cylinder,
    Floats,
    Ground,
    Solid,
    Sphere,
    Wall,
    along,
    dot,
)
from edgemoe_models.exact.functions import sine_cosine, standard_normal, uniform, uniforms

CLASS_NAMES = ("sky", "ground", "road", "wall", "box", "sphere", "cylinder", "cone")
SKY, GROUND, ROAD, WALL, BOX, SPHERE, CYLINDER, CONE = range(len(CLASS_NAMES))

#: RGB of each class in pictures, uint8 [classes, 3].
PALETTE = np.array(
    [
        (135, 190, 235),
        (110, 150, 70),
        (110, 105, 115),
        (190, 150, 110),
        (215, 60, 50),
        (250, 200, 40),
        (70, 90, 200),
        (240, 130, 30),
    ],
    np.uint8,
)

#: Depth of the sky in metres; every surface is nearer, what would be farther is not drawn.
MAX_DEPTH = 10.0

#: Seeds of each split; they do not overlap.
SPLITS = {"train": range(1_000_000, 2_000_000), "val": range(0, 10_000), "demo": range(10_000, 11_000)}

_SOLIDS: dict[int, type[Box] | type[Sphere] | type[Cylinder] | type[Cone]] = {
    BOX: Box,
    SPHERE: Sphere,
    CYLINDER: Cylinder,
    CONE: Cone,
}
# Usual colours (RGB in 0..1) and textures of each class.
_USUAL: dict[int, tuple[tuple[tuple[float, float, float], ...], tuple[str, ...]]] = {
    GROUND: (((0.35, 0.5, 0.2), (0.55, 0.5, 0.3), (0.65, 0.6, 0.5)), ("noise", "checker")),
    ROAD: (((0.35, 0.35, 0.38), (0.25, 0.25, 0.28)), ("noise", "plain")),
    WALL: (((0.7, 0.35, 0.25), (0.75, 0.7, 0.6), (0.6, 0.6, 0.65)), ("bricks", "bricks", "noise")),
    BOX: (((0.6, 0.4, 0.2), (0.7, 0.15, 0.1)), ("stripes", "plain")),
    SPHERE: (((0.9, 0.8, 0.15), (0.85, 0.3, 0.6)), ("checker", "plain")),
    CYLINDER: (((0.2, 0.3, 0.75), (0.6, 0.65, 0.7)), ("bands", "plain")),
    CONE: (((0.95, 0.45, 0.1), (0.1, 0.45, 0.15)), ("bands", "noise")),
}
_TEXTURES = ("plain", "noise", "checker", "stripes", "bands", "bricks")


@dataclasses.dataclass(frozen=True)
class Scene:
    """A picture and its exact labels.

    image: uint8 [H, W, 3] RGB
    segmentation: uint8 [H, W], index into ``CLASS_NAMES``
    depth: float32 [H, W] metres along the optical axis; ``MAX_DEPTH`` for the sky
    normals: float32 [H, W, 3] outward unit normals in the camera frame (x right, y down, z forward); 0 for the sky
    edges: bool [H, W], true where the right or the lower neighbour is of another instance
    camera: the pinhole that saw it
    """

    image: npt.NDArray[np.uint8]
    segmentation: npt.NDArray[np.uint8]
    depth: Floats
    normals: Floats
    edges: npt.NDArray[np.bool_]
    camera: Camera


@dataclasses.dataclass(frozen=True)
class _Material:
    texture: str
    first: Floats
    second: Floats
    period: float
    salt: int

    def albedo(self, surface: Floats) -> Floats:
        """RGB [P, 3] in 0..1 at texture coordinates [P, 2] in metres."""
        mix = _pattern(self.texture, surface / np.float32(self.period), self.salt)[:, None]
        return self.first + (self.second - self.first) * mix


def _hash(i: npt.NDArray[np.int64], j: npt.NDArray[np.int64], salt: int) -> Floats:
    """Uniform values in 0..1 for integer lattice points."""
    mixed = (i * 73856093) ^ (j * 19349663) ^ (salt * 83492791)
    mixed = ((mixed ^ (mixed >> 13)) * 1274126177) & 0x7FFFFFFF
    return ((mixed ^ (mixed >> 16)) & 0xFFFF).astype(np.float32) / np.float32(65535)


def _parity(cells: Floats) -> Floats:
    """0 in even cells, 1 in odd ones."""
    parity: Floats = (cells % 2).astype(np.float32)
    return parity


def _pattern(texture: str, uv: Floats, salt: int) -> Floats:
    """Share of the second colour [P] at coordinates [P, 2] in periods."""
    u, v = uv[:, 0], uv[:, 1]
    if texture == "plain":
        return np.zeros(len(uv), np.float32)
    if texture == "noise":
        cell = np.floor(uv * 4).astype(np.int64)
        return _hash(cell[:, 0], cell[:, 1], salt)
    if texture == "checker":
        return _parity(np.floor(u) + np.floor(v))
    if texture == "stripes":
        return _parity(np.floor(u * 2))
    if texture == "bands":
        return _parity(np.floor(v * 2))
    row = np.floor(v * 2)
    brick = u + (row % 2) * np.float32(0.5)
    mortar = ((v * 2 - row) < 0.15) | ((brick - np.floor(brick)) < 0.08)
    shade = _hash(np.floor(brick).astype(np.int64), row.astype(np.int64), salt) * np.float32(0.35)
    return np.where(mortar, np.float32(1), shade)


def _material(rng: np.random.Generator, class_id: int, usual: bool) -> _Material:
    colours, textures = _USUAL[class_id]
    if usual:
        first = np.array(colours[rng.integers(len(colours))]) + uniforms(rng, -0.1, 0.1, 3)
        texture = textures[rng.integers(len(textures))]
    else:
        first = uniforms(rng, 0.1, 0.95, 3)
        texture = _TEXTURES[rng.integers(len(_TEXTURES))]
    contrast = uniform(rng, 0.5, 1.5)
    second = np.clip(first * contrast + uniforms(rng, -0.1, 0.1, 3), 0, 1)
    return _Material(
        texture,
        np.clip(first, 0, 1).astype(np.float32),
        second.astype(np.float32),
        float(uniform(rng, 0.3, 0.8)),
        int(rng.integers(1 << 30)),
    )


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Everything that a seed decides but the sensor noise. Instance 0 is the ground and the road."""

    camera: Camera
    solids: list[Solid]
    classes: list[int]
    materials: list[_Material]
    road: tuple[float, float, float]  # heading, offset and half width (0: none), in radians and metres
    road_material: _Material
    sun: Floats  # unit vector towards the sun
    ambient: float
    sky: Floats  # RGB at the horizon and above, [2, 3]


def _walls(rng: np.random.Generator, eye: float) -> tuple[list[Wall], float, list[float]]:
    """The walls, all higher than ``eye``, and how far objects may stand forward, and to the left and right."""
    back = Wall(uniform(rng, 4.5, 7.6), uniform(rng, -0.26, 0.26), eye + uniform(rng, 0.1, 1.0))
    walls, sides = [back], [math.inf, math.inf]
    for side, sign in enumerate((-1, 1)):
        if rng.random() < 0.4:
            distance = uniform(rng, 2.2, 4.0)
            walls.append(Wall(distance, sign * (math.pi / 2) + uniform(rng, -0.1, 0.1), eye + uniform(rng, 0.1, 1.0)))
            sides[side] = distance - 0.6
    return walls, back.distance - 1.0, sides


def _objects(rng: np.random.Generator, far: float, sides: list[float]) -> tuple[list[Solid], list[int]]:
    """Standing solids that do not touch each other, and their classes."""
    solids: list[Solid] = []
    classes: list[int] = []
    taken: list[tuple[float, float, float]] = []
    for _ in range(int(rng.integers(4, 9))):
        class_id = int(rng.choice([BOX, SPHERE, CYLINDER, CONE]))
        radius = uniform(rng, 0.3, 0.75)
        height = 2 * radius if class_id == SPHERE else uniform(rng, 0.5, 1.9)
        yaw, aspect = uniform(rng, -math.pi, math.pi), uniform(rng, 0.5, 1.6)
        for _ in range(12):
            y = uniform(rng, 2.0, far)
            x = uniform(rng, -1, 1) * (0.6 * y + 0.2)
            inside = -sides[0] + radius < x < sides[1] - radius
            if inside and all(_apart(x - a, y - b) > radius + r + 0.05 for a, b, r in taken):
                taken.append((x, y, radius))
                extra = {"aspect": aspect} if class_id == BOX else {}
                solids.append(_SOLIDS[class_id](x, y, radius, height, yaw, **extra))
                classes.append(class_id)
                break
    return solids, classes


def _apart(x: float, y: float) -> float:
    return math.sqrt(x * x + y * y)


def _layout(rng: np.random.Generator) -> _Layout:
    camera = Camera(uniform(rng, 1.3, 1.9), uniform(rng, 0.08, 0.26), 0.75)
    walls, far, sides = _walls(rng, camera.height)
    objects, object_classes = _objects(rng, far, sides)
    classes = [GROUND] + [WALL] * len(walls) + object_classes
    wall_material = _material(rng, WALL, True)
    materials = [_material(rng, GROUND, True)] + [wall_material] * len(walls)
    materials += [_material(rng, class_id, rng.random() < 0.5) for class_id in object_classes]
    half_width = uniform(rng, 0.4, 1.0) if rng.random() < 0.8 else 0.0
    elevation, azimuth = uniform(rng, 0.5, 1.2), uniform(rng, -math.pi, math.pi)
    (up, flat), (sin, cos) = sine_cosine(elevation), sine_cosine(azimuth)
    sun = np.array([flat * cos, flat * sin, up], np.float32)
    zenith = np.array([0.35, 0.55, 0.85]) + uniforms(rng, -0.15, 0.15, 3)
    horizon = np.array([0.75, 0.8, 0.9]) + uniforms(rng, -0.15, 0.1, 3)
    return _Layout(
        camera,
        [Ground(), *walls, *objects],
        classes,
        materials,
        (uniform(rng, -1.2, 1.2), uniform(rng, -1.0, 1.0), half_width),
        _material(rng, ROAD, True),
        sun,
        uniform(rng, 0.3, 0.5),
        np.clip([horizon, zenith], 0, 1).astype(np.float32),
    )


def _on_road(road: tuple[float, float, float], points: Floats) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Which ground points [P, 3] the road covers, and their coordinates across and along it [P, 2]."""
    heading, offset, half_width = road
    sin, cos = sine_cosine(heading)
    x, y = points[:, 0], points[:, 1] - np.float32(4)
    across = x * np.float32(cos) - y * np.float32(sin) - np.float32(offset)
    along = x * np.float32(sin) + y * np.float32(cos)
    return np.abs(across) < half_width, np.stack([across, along], 1)


def _shadowed(layout: _Layout, points: Floats, normals: Floats) -> npt.NDArray[np.bool_]:
    """Whether something stands between points [P, 3] and the sun."""
    start = points + normals * np.float32(2e-3)
    dark = np.zeros(len(points), bool)
    for solid in layout.solids[1:]:
        dark |= np.isfinite(solid.hit(start, layout.sun))
    return dark


def generate_scene(seed: int, height: int, width: int) -> Scene:
    """The scene of ``seed`` at ``height`` x ``width`` pixels; equal arguments give equal arrays.

    Raises:
        ValueError: a negative seed, or a size below 1.
    """
    if seed < 0:
        raise ValueError(f"seed must be at least 0, not {seed!r}")
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be at least 1, not {(height, width)!r}")
    rng = np.random.Generator(np.random.PCG64(seed))
    layout = _layout(rng)
    directions = layout.camera.directions(height, width)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return _render(layout, directions, rng, height, width)


def _render(layout: _Layout, directions: Floats, rng: np.random.Generator, height: int, width: int) -> Scene:
    origin = layout.camera.origin
    distances = np.stack([solid.hit(origin, directions) for solid in layout.solids])  # [solids, P]
    instance = distances.argmin(0)
    depth = distances.min(0)
    is_sky = ~(depth < MAX_DEPTH)
    instance[is_sky] = -1
    depth[is_sky] = MAX_DEPTH
    points = origin + directions * depth[:, None]
    segmentation = np.zeros(len(depth), np.uint8)
    normals = np.zeros((len(depth), 3), np.float32)
    colour = np.empty((len(depth), 3), np.float32)
    for index, solid in enumerate(layout.solids):
        here = np.flatnonzero(instance == index)
        if not here.size:
            continue
        normals[here] = solid.normal(points[here])
        segmentation[here] = layout.classes[index]
        colour[here] = layout.materials[index].albedo(solid.surface(points[here]))
    grounded = np.flatnonzero(instance == 0)
    covered, surface = _on_road(layout.road, points[grounded])
    road = grounded[covered]
    segmentation[road] = ROAD
    instance[road] = len(layout.solids)
    colour[road] = layout.road_material.albedo(surface[covered])
    colour[road[np.abs(surface[covered][:, 0]) > layout.road[2] - 0.08]] = np.float32(0.85)  # its white borders
    lit = np.flatnonzero(~is_sky)
    facing = np.maximum(dot(normals[lit], layout.sun), 0)
    facing[_shadowed(layout, points[lit], normals[lit])] = 0
    colour[lit] *= (np.float32(layout.ambient) + np.float32(0.75) * facing)[:, None]
    rise = np.clip(directions[is_sky, 2:] * 3, 0, 1)
    colour[is_sky] = layout.sky[0] + (layout.sky[1] - layout.sky[0]) * rise
    colour += standard_normal(rng, colour.shape, np.float32) * np.float32(0.012)
    image = np.clip(np.rint(colour * 255), 0, 255).astype(np.uint8)
    instances = instance.reshape(height, width)
    edges = np.zeros((height, width), bool)
    edges[:, :-1] |= instances[:, :-1] != instances[:, 1:]
    edges[:-1] |= instances[:-1] != instances[1:]
    return Scene(
        image.reshape(height, width, 3),
        segmentation.reshape(height, width),
        depth.reshape(height, width).astype(np.float32),
        along(normals, layout.camera.axes()).reshape(height, width, 3),
        edges,
        layout.camera,
    )
