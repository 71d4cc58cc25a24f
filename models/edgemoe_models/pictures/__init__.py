"""The one reader of pictures: for ``run``, streams, the demo, calibration and data sets. Rules: docs/runtime.md.

What a file holds decides how it is read, never its suffix. Pillow is imported only when a file needs it, or a size has
to change; arrays of the right size do without.
"""

from edgemoe_models.pictures.files import PICTURE_SUFFIXES, PictureError, kind_of, picture_files, shown
from edgemoe_models.pictures.fitting import RESIZES, Resize, check_resize, fit
from edgemoe_models.pictures.notes import Notes, PictureWarning
from edgemoe_models.pictures.opening import FORMATS, MAX_PIXELS
from edgemoe_models.pictures.reading import read_picture, read_values, size_of

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "PICTURE_SUFFIXES",
    "RESIZES",
    "Notes",
    "PictureError",
    "PictureWarning",
    "Resize",
    "check_resize",
    "fit",
    "kind_of",
    "picture_files",
    "read_picture",
    "read_values",
    "shown",
    "size_of",
]
