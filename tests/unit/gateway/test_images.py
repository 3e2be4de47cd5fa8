import io
import struct
import zlib

import numpy as np
import pillow_heif
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from gateway.errors import BrokenPicture, NoPicture, NotAPicture, PictureError, PictureTooLarge, PictureTooSmall, Polyglot
from gateway.images import FORMATS, decode, model_input
from serving.contract import IMAGE_SHAPE
from serving.preprocess import to_model_input
from tests.pictures import (
    ORIENTATION,
    archive,
    dicom_file,
    dicom_jpeg,
    encode,
    exchanged_profile,
    motion_photo,
    paint,
    textured,
    turned_heif,
)

MAX_PIXELS = 20_000_000


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    end = b"IEND"
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", 0)
        + end
        + struct.pack(">I", zlib.crc32(end))
    )


@pytest.mark.parametrize("kind", [*FORMATS, "MPO"])
def test_every_format_gives_the_same_input(kind):
    picture = textured()

    image = model_input(decode(encode(picture, kind), MAX_PIXELS))

    assert image.shape == IMAGE_SHAPE
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - model_input(decode(encode(picture, "PNG"), MAX_PIXELS))).mean() < 4


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", NoPicture),
        (b"hello", NotAPicture),
        (b"%PDF-1.7 not a picture", NotAPicture),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", NotAPicture),
        (encode(textured(), "GIF"), NotAPicture),
        (encode(textured(), "JPEG")[:2000], BrokenPicture),
        (encode(textured(), "PNG")[:2000], BrokenPicture),
        (encode(textured(), "TIFF")[:20000], BrokenPicture),
        (encode(textured(), "WEBP")[:2000], BrokenPicture),
        (encode(textured(), "HEIF")[:2000], BrokenPicture),
        (encode(textured(), "AVIF")[:2000], BrokenPicture),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", NotAPicture),
        (png_header(60_000, 60_000), PictureTooLarge),
        (png_header(5000, 5000), PictureTooLarge),
        (png_header(300, 300), BrokenPicture),
        (paint(size=(63, 500)), PictureTooSmall),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(data, error):
    with pytest.raises(error):
        decode(data, MAX_PIXELS)


@pytest.mark.parametrize(
    ("orientation", "corner"), [(1, "top left"), (3, "bottom right"), (6, "top right"), (8, "bottom left")]
)
def test_orientation_is_applied(orientation, corner):
    picture = Image.new("RGB", (200, 200), "black")
    picture.paste((255, 255, 255), (0, 0, 100, 100))
    exif = Image.Exif()
    exif[0x0112] = orientation

    image = model_input(decode(encode(picture, "JPEG", exif=exif, quality=95), MAX_PIXELS))

    quadrants = {
        "top left": image[:100, :100],
        "top right": image[:100, 124:],
        "bottom left": image[124:, :100],
        "bottom right": image[124:, 124:],
    }
    assert max(quadrants, key=lambda name: quadrants[name].mean()) == corner


@pytest.mark.parametrize(
    ("orientation", "corner"), [(3, "bottom right"), (6, "top right"), (8, "bottom left"), (5, "top left")]
)
def test_orientation_that_a_container_and_exif_both_tell_is_applied_once(orientation, corner):
    picture = Image.new("RGB", (300, 200), "black")
    picture.paste((255, 255, 255), (0, 0, 150, 100))
    data = turned_heif(orientation, picture)
    written = Image.Exif()
    written.load(pillow_heif.open_heif(io.BytesIO(data)).info["exif"])

    rgb = decode(data, MAX_PIXELS).rgb

    assert written[ORIENTATION] == orientation
    assert b"irot" in data or b"imir" in data
    assert rgb.size == ((300, 200) if orientation == 3 else (200, 300))
    width, height = rgb.size
    corners = {
        "top left": (5, 5),
        "top right": (width - 5, 5),
        "bottom left": (5, height - 5),
        "bottom right": (width - 5, height - 5),
    }
    assert max(corners, key=lambda name: rgb.getpixel(corners[name])) == corner


def test_orientation_of_an_avif_is_applied_once():
    exif = Image.Exif()
    exif[ORIENTATION] = 6

    assert decode(encode(textured((300, 200)), "AVIF", exif=exif), MAX_PIXELS).rgb.size == (200, 300)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_the_size_is_checked_before_anything_is_decoded(kind):
    """The claimed size: what follows it is not there."""
    data = encode(textured(), kind)
    at = data.index(b"ispe") + 8
    header = data[:at] + struct.pack(">II", 10_000, 10_000) + data[at + 8 :]

    with pytest.raises(PictureTooLarge) as caught:
        decode(header, MAX_PIXELS)

    assert caught.value.pixels == 100_000_000


