"""Image files of any common kind as uint8 arrays of one shape."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import PIL
from PIL import Image, ImageOps

from kfusion.data.image_bands import (
    check_bands,
    check_picture_channels,
    is_grey,
    num_unread,
    range_of_alpha,
    resized,
    with_channels,
)
from kfusion.data.image_cache import ImageCache, default_cache_folder
from kfusion.data.lazy_rows import in_advance
from kfusion.progress import progress

MAX_INFERRED_SIDE = 256
MAX_LISTED = 1000
MAX_ROWS = 20
# The path of a bad image where the table names none.
NO_FILE = "(empty)"
# Those that strangers may send: others are rare, or hand the file to another program.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF")
_NUMPY_MAGIC = b"\x93NUMPY"
# So many images show whether an alpha band holds data.
_LOOKED_AT = 64
# What decoding depends on besides the file: a change here makes cached images unknown.
_DECODER = f"3 pillow {PIL.__version__}"
_BATCH = 256


class BadImage(NamedTuple):
    """A file that could not be read: its row (from 0), what the table says, and why."""

    row: int
    path: str
    reason: str


class BadImageError(ValueError):
    """Raised before any training when image files cannot be read.

    Attributes:
        bad_images: List of `BadImage`, every one of them.
    """

    def __init__(self, bad_images: Sequence[BadImage], num_rows: int):
        super().__init__(describe_bad_images(bad_images, num_rows))
        self.bad_images = list(bad_images)


def describe_bad_images(bad_images: Sequence[BadImage], num_rows: int) -> str:
    """One line per bad file, up to `MAX_LISTED`; rows that name none share one."""
    lines = [f"{len(bad_images)} of {num_rows} images cannot be read (rows count from 0):"]
    nameless: dict[str, list[int]] = {}
    for bad in bad_images:
        if bad.path == NO_FILE:
            nameless.setdefault(bad.reason, []).append(bad.row)
    for reason, rows in nameless.items():
        more = " ..." if len(rows) > MAX_ROWS else ""
        shown = ", ".join(map(str, rows[:MAX_ROWS]))
        lines.append(f"  row {shown}{more}: {NO_FILE}: {reason} ({len(rows)} in all)")
    files = [bad for bad in bad_images if bad.path != NO_FILE]
    lines += [f"  row {bad.row}: {bad.path}: {bad.reason}" for bad in files[:MAX_LISTED]]
    if len(files) > MAX_LISTED:
        lines.append(f"  and {len(files) - MAX_LISTED} more")
    return "\n".join(lines)


def read_image(path: str | os.PathLike, shape: tuple[int, int, int]) -> np.ndarray:
    """Reads one image file as `(height, width, channels)` uint8, resized to `shape`.

    See `read_images` for what becomes of each kind of file. Raises `ValueError` with the reason
    if it cannot be read.
    """
    with _pillow_warnings():
        return _decode(_read_bytes(os.fspath(path)), os.fspath(path), shape)


def decode_image(
    content: bytes, shape: tuple[int, int, int], *, max_pixels: int | None = None
) -> np.ndarray:
    """Decodes what one image file holds, as `read_images` does, resized to `shape`.

    Args:
        content: A PNG, JPEG, BMP, WebP, TIFF or GIF file, or what `numpy.save` writes.
        shape: `(height, width, channels)`.
        max_pixels: Int, the most that the image may have. Its header tells, before anything is
            decoded.

    Returns:
        `(height, width, channels)` uint8.

    Raises:
        ValueError: With the reason, if it cannot be decoded or is too large.
    """
    if content.startswith(_NUMPY_MAGIC):
        return _decode_array(content, shape)
    return _decode_picture(content, shape, formats=_FORMATS, max_pixels=max_pixels)


def read_images(
    paths: Sequence[str | os.PathLike],
    shape: tuple[int, int, int] | None = None,
    *,
    use_cache: bool = True,
    verbose: int | bool = 1,
) -> tuple[np.ndarray, list[BadImage]]:
    """Reads image files in parallel, resized to one shape.

    PNG, JPEG, BMP, WebP, TIFF and GIF (first frame) files, grey, palette, colour, with alpha,
    1-bit, 8-bit, 16-bit or floating point, are turned upright as EXIF says and resized. Alpha is
    laid over white unless 4 channels are asked for, or 2 of grey files: then it is a band like the
    others. Where no shape is given and alpha varies, a warning says so, for it may be data, such as
    a fourth band. 16-bit values are divided by 257; floating point is refused unless it lies in
    0-255. Arrays saved with `numpy.save` as
    `(height, width, channels)` uint8 are read too, with any number of channels.

    Results are kept on disk, keyed by the files' content and the shape, in `$KFUSION_CACHE` or
    the user's cache folder.

    Args:
        paths: File paths.
        shape: `(height, width, channels)`, or None to use the files' own: their common or
            median size, but no side above 256, and 1 channel if all are grey, else 3.
        use_cache: Whether to keep and look up decoded images.
        verbose: 0 hides the progress bar.

    Returns:
        `(images, bad_images)`: `(rows, height, width, channels)` uint8, zeros where a file was
        bad, and one `BadImage` per such file in row order.
    """
    files = [os.fspath(path) for path in paths]
    if shape is None:
        headers = read_headers(files, None, verbose)
        shape = shape_of_headers(headers)
        if shape is None:
            return np.zeros((len(files), 1, 1, 1), np.uint8), faults(files, headers)
        warn_of_alpha(files, headers, shape, stacklevel=3)
    shape = check_image_shape(shape)
    images = np.zeros((len(files), *shape), np.uint8)
    bad_images: list[BadImage] = []
    bar = progress(files, description="images", verbose=verbose)
    opened = (open_cache() if use_cache else None) or contextlib.nullcontext()
    with opened as cache, _workers() as pool, bar:
        for start in range(0, len(files), _BATCH):
            batch = files[start : start + _BATCH]
            for row, result in enumerate(read_batch(batch, shape, cache, pool.map), start):
                if isinstance(result, str):
                    bad_images.append(BadImage(row, files[row], result))
                else:
                    images[row] = result
            bar.advance(len(batch))
    warn_of_dark(images, stacklevel=3)
    return images, bad_images


def faults(files: Sequence[str], found: Sequence[Any]) -> list[BadImage]:
    """The files of which there is a reason in the place of what was looked for."""
    return [
        BadImage(row, files[row], told) for row, told in enumerate(found) if isinstance(told, str)
    ]


def warn_of_dark(images: np.ndarray, *, stacklevel: int) -> None:
    """Warns if no pixel is bright, as those of 12 bits in 16-bit files."""
    brightest = images.max(initial=0)
    if 0 < brightest <= 16:
        warnings.warn(
            f"No pixel of the {len(images)} images is above {brightest} of 255. If the files "
            "hold fewer than 16 bits in 16-bit values, stretch them to 0-65535 first.",
            stacklevel=stacklevel,
        )


def warn_of_alpha(
    files: Sequence[str],
    headers: Sequence[tuple[int, int, int] | str],
    shape: tuple[int, int, int],
    *,
    stacklevel: int,
) -> None:
    """Warns if bands that the files' own shape leaves out differ, as those that hold data do.

    Some of the files are looked at, evenly spaced: those with alpha are decoded for it.

    Args:
        files: Paths.
        headers: As from `read_headers`.
        shape: As from `shape_of_headers`.
        stacklevel: As of `warnings.warn`.
    """
    rows = [row for row, header in enumerate(headers) if not isinstance(header, str)]
    step = max(1, -(-len(rows) // _LOOKED_AT))
    ranges: dict[str, tuple[int, int]] = {}
    unread = ""
    with _pillow_warnings():
        for path in (files[row] for row in rows[::step]):
            found, is_whole = _look_at_alpha(path)
            if found is not None:
                ranges[path] = found
            unread = unread or ("" if is_whole else path)
    if unread:
        warnings.warn(
            f"{unread} has a fourth channel that Pillow does not read: it is left out. If it "
            "holds data, save such images with numpy.save.",
            stacklevel=stacklevel + 1,
        )
    if len({value for found in ranges.values() for value in found}) < 2:
        return
    lowest = min(ranges, key=lambda file: ranges[file][0])
    highest = max(ranges, key=lambda file: ranges[file][1])
    low, high = ranges[lowest][0], ranges[highest][1]
    shown = f"{low} in {lowest} and {high} in {highest}"
    size = f"{shape[0]}, {shape[1]}"
    kept = 2 if shape[2] == 1 else 4
    warnings.warn(
        f"Images have an alpha channel that varies, e.g. {shown}: it is laid "
        "over white, which changes the other channels, and is then gone. Does it hold data, such "
        f"as a band beside the colors? `image_shape=({size}, {kept})` keeps it; "
        f"`image_shape=({size}, {shape[2]})` says that it is no more than transparency.",
        stacklevel=stacklevel + 1,
    )


def rows_with_image(images: np.ndarray) -> Any:
    """`(rows,)` booleans: an image that holds zeros alone is missing."""
    return np.any(images.reshape(len(images), -1), axis=1)


def check_image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Returns `(height, width, channels)` as a tuple of ints or raises `ValueError`."""
    shape = tuple(shape) if np.iterable(shape) else (shape,)
    if len(shape) != 3 or not all(isinstance(n, (int, np.integer)) and n > 0 for n in shape):
        raise ValueError(
            "An image shape must be (height, width, channels), positive whole numbers. "
            f"Received: {shape}."
        )
    return shape


