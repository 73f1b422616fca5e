"""Which bands a picture's file has, which were asked for, and how one becomes the other."""

from __future__ import annotations

import numpy as np
from PIL import Image

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
# Other numbers of channels come as arrays.
PICTURE_CHANNELS = tuple(_MODES)
_GREY_WITH_ALPHA = ("LA", "La")
_WITH_ALPHA = (*_GREY_WITH_ALPHA, "PA", "RGBA", "RGBa")
_SAMPLES_PER_PIXEL = 277


def check_picture_channels(channels: int) -> None:
    """Raises `ValueError` if no picture has so many channels."""
    if channels not in _MODES:
        raise ValueError(
            f"the file is a picture, which has 1, 2, 3 or 4 channels, not {channels}; save other "
            "numbers of channels with numpy.save"
        )


def check_bands(image: Image.Image, channels: int) -> None:
    """Raises `ValueError` if bands would be mixed or lost that were asked for one by one.

    A picture of colors or greys without alpha is opaque: asked for with alpha, it has 255 there.
    """
    if channels == 4 and image.mode in _GREY_WITH_ALPHA:
        raise ValueError(
            "the picture has 2 channels, grey and alpha, not 4; ask for 2, or for 1 or 3, which "
            "lay alpha over white"
        )
    if channels == 2 and not is_grey(image):
        found = 4 if image.mode in _WITH_ALPHA else 3
        raise ValueError(f"the picture has {found} channels, not 2")
    if channels == 4 and image.mode == "CMYK":
        raise ValueError(
            "the picture has 4 channels of printing inks (CMYK), which are no colors and alpha; "
            "ask for 3, or save its channels with numpy.save"
        )
    if channels == 4 and num_unread(image):
        raise ValueError(
            f"the file has {len(image.getbands()) + num_unread(image)} channels, of which Pillow "
            f"reads {len(image.getbands())}; save it as PNG with alpha, or with numpy.save"
        )


def is_grey(image: Image.Image) -> bool:
    """Whether a picture has no colours, whatever its depth."""
    return image.mode in ("1", "L", *_GREY_WITH_ALPHA, "F") or image.mode.startswith("I")


def num_unread(image: Image.Image) -> int:
    """How many bands of a file Pillow leaves out: a TIFF's fourth that is not called alpha."""
    tags = getattr(image, "tag_v2", None) or {}
    if image.mode != "RGB" or image.format != "TIFF":
        return 0
    return max(0, tags.get(_SAMPLES_PER_PIXEL, 3) - 3)


def range_of_alpha(image: Image.Image) -> tuple[int, int] | None:
    """The least and the largest value of a picture's alpha band; None if it has none."""
    if image.mode not in _WITH_ALPHA:
        return None
    low, high = image.getchannel(len(image.getbands()) - 1).getextrema()
    return int(low), int(high)  # type: ignore[arg-type]


def with_channels(image: Image.Image, channels: int) -> Image.Image:
    """Converts a picture of any mode to 8 bits and so many channels.

    Raises:
        ValueError: If it is not known how its values become 0-255.
    """
    mode = _MODES[channels]
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bits(image)
    keeps_alpha = mode in _WITH_ALPHA
    if not keeps_alpha and (image.has_transparency_data or image.mode in _WITH_ALPHA):
        colour = image.convert("RGBA")
        image = Image.new("RGBA", colour.size, "white")
        image.alpha_composite(colour)
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A picture in another size, `(width, height)`, each band by itself.

    Pillow weights colours by alpha, which takes those away where a band of data is 0.
    """
    if image.size == size:
        return image
    bands = [
        band.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0) for band in image.split()
    ]
    return Image.merge(image.mode, bands)


def _to_8_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image, np.float64)
    low, high = float(np.min(values)), float(np.max(values))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("the image holds NaN or infinite values")
    if image.mode == "F":
        if low < 0 or high > 255 or 0 < high <= 1:
            raise ValueError(
                f"the image holds floating point values from {low:g} to {high:g}; store 0-255"
            )
    elif low < 0 or high > 65535:
        raise ValueError(f"the image holds values from {low:g} to {high:g}, not 0 to 65535")
    else:
        values = values / 257
    return Image.fromarray(np.round(values).astype(np.uint8))