def test_ten_bits_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 300, dtype=np.uint16)[None, :, None].repeat(200, axis=0).repeat(3, axis=2)
    buffer = io.BytesIO()
    pillow_heif.from_bytes("RGB;16", (300, 200), ramp.tobytes()).save(buffer, quality=-1)

    image = model_input(decode(buffer.getvalue(), MAX_PIXELS))

    assert image[:, 0].mean() < 5
    assert image[:, 112].mean() == pytest.approx(127, abs=3)
    assert image[:, -1].mean() > 250


@pytest.mark.parametrize("primary", [0, 1])
def test_of_several_pictures_in_a_heif_the_primary_one_counts(primary):
    file = pillow_heif.HeifFile()
    for colour in ("red", "blue"):
        file.add_from_pillow(Image.new("RGB", (200, 200), colour))
    buffer = io.BytesIO()
    file.save(buffer, quality=90, primary_index=primary)

    image = model_input(decode(buffer.getvalue(), MAX_PIXELS))

    assert image[..., 2 * primary].mean() > 240
    assert image[..., 2 - 2 * primary].mean() < 15


@pytest.mark.parametrize(("kind", "brand"), [("HEIF", b"ftypheic"), ("AVIF", b"ftypavif")])
def test_the_brand_that_both_containers_share_is_read(kind, brand):
    data = encode(textured(), kind).replace(brand, b"ftypmif1", 1)

    assert decode(data, MAX_PIXELS).rgb.size == (300, 200)


@pytest.mark.parametrize(
    "data",
    [
        encode(textured(), "JPEG") + archive(),
        encode(textured(), "PNG") + archive() + b"and a tail",
        encode(textured(), "WEBP") + archive(),
        encode(textured(), "HEIF") + archive(),
        dicom_file(textured()) + archive(),
        encode(textured(), "JPEG", comment=b"%PDF-1.7"),
        encode(textured(), "JPEG", comment=b"<ScRiPt>alert(1)</script>"),
        encode(textured(), "JPEG", comment=b"<?php system($_GET['c']);"),
    ],
)
def test_what_is_a_picture_and_something_else_is_refused(data):
    with pytest.raises(Polyglot):
        decode(data, MAX_PIXELS)


def test_what_telephones_put_behind_a_picture_is_no_offence():
    several = encode(textured(), "MPO", save_all=True, append_images=[textured(seed=2)])

    for data in (motion_photo(), several):
        image = model_input(decode(data, MAX_PIXELS))

        assert np.array_equal(image, model_input(decode(encode(textured(), "JPEG"), MAX_PIXELS)))


def test_a_jpeg_with_further_pictures_is_decoded_like_a_jpeg():
    several = encode(textured((6000, 5000)), "MPO", save_all=True, append_images=[textured()])

    assert decode(several, 50_000_000).rgb.size == (750, 625)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "YCbCr"])
def test_every_mode_becomes_rgb(mode):
    kind = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"

    image = model_input(decode(encode(textured().convert(mode), kind), MAX_PIXELS))

    assert image.shape == IMAGE_SHAPE


def test_sixteen_bits_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 300, dtype=np.uint16)[None, :].repeat(200, axis=0)

    image = model_input(decode(encode(Image.fromarray(ramp), "PNG"), MAX_PIXELS))

    assert image[:, 0].mean() < 5
    assert image[:, 112].mean() == pytest.approx(127, abs=3)
    assert image[:, -1].mean() > 250


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_transparent_parts_become_white(kind):
    clear = Image.new("RGBA", (200, 200), (255, 0, 0, 0))

    assert model_input(decode(encode(clear, kind), MAX_PIXELS)).min() == 255


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "TIFF", "AVIF"])
def test_of_an_animation_the_first_frame_counts(kind):
    frames = [Image.new("RGB", (200, 200), colour) for colour in ("red", "blue")]

    image = model_input(decode(encode(frames[0], kind, save_all=True, append_images=frames[1:]), MAX_PIXELS))

    assert image[..., 0].mean() > 240
    assert image[..., 2].mean() < 15


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_a_profile_is_applied(kind):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = textured()

    plain, same, other = (
        model_input(decode(encode(picture, kind, **profile), MAX_PIXELS)).astype(int)
        for profile in ({}, {"icc_profile": srgb}, {"icc_profile": exchanged_profile()})
    )

    assert np.abs(same - plain).mean() < 1
    assert np.abs(other - plain).mean() > 10
    # The decoders of lossy formats subsample the colours, and the profile comes after that.
    assert np.abs(other - plain[..., ::-1]).mean() < 4


