"""Image files of every kind: what their pixels become, and why some cannot be read."""

import pickle
import re
import sqlite3
import warnings

import numpy as np
import pytest
from PIL import Image

from kfusion.data import images as images_module
from kfusion.data.images import (
    BadImage,
    BadImageError,
    check_image_shape,
    describe_bad_images,
    read_image,
    read_images,
)
from kfusion.data.streamed_images import stream_images

RED, GREEN, BLUE, WHITE = [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]
COLOURS = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8)


def read_quietly(paths, shape=None, **arguments):
    return read_images([str(path) for path in paths], shape, verbose=0, **arguments)


def save(image, path, **arguments):
    image.save(path, **arguments)
    return path


def save_blocks(path, **arguments):
    """Four blocks of 8 x 8 pixels, so that lossy formats keep their colours."""
    blocks = COLOURS.repeat(8, axis=0).repeat(8, axis=1)
    return save(Image.fromarray(blocks), path, **arguments)


@pytest.mark.parametrize(
    "name", ["a.png", "a.jpg", "a.bmp", "a.webp", "a.tiff", "a.tif", "a.gif", "no_extension"]
)
def test_colours_survive_every_common_kind_of_file(tmp_path, name):
    path = save_blocks(tmp_path / name, format=None if "." in name else "PNG")
    pixels = read_image(path, (16, 16, 3))
    assert pixels.dtype == np.uint8
    centres = pixels[4::8, 4::8].astype(int)
    np.testing.assert_allclose(centres, COLOURS, atol=20)


@pytest.mark.parametrize("mode", ["P", "RGBA", "RGB"])
def test_palettes_and_opaque_alpha_change_no_colour(tmp_path, mode):
    path = save(Image.fromarray(COLOURS).convert(mode), tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(path, (2, 2, 3)), COLOURS)


def test_alpha_is_laid_over_white(tmp_path):
    pixels = np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [255, 0, 0, 51]]], np.uint8)
    path = save(Image.fromarray(pixels), tmp_path / "a.png")
    # A fifth of red over white: 255 - 51 = 204 in green and blue.
    expected = [[WHITE, [0, 0, 0], [255, 204, 204]]]
    np.testing.assert_array_equal(read_image(path, (1, 3, 3)), expected)


def test_alpha_is_kept_where_four_channels_are_asked_for(tmp_path):
    pixels = np.random.default_rng(0).integers(1, 256, size=(3, 3, 4), dtype=np.uint8)
    path = save(Image.fromarray(pixels), tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(path, (3, 3, 4)), pixels)


def save_bands(folder, num_bands, count=3, size=(9, 7)):
    """Pictures whose bands are noise, as PNG and as arrays; returns the paths of both."""
    pixels = np.random.default_rng(0).integers(256, size=(count, *size, num_bands), dtype=np.uint8)
    pictures, arrays = [], []
    for row, image in enumerate(pixels):
        pictures.append(save(Image.fromarray(image), folder / f"{row}.png"))
        arrays.append(folder / f"{row}.npy")
        np.save(arrays[-1], image)
    return pictures, arrays


READERS = [read_images, lambda *arguments, **keywords: whole(stream_images(*arguments, **keywords))]


def whole(streamed):
    return streamed[0][:], streamed[1]


@pytest.mark.parametrize("num_bands", [2, 4])
@pytest.mark.parametrize("size", [(9, 7), (4, 3)])
@pytest.mark.parametrize("read", READERS)
def test_bands_saved_as_alpha_are_read_as_those_of_an_array(tmp_path, num_bands, size, read):
    pictures, arrays = save_bands(tmp_path, num_bands)
    shape = (*size, num_bands)
    found, bad = read(pictures, shape, verbose=0)
    assert bad == []
    expected = read_quietly(arrays, shape)[0]
    # Of pictures that shrink a lot, Pillow takes a first step that rounds.
    np.testing.assert_allclose(found.astype(int), expected, atol=0 if size == (9, 7) else 2)


