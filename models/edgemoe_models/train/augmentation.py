"""Strong changes of pictures and their labels, as little data asks for; on the device that trains, without waiting.

Drawn with the device's own generator: nothing is copied to a GPU, and nothing read back.
"""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemoe_models.datasets.arrays import IGNORE

#: Largest change of a side's ratio, and of a picture's whole size down and up.
_ASPECT, _SMALLEST = 1.2, 0.75
_TURN = math.radians(5)
_GREY = 0.1  # share of pictures without colour


@dataclasses.dataclass(frozen=True)
class Strong:
    """Scale and crop, turn, mirror, colour; then rectangles of other pictures, or whole ones mixed in.

    Attributes:
        zoom: largest scale; at its inverse, or at 0.75, pictures are the smallest, with no label around them
        mix: share of the pictures that get a rectangle of another one with its labels (Yun et al. 2019)
        mixup: alpha of the Beta distribution of the shares in which two pictures and their classes are mixed (Zhang et
            al. 2018); 0: none. Of classes of whole pictures only
        classes: their number, of whole pictures
    """

    zoom: float = 2.0
    mix: float = 0.0
    mixup: float = 0.0
    classes: int = 0

    def apply(self, images: Tensor, classes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Changed pictures and classes.

        Args:
            images: float [B, 3, H, W] in 0..1
            classes: uint8 [B, H, W], ``IGNORE`` without a label
            generator: of the pictures' device
        """
        grid = self._grid(images, generator)
        images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        # What lies outside is sampled as 0, so that classes count from 1.
        moved = F.grid_sample(classes[:, None].float() + 1, grid, mode="nearest", align_corners=False)[:, 0] - 1
        classes = torch.where(moved < 0, float(IGNORE), moved).to(torch.uint8)
        images = _coloured(images, generator)
        if not self.mix:
            return images, classes
        inside = _rectangles(images, self.mix, generator)
        images = torch.where(inside[:, None], images.roll(1, 0), images)
        return images, torch.where(inside, classes.roll(1, 0), classes)

    def apply_whole(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Changed pictures whose classes are one each, then ``mix_whole``.

        Args:
            images: float [B, 3, H, W] in 0..1
            labels: int64 [B]
            generator: of the pictures' device
        """
        grid = self._grid(images, generator)
        images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        return self.mix_whole(_coloured(images, generator), labels, generator)

    def mix_whole(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Pictures mixed with the next of the batch: a rectangle's class counts by its area, a whole picture's by its
        share.

        Returns:
            Pictures, and classes as they were [B], or their shares [B, classes] where pictures may be mixed
        """
        if not (self.mix or self.mixup):
            return images, labels
        shares = F.one_hot(labels, self.classes).float()
        if self.mix:
            inside = _rectangles(images, self.mix, generator)
            images = torch.where(inside[:, None], images.roll(1, 0), images)
            shares = torch.lerp(shares, shares.roll(1, 0), inside.float().mean((1, 2))[:, None])
        if self.mixup:
            # Beta(a, a) of two gamma draws; torch.distributions takes no generator.
            one, other = torch._standard_gamma(images.new_full((2, len(images)), self.mixup), generator=generator)
            others = (other / (one + other)).nan_to_num(0.0)
            images = torch.lerp(images, images.roll(1, 0), others.view(-1, 1, 1, 1))
            shares = torch.lerp(shares, shares.roll(1, 0), others[:, None])
        return images, shares

    def _grid(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Where each new pixel comes from [B, H, W, 2], in -1..1."""
        count, _, height, width = images.shape
        scale, aspect, turn, x, y, mirror = torch.rand(6, count, generator=generator, device=images.device)
        low, high = math.log(max(_SMALLEST, 1 / self.zoom)), math.log(self.zoom)
        scale = torch.exp(low + (high - low) * scale)
        aspect = torch.exp(math.log(_ASPECT) * (aspect - 0.5))
        wide, high_ = 1 / (scale * aspect), aspect / scale  # the window's half sides
        sign = torch.where(mirror < 0.5, -1.0, 1.0)
        turn = _TURN * (2 * turn - 1)
        cos, sin, ratio = turn.cos(), turn.sin(), height / width
        # A window wholly inside the picture, or the picture wholly inside the window.
        shift_x, shift_y = (2 * x - 1) * (1 - wide).abs(), (2 * y - 1) * (1 - high_).abs()
        rows = [
            torch.stack([sign * wide * cos, -wide * sin * ratio, shift_x], 1),
            torch.stack([sign * high_ * sin / ratio, high_ * cos, shift_y], 1),
        ]
        return F.affine_grid(torch.stack(rows, 1), [count, 3, height, width], align_corners=False)


def _coloured(images: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast, saturation, tint and, of some, no colour at all."""
    count, device = len(images), images.device
    draws = torch.rand(7, count, 1, 1, 1, generator=generator, device=device)
    tint = 0.9 + 0.2 * draws[:3, :, 0].transpose(0, 1)  # [B, 3, 1, 1]
    grey = images.mean(1, keepdim=True)
    saturation = torch.where(draws[3] < _GREY, 0.0, 0.5 + draws[4])
    images = grey + (images - grey) * saturation
    contrast, brightness = 0.7 + 0.6 * draws[5], 0.3 * (draws[6] - 0.5)
    middle = grey.mean((2, 3), keepdim=True)
    return ((images * tint - middle) * contrast + middle + brightness).clamp(0, 255 / 256)


def _rectangles(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Where the next picture of the batch is pasted, into ``share`` of them: bool [B, H, W]."""
    count, _, height, width = images.shape
    device = images.device
    draws = torch.rand(5, count, 1, generator=generator, device=device)
    sides = 0.2 + 0.5 * draws[:2]
    starts = draws[2:4] * (1 - sides)
    rows = torch.arange(height, device=device) / height
    columns = torch.arange(width, device=device) / width
    inside_y = (rows >= starts[0]) & (rows < starts[0] + sides[0])  # [B, H]
    inside_x = (columns >= starts[1]) & (columns < starts[1] + sides[1])
    return inside_y[:, :, None] & inside_x[:, None, :] & (draws[4] < share)[:, :, None]


def class_borders(classes: Tensor) -> Tensor:
    """``datasets.files.class_borders`` of a batch: uint8 [B, H, W] -> bool [B, H, W]."""
    labelled = classes != IGNORE
    right = (classes[:, :, :-1] != classes[:, :, 1:]) & labelled[:, :, :-1] & labelled[:, :, 1:]
    below = (classes[:, :-1] != classes[:, 1:]) & labelled[:, :-1] & labelled[:, 1:]
    return F.pad(right, (0, 1)) | F.pad(below, (0, 0, 0, 1))