def test_a_broken_profile_does_no_harm():
    picture = textured()

    broken = model_input(decode(encode(picture, "PNG", icc_profile=b"\x00" * 200), MAX_PIXELS))

    assert np.array_equal(broken, model_input(decode(encode(picture, "PNG"), MAX_PIXELS)))


def test_broken_metadata_do_no_harm():
    assert (
        model_input(decode(encode(textured(), "PNG", exif=b"Exif\x00\x00no metadata at all"), MAX_PIXELS)).shape == IMAGE_SHAPE
    )


def test_floating_point_pixels_are_no_picture():
    with pytest.raises(NotAPicture, match="floating point"):
        decode(encode(Image.fromarray(np.ones((100, 100), np.float32)), "TIFF"), MAX_PIXELS)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_large_picture_gives_nearly_what_a_full_decode_gives(kind, orientation):
    picture = textured((4000, 3000))
    exif = Image.Exif()
    exif[0x0112] = orientation

    reduced = model_input(decode(encode(picture, kind, exif=exif, quality=92, compress_level=1), MAX_PIXELS))

    full = to_model_input(picture if orientation == 1 else picture.transpose(Image.Transpose.ROTATE_270))
    assert np.abs(reduced.astype(int) - full).mean() < 2


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_a_large_picture_of_every_mode_is_reduced(mode):
    small = textured((400, 300)).convert("L" if mode == "I;16" else mode)
    large = small.resize((2000, 1500), Image.Resampling.NEAREST)
    if mode == "I;16":
        large = Image.fromarray(np.asarray(large).astype(np.uint16) * 257)
    kind = "TIFF" if mode == "CMYK" else "PNG"

    image = model_input(decode(encode(large, kind), MAX_PIXELS)).astype(int)

    assert np.abs(image - to_model_input(small.convert("RGB"))).mean() < (12 if mode == "1" else 3)


def test_other_formats_than_jpeg_may_have_fewer_pixels():
    with pytest.raises(PictureTooLarge) as caught:
        decode(png_header(5001, 5000), 50_000_000)
    assert caught.value.max_pixels == 25_000_000
    with pytest.raises(BrokenPicture):
        decode(png_header(5000, 5000), 50_000_000)


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (textured(), ()),
        (textured((100, 100)), ("low_resolution",)),
        (Image.new("RGB", (300, 200), (150, 110, 90)), ("blurry",)),
        (textured().point(lambda value: value * 0.2), ("dark",)),
        (textured().point(lambda value: 238 + value * 0.05), ("bright", "blurry")),
    ],
)
def test_quality_warnings(picture, expected):
    assert set(decode(encode(picture, "PNG"), MAX_PIXELS).warnings) >= set(expected) or not expected
    assert bool(decode(encode(picture, "PNG"), MAX_PIXELS).warnings) == bool(expected)


SEEDS = [
    *(encode(textured((120, 90)), kind) for kind in FORMATS),
    dicom_file(textured((120, 90))),
    dicom_jpeg(textured((120, 90))),
]


@settings(max_examples=600, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.sampled_from(SEEDS),
    cuts=st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=8)), max_size=6),
    end=st.integers(0, 6000),
)
def test_no_bytes_raise_anything_but_a_picture_error(seed, cuts, end):
    data = bytearray(seed[: max(end, 16)])
    for position, patch in cuts:
        data[position : position + len(patch)] = patch

    try:
        image = model_input(decode(bytes(data), 1_000_000))
    except PictureError:
        return
    assert image.shape == IMAGE_SHAPE


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "HEIF", "AVIF"])
def test_nothing_of_the_file_but_pixels_is_kept(kind):
    exif = Image.Exif()
    exif[0x010E] = "PATIENT-NAME"
    comment = {"comment": b"PATIENT-NAME"} if kind == "JPEG" else {}

    picture = decode(encode(textured(), kind, exif=exif, **comment), MAX_PIXELS)

    assert picture.rgb.info == {}
    assert not picture.rgb.getexif()