@pytest.mark.parametrize(("num_bands", "left"), [(2, 1), (4, 3)])
@pytest.mark.parametrize("read", READERS)
def test_alpha_that_varies_is_told_with_what_keeps_it(tmp_path, num_bands, left, read):
    pictures, _ = save_bands(tmp_path, num_bands)
    kept, laid = re.escape(f"(9, 7, {num_bands})"), re.escape(f"(9, 7, {left})")
    named = "alpha channel that varies, e.g. .*png and .*png"
    with pytest.warns(UserWarning, match=f"{named}.*`image_shape={kept}` keeps.*=.*{laid}"):
        images, _ = read(pictures, None, verbose=0)
    assert images.shape == (3, 9, 7, left)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked, _ = read(pictures, (9, 7, left), verbose=0)
    np.testing.assert_array_equal(asked, images)


@pytest.mark.parametrize("alpha", [255, 90])
@pytest.mark.parametrize("read", READERS)
def test_alpha_that_is_the_same_everywhere_is_left_out_without_a_word(tmp_path, alpha, read):
    pixels = np.random.default_rng(0).integers(256, size=(4, 4, 4), dtype=np.uint8)
    pixels[..., 3] = alpha
    paths = [save(Image.fromarray(pixels), tmp_path / f"{row}.png") for row in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(paths, None, verbose=0)[0].shape == (2, 4, 4, 3)


@pytest.mark.parametrize(
    ("num_bands", "asked", "message"),
    [
        (2, 4, "the picture has 2 channels, grey and alpha, not 4; ask for 2"),
        (3, 2, "the picture has 3 channels, not 2"),
        (4, 2, "the picture has 4 channels, not 2"),
    ],
)
@pytest.mark.parametrize("read", READERS)
def test_bands_that_a_picture_lacks_are_told(tmp_path, num_bands, asked, message, read):
    pictures, _ = save_bands(tmp_path, num_bands)
    bad = read(pictures, (9, 7, asked), verbose=0)[1]
    assert [each.row for each in bad] == [0, 1, 2]
    assert message in bad[0].reason


@pytest.mark.parametrize("read", READERS)
def test_inks_are_no_colors_and_alpha(tmp_path, read):
    path = save(Image.new("CMYK", (7, 9), (10, 20, 30, 40)), tmp_path / "a.tiff")
    (bad,) = read([path], (9, 7, 4), verbose=0)[1]
    assert "4 channels of printing inks (CMYK)" in bad.reason
    assert read([path], (9, 7, 3), verbose=0)[1] == []


@pytest.mark.parametrize("read", READERS)
def test_alpha_that_differs_between_files_is_told_of_two(tmp_path, read):
    paths = [
        save(Image.new("RGBA", (4, 4), (9, 9, 9, alpha)), tmp_path / f"{alpha}.png")
        for alpha in (200, 0, 255)
    ]
    with pytest.warns(UserWarning, match="varies, e.g. 0 in .*0.png and 255 in .*255.png: it is"):
        read(paths, None, verbose=0)


def test_a_fourth_band_that_is_not_called_alpha_is_told(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(4, 4, 4), dtype=np.uint8)
    path = tmp_path / "a.tiff"
    Image.merge("RGBX", Image.fromarray(pixels).split()).save(path)
    with pytest.warns(UserWarning, match="a.tiff has a fourth channel that Pillow does not read"):
        assert read_quietly([path])[0].shape == (1, 4, 4, 3)
    assert "save it as PNG with alpha" in read_quietly([path], (4, 4, 4))[1][0].reason


def test_a_transparent_palette_entry_becomes_white(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([*RED, *BLUE])
    path = save(image, tmp_path / "a.png", transparency=0)
    np.testing.assert_array_equal(read_image(path, (1, 2, 3)), [[WHITE, BLUE]])


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_16_bit_grey_is_scaled_to_8_bits(tmp_path, name):
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    path = save(Image.fromarray(values), tmp_path / name)
    assert read_image(path, (1, 4, 1)).ravel().tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_1_bit_images_become_black_and_white(tmp_path, name):
    image = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert read_image(save(image, tmp_path / name), (1, 2, 1)).ravel().tolist() == [0, 255]


def test_floating_point_in_0_to_255_is_rounded(tmp_path):
    path = save(Image.fromarray(np.array([[0, 1.6, 255]], np.float32)), tmp_path / "a.tiff")
    assert read_image(path, (1, 3, 1)).ravel().tolist() == [0, 2, 255]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0, 0.5, 1]], np.float32), "floating point values from 0 to 1; store 0-255"),
        (np.array([[-3, 5]], np.float32), "floating point values from -3 to 5"),
        (np.array([[np.nan, 5]], np.float32), "NaN or infinite"),
        (np.array([[0, 70_000]], np.int32), "values from 0 to 70000, not 0 to 65535"),
    ],
)
def test_pixels_whose_range_is_unclear_are_refused(tmp_path, values, message):
    path = save(Image.fromarray(values), tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=message):
        read_image(path, (1, 2, 1))