def open_cache() -> ImageCache | None:
    """The cache of decoded images; None with a warning if its folder cannot be used."""
    folder = default_cache_folder()
    try:
        return ImageCache(folder)
    except (OSError, sqlite3.Error) as error:
        warnings.warn(
            f"Images are decoded without a cache: {folder} cannot be used ({error}). Set "
            "KFUSION_CACHE to a folder that can be written, or pass `use_cache=False`.",
            stacklevel=3,
        )
        return None


@contextlib.contextmanager
def _workers() -> Iterator[ThreadPoolExecutor]:
    """Threads suffice: Pillow gives the interpreter free while it decodes."""
    with _pillow_warnings(), ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        yield pool


@contextlib.contextmanager
def _pillow_warnings() -> Iterator[None]:
    """Turns warnings of bombs into errors and hides others; not for use inside the threads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def read_batch(
    files: Sequence[str],
    shape: tuple[int, int, int],
    cache: ImageCache | None = None,
    each: Callable[..., Iterator] = map,
) -> list[np.ndarray | str]:
    """Each file's pixels, or the reason why there are none.

    Args:
        files: Paths.
        shape: `(height, width, channels)`.
        cache: Looked into first, and given what it lacks.
        each: `map`, or that of a pool of threads.
    """
    results: dict[int, np.ndarray | str] = {}
    new: dict[int, bytes] = {}
    for row, content in enumerate(each(_try_read_bytes, files)):
        pixels = cache.get(_key(content, shape)) if cache and isinstance(content, bytes) else None
        if isinstance(content, str):
            results[row] = content
        elif pixels is None:
            new[row] = content
        else:
            results[row] = np.frombuffer(pixels, np.uint8).reshape(shape)
    decoded = each(lambda row: _try_decode(new[row], files[row], shape), new)
    results.update(zip(new, decoded, strict=True))
    if cache:
        fresh = [(content, results[row]) for row, content in new.items()]
        cache.put(
            (_key(content, shape), pixels.tobytes())
            for content, pixels in fresh
            if not isinstance(pixels, str)
        )
    return [results[row] for row in range(len(files))]


def _key(content: bytes, shape: tuple[int, int, int]) -> bytes:
    digest = hashlib.blake2b(content, digest_size=20, salt=b"kfusion")
    digest.update(f"{shape} {_DECODER}".encode())
    return digest.digest()


def _read_bytes(path: str) -> bytes:
    with _open_file(path) as file:
        return file.read()


@contextlib.contextmanager
def _open_file(path: str) -> Iterator[BinaryIO]:
    if "://" in path[:12]:
        raise ValueError("it is a URL; download the images and give file paths")
    try:
        with open(path, "rb") as file:
            yield file
    except FileNotFoundError:
        raise ValueError("the file does not exist") from None
    except OSError as error:
        raise ValueError(f"the file cannot be opened ({error.strerror})") from None


def _try_read_bytes(path: str) -> bytes | str:
    try:
        return _read_bytes(path)
    except ValueError as error:
        return str(error)


def _try_decode(content: bytes, path: str, shape: tuple[int, int, int]) -> np.ndarray | str:
    """Pixels, or the reason why there are none."""
    try:
        return _decode(content, path, shape)
    except ValueError as error:
        return str(error)


def _decode(content: bytes, path: str, shape: tuple[int, int, int]) -> np.ndarray:
    if path.lower().endswith(".npy"):
        return _decode_array(content, shape)
    return _decode_picture(content, shape)


def _decode_picture(
    content: bytes,
    shape: tuple[int, int, int],
    *,
    formats: tuple[str, ...] | None = None,
    max_pixels: int | None = None,
) -> np.ndarray:
    height, width, channels = shape
    check_picture_channels(channels)
    with _open_image(io.BytesIO(content), formats) as image:
        check_bands(image, channels)
        if max_pixels is not None and image.width * image.height > max_pixels:
            raise ValueError(
                f"the image has {image.width} x {image.height} pixels, more than {max_pixels:,}"
            )
        # A JPEG of four times the size or more is decoded at a fraction of it.
        longest = 2 * max(height, width)
        image.draft(None, (longest, longest))
        flat = with_channels(ImageOps.exif_transpose(image), channels)
        return np.asarray(resized(flat, (width, height)), np.uint8).reshape(shape)


def _decode_array(content: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    array = _load_array(content)
    _check_channels(array.shape, shape)
    if array.shape == shape:
        return array
    size = (shape[1], shape[0])
    bands = [Image.fromarray(band) for band in np.ascontiguousarray(np.moveaxis(array, 2, 0))]
    resized = [band.resize(size, Image.Resampling.BILINEAR) for band in bands]
    return np.stack([np.asarray(band) for band in resized], axis=-1)


def _check_channels(found: tuple[int, int, int], shape: tuple[int, int, int]) -> None:
    if found[2] != shape[2]:
        raise ValueError(f"the array has {found[2]} channels, not {shape[2]}")


def _load_array(content: bytes) -> np.ndarray:
    try:
        array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # As with Pillow's plugins: whatever a damaged header leads to.
        raise ValueError(f"the file is no NumPy array ({error})") from None
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.dtype != np.uint8 or not array.size:
        raise ValueError(
            f"the array must be (height, width, channels) uint8; it is {array.shape} {array.dtype}"
        )
    return array


@contextlib.contextmanager
def _open_image(file: BinaryIO, formats: tuple[str, ...] | None = None) -> Iterator[Image.Image]:
    """Opens an image; every failure becomes one `ValueError` with the reason."""
    if not file.seek(0, os.SEEK_END):
        raise ValueError("the file is empty")
    file.seek(0)
    try:
        with Image.open(file, formats=formats) as image:
            # Pillow itself only warns of these, and warnings are no matter of threads.
            most = Image.MAX_IMAGE_PIXELS
            if most is not None and image.width * image.height > most:
                raise Image.DecompressionBombError
            yield image
    except ValueError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(
            f"the image has more than {Image.MAX_IMAGE_PIXELS} pixels (a decompression bomb?); "
            "raise PIL.Image.MAX_IMAGE_PIXELS if it is meant"
        ) from None
    except PIL.UnidentifiedImageError:
        raise ValueError("the file is not an image of a known kind") from None
    except Exception as error:  # Pillow's plugins raise whatever the damage led to.
        raise ValueError(f"the file is truncated or damaged ({error})") from None


def read_headers(
    paths: Sequence[str], shape: tuple[int, int, int] | None, verbose: int | bool
) -> list[tuple[int, int, int] | str]:
    """Shapes as files tell them, or the reason why one cannot be read (as `shape`, if given)."""

    def read(start: int) -> list[tuple[int, int, int] | str]:
        return [_try_header(path, shape) for path in paths[start : start + _BATCH]]

    found: list[tuple[int, int, int] | str] = []
    bar = progress(paths, description="image sizes", verbose=verbose)
    with _pillow_warnings(), bar:
        for part in in_advance(read, range(0, len(paths), _BATCH)):
            found += part
            bar.advance(len(part))
    return found


def shape_of_headers(
    headers: Sequence[tuple[int, int, int] | str],
) -> tuple[int, int, int] | None:
    """The shape that suits the files; None if none is good."""
    shapes = [header for header in headers if not isinstance(header, str)]
    if not shapes:
        return None
    height, width = np.median([shape[:2] for shape in shapes], axis=0)
    shrink = min(1.0, MAX_INFERRED_SIDE / max(height, width))
    height, width = max(1, round(height * shrink)), max(1, round(width * shrink))
    return height, width, max(shape[2] for shape in shapes)


def _look_at_alpha(path: str) -> tuple[tuple[int, int] | None, bool]:
    """The range of a file's alpha, if it has one, and whether all its channels can be read."""
    if path.lower().endswith(".npy"):
        return None, True
    try:
        with _open_file(path) as file, _open_image(file) as image:
            return range_of_alpha(image), not num_unread(image)
    except ValueError:
        # Told where all files are decoded.
        return None, True


def _try_header(path: str, shape: tuple[int, int, int] | None) -> tuple[int, int, int] | str:
    try:
        if path.lower().endswith(".npy"):
            found = _load_array(_read_bytes(path)).shape
            if shape is not None:
                _check_channels(found, shape)
            return found
        if shape is not None:
            check_picture_channels(shape[2])
        with _open_file(path) as file, _open_image(file) as image:
            if shape is not None:
                check_bands(image, shape[2])
            width, height = image.size
            # Of a shape that is given the orientation says nothing, and a PNG is decoded for it.
            if shape is None and image.getexif().get(0x0112, 1) >= 5:
                width, height = height, width  # EXIF orientations that lie on their side
            return height, width, 1 if is_grey(image) else 3
    except ValueError as error:
        return str(error)