def test_grey_files_make_three_equal_channels_where_asked_for(tmp_path):
    path = save(Image.fromarray(np.array([[7, 200]], np.uint8)), tmp_path / "a.png")
    assert read_image(path, (1, 2, 3)).tolist() == [[[7] * 3, [200] * 3]]


def test_colour_becomes_grey_by_luma(tmp_path):
    path = save(Image.fromarray(COLOURS), tmp_path / "a.png")
    # ITU-R 601: 0.299 red + 0.587 green + 0.114 blue.
    assert read_image(path, (2, 2, 1)).ravel().tolist() == pytest.approx([76, 150, 29, 255], abs=1)


def test_photographs_are_turned_upright_as_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # Turn clockwise to see it upright.
    path = save(Image.fromarray(COLOURS), tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(path, (2, 2, 3)), np.rot90(COLOURS, -1))


def test_the_shape_inferred_for_a_turned_photograph_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(Image.new("RGB", (30, 10), "white"), tmp_path / "a.jpg", exif=exif)
    assert read_quietly([path])[0].shape == (1, 30, 10, 3)


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    path = save(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(path, (1, 1, 3)).tolist() == [[RED]]


def test_a_constant_image_stays_so_when_resized(tmp_path):
    path = save(Image.new("RGB", (50, 30), (10, 20, 30)), tmp_path / "a.png")
    assert (read_image(path, (7, 9, 3)) == [10, 20, 30]).all()


def test_arrays_hold_any_number_of_channels(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(3, 4, 5), dtype=np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy", (3, 4, 5)), pixels)
    read, bad = read_quietly([tmp_path / "a.npy"])
    assert bad == []
    np.testing.assert_array_equal(read, pixels[None])


def test_arrays_are_resized_channel_by_channel(tmp_path):
    np.save(tmp_path / "a.npy", np.full((4, 6, 5), [10, 20, 30, 40, 50], np.uint8))
    resized = read_image(tmp_path / "a.npy", (2, 3, 5))
    assert (resized == [10, 20, 30, 40, 50]).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2, 3)), r"must be \(height, width, channels\) uint8; it is .* float64"),
        (np.zeros((1, 2, 2, 3), np.uint8), r"it is \(1, 2, 2, 3\) uint8"),
        (np.zeros((0, 0, 3), np.uint8), r"it is \(0, 0, 3\) uint8"),
        (np.zeros((2, 2, 4), np.uint8), "the array has 4 channels, not 3"),
        (np.array([object()]), "Object arrays cannot be loaded"),
    ],
)
def test_arrays_that_are_no_image_are_refused(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=message):
        read_image(tmp_path / "a.npy", (2, 2, 3))


class Harmful:
    """Its unpickling would raise an error that nothing catches."""

    def __reduce__(self):
        return (exec, ("raise SystemExit",))


def harmful_array():
    header = b"\x93NUMPY\x01\x00\x36\x00{'descr': '|O', 'fortran_order': False, 'shape': ()}"
    return header.ljust(63) + b"\n" + pickle.dumps(Harmful())


@pytest.mark.parametrize(
    "content", [harmful_array(), pickle.dumps(Harmful()), b"PK\x03\x04zip", b""]
)
def test_array_files_never_run_what_they_hold(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match="the file is no NumPy array"):
        read_image(tmp_path / "a.npy", (2, 2, 3))


def test_every_file_that_cannot_be_read_is_reported_with_its_row_and_reason(tmp_path):
    good = save_blocks(tmp_path / "good.png")
    (tmp_path / "truncated.png").write_bytes(good.read_bytes()[:-40])
    (tmp_path / "truncated.jpg").write_bytes(
        save_blocks(tmp_path / "whole.jpg").read_bytes()[:-200]
    )
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "folder.png").mkdir()
    names = {
        "missing.png": "the file does not exist",
        "good.png": None,
        "truncated.png": "truncated or damaged",
        "truncated.jpg": "truncated or damaged",
        "empty.png": "the file is empty",
        "text.png": "not an image of a known kind",
        "folder.png": "cannot be opened (Is a directory)",
        "http://a.b/c.png": "it is a URL",
    }
    paths = [name if "://" in name else str(tmp_path / name) for name in names]
    images, bad_images = read_quietly(paths, (16, 16, 3))
    assert [(bad.row, bad.path) for bad in bad_images] == [
        (row, path) for row, path in enumerate(paths) if row != 1
    ]
    for bad, reason in zip(bad_images, filter(None, names.values()), strict=True):
        assert reason in bad.reason
    assert images[1, 0, 0].tolist() == RED
    assert not images[[0, *range(2, len(names))]].any()


def test_without_a_shape_nor_a_good_file_every_file_is_reported(tmp_path):
    bad_images = read_quietly([tmp_path / "a.png", tmp_path / "b.npy"])[1]
    assert [bad.row for bad in bad_images] == [0, 1]


@pytest.mark.parametrize("limit", [200, 100])
@pytest.mark.parametrize("shape", [(16, 16, 3), None])
def test_decompression_bombs_are_refused(tmp_path, monkeypatch, limit, shape):
    path = save_blocks(tmp_path / "a.png")  # 256 pixels
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    bad_images = read_quietly([path], shape)[1]
    assert f"more than {limit} pixels (a decompression bomb?)" in bad_images[0].reason


def test_channels_that_a_picture_cannot_have_are_refused(tmp_path):
    path = save_blocks(tmp_path / "a.png")
    with pytest.raises(ValueError, match="has 1, 2, 3 or 4 channels, not 5; save other numbers"):
        read_image(path, (16, 16, 5))


@pytest.mark.parametrize(
    ("sizes", "modes", "shape"),
    [
        ([(10, 20), (10, 20)], ["L", "L"], (20, 10, 1)),
        ([(10, 20), (10, 20)], ["L", "RGB"], (20, 10, 3)),
        ([(10, 20), (30, 20), (30, 26)], ["RGBA"] * 3, (20, 30, 3)),
        ([(1024, 512)], ["1"], (128, 256, 1)),
        ([(300, 1)], ["L"], (1, 256, 1)),
        ([(4, 4)], ["I;16"], (4, 4, 1)),
    ],
)
def test_the_shape_is_the_median_size_of_the_files_but_not_large(tmp_path, sizes, modes, shape):
    paths = [
        save(Image.new(mode, size, 65535 if mode == "I;16" else "white"), tmp_path / f"{row}.png")
        for row, (size, mode) in enumerate(zip(sizes, modes, strict=True))
    ]
    assert read_quietly(paths)[0].shape == (len(sizes), *shape)


def test_paths_may_be_path_objects(tmp_path):
    images, _ = read_images([save_blocks(tmp_path / "a.png")], (16, 16, 3), verbose=0)
    assert images[0, 0, 0].tolist() == RED


def test_many_files_stay_in_their_order(tmp_path):
    for row in range(600):
        np.save(tmp_path / f"{row}.npy", np.full((1, 1, 2), [row % 256, row // 256], np.uint8))
    images, _ = read_quietly([tmp_path / f"{row}.npy" for row in range(600)])
    np.testing.assert_array_equal(images[:, 0, 0] @ [1, 256], np.arange(600))


def count_decodes(monkeypatch):
    decoded = []
    decode = images_module._decode

    def counted(content, path, shape):
        decoded.append(path)
        return decode(content, path, shape)

    monkeypatch.setattr(images_module, "_decode", counted)
    return decoded


def test_a_second_reading_decodes_nothing_and_gives_the_same(tmp_path, monkeypatch):
    path = save_blocks(tmp_path / "a.jpg")
    first, _ = read_quietly([path], (5, 7, 3))
    decoded = count_decodes(monkeypatch)
    np.testing.assert_array_equal(read_quietly([path], (5, 7, 3))[0], first)
    assert decoded == []


def test_changed_content_and_other_shapes_are_not_taken_from_the_cache(tmp_path):
    path = save(Image.new("RGB", (4, 4), "red"), tmp_path / "a.png")
    read_quietly([path], (4, 4, 3))
    assert read_quietly([path], (2, 2, 3))[0].shape == (1, 2, 2, 3)
    save(Image.new("RGB", (4, 4), "blue"), path)
    assert read_quietly([path], (4, 4, 3))[0][0, 0, 0].tolist() == BLUE


def test_without_the_cache_nothing_is_kept(tmp_path, monkeypatch, image_cache_folder):
    path = save_blocks(tmp_path / "a.png")
    decoded = count_decodes(monkeypatch)
    for _ in range(2):
        read_quietly([path], (4, 4, 3), use_cache=False)
    assert len(decoded) == 2
    assert list(image_cache_folder.iterdir()) == []


def test_bad_files_are_not_cached(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("not yet")
    assert read_quietly([path], (16, 16, 3))[1]
    save_blocks(path)
    assert read_quietly([path], (16, 16, 3))[1] == []


def damage_with_a_file_in_place_of_the_folder(folder):
    folder.rmdir()
    folder.touch()


def damage_with_other_content(folder):
    (folder / "images.sqlite").write_bytes(b"no database" * 100)


def damage_with_a_table_of_other_columns(folder):
    with sqlite3.connect(folder / "images.sqlite") as connection:
        connection.execute("CREATE TABLE images (other BLOB)")
    connection.close()


@pytest.mark.parametrize(
    ("damage", "messages"),
    [
        (damage_with_a_file_in_place_of_the_folder, ["decoded without a cache: .* KFUSION_CACHE"]),
        (damage_with_other_content, ["decoded without a cache: .*not a database"]),
        (
            damage_with_a_table_of_other_columns,
            ["cache cannot be read .no such column", "cache cannot be written"],
        ),
    ],
)
def test_a_cache_that_does_not_work_is_a_warning_only(
    tmp_path, image_cache_folder, damage, messages
):
    path = save_blocks(tmp_path / "a.png")
    damage(image_cache_folder)
    with pytest.warns(UserWarning, match="cache") as warned:
        images, _ = read_quietly([path], (16, 16, 3))
    for warning, message in zip(warned, messages, strict=True):
        assert re.search(message, str(warning.message))
    assert images[0, 0, 0].tolist() == RED


def test_values_that_fill_few_of_16_bits_are_warned_about(tmp_path):
    path = save(Image.fromarray(np.array([[0, 4095]], np.uint16)), tmp_path / "a.png")
    with pytest.warns(UserWarning, match="No pixel of the 1 images is above 16 of 255"):
        read_quietly([path], (1, 2, 1))


def test_the_error_lists_every_bad_image():
    bad_images = [BadImage(3, "a.png", "it is empty"), BadImage(8, "b.png", "it is gone")]
    error = BadImageError(bad_images, 10)
    assert error.bad_images == bad_images
    assert str(error).splitlines() == [
        "2 of 10 images cannot be read (rows count from 0):",
        "  row 3: a.png: it is empty",
        "  row 8: b.png: it is gone",
    ]
    assert describe_bad_images(bad_images, 10) == str(error)


@pytest.mark.parametrize("shape", [(1, 2), (0, 2, 3), (2.0, 2, 3), (1, 2, 3, 4)])
def test_shapes_that_are_no_image_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"must be \(height, width, channels\), positive whole"):
        check_image_shape(shape)


def test_reading_leaves_the_filters_of_warnings_as_they_were(tmp_path):
    before = list(warnings.filters)
    paths = [save_blocks(tmp_path / f"{i}.png") for i in range(50)]
    read_quietly(paths, use_cache=False)
    assert warnings.filters == before
