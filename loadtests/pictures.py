"""Pictures that must be classified: every format, size and form that the gateway says it takes."""

from collections.abc import Callable
from functools import partial

from PIL import Image, ImageCms

from loadtests.painting import (
    IMPLICIT_VR,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    ORIENTATION,
    RLE,
    Size,
    deep_grey,
    dicom,
    encode,
    oriented,
    paint,
    run_lengths,
)
from loadtests.recipe import Kind, Recipe

SMALL, USUAL, SCREEN = (200, 150), (600, 450), (1024, 768)
TELEPHONE, LARGEST = (4000, 3000), (8000, 6000)
"""12 and 48 megapixels."""


def recipes() -> list[Recipe]:
    """All of them, in a fixed order."""
    return [*_everyday(), *_jpegs(), *_pngs(), *_webps(), *_others(), *_telephones(), *_dicoms(), *_large()]


def _recipe(name: str, size: Size, make: Callable[[str, Size], bytes], kind: Kind = "rare") -> Recipe:
    return Recipe(name, kind, partial(make, name, size), size[0] * size[1])


def _saved(format_name: str, mode: str = "RGB", **options: object) -> Callable[[str, Size], bytes]:
    return lambda name, size: encode(paint(name, size).convert(mode), format_name, **options)


def _everyday() -> list[Recipe]:
    """What cameras and telephones make."""
    sizes = [(64, 64), SMALL, USUAL, (640, 480), SCREEN, (1600, 1200), (2048, 1536), TELEPHONE, (3000, 4000)]
    plain = [_recipe(f"jpeg-{w}x{h}.jpg", (w, h), _saved("JPEG", quality=85), "everyday") for w, h in sizes]
    png = _recipe("png-600x450.png", USUAL, _saved("PNG"), "everyday")
    heic = _recipe("heic-1024x768.heic", SCREEN, _saved("HEIF", quality=60, enc_params={"preset": "ultrafast"}), "everyday")
    return [*plain, png, heic]


def _jpegs() -> list[Recipe]:
    turned = [
        _recipe(f"jpeg-orientation-{number}.jpg", USUAL, _saved("JPEG", quality=90, exif=oriented(number)))
        for number in range(1, 9)
    ]
    return [
        *turned,
        _recipe("jpeg-progressive.jpg", SCREEN, _saved("JPEG", quality=85, progressive=True)),
        _recipe("jpeg-grey.jpg", USUAL, _saved("JPEG", "L")),
        _recipe("jpeg-cmyk.jpg", USUAL, _saved("JPEG", "CMYK")),
        _recipe("jpeg-icc.jpg", USUAL, _saved("JPEG", icc_profile=_profile())),
        _recipe("jpeg-broken-icc.jpg", USUAL, _saved("JPEG", icc_profile=b"no profile")),
        _recipe("jpeg-motion-photo.jpg", USUAL, _motion_photo),
    ]


def _pngs() -> list[Recipe]:
    return [
        _recipe("png-grey.png", USUAL, _saved("PNG", "L")),
        _recipe("png-16-bit.png", USUAL, lambda name, size: encode(deep_grey(name, size), "PNG")),
        _recipe("png-palette.png", USUAL, _saved("PNG", "P")),
        _recipe("png-black-and-white.png", USUAL, _saved("PNG", "1")),
        _recipe("png-alpha.png", USUAL, lambda name, size: encode(_transparent(name, size), "PNG")),
        _recipe("png-icc.png", USUAL, _saved("PNG", icc_profile=_profile())),
        _recipe("png-orientation-6.png", USUAL, _saved("PNG", exif=oriented(6))),
        _recipe("png-animated.png", USUAL, partial(_animated, "PNG")),
    ]


def _webps() -> list[Recipe]:
    return [
        _recipe("webp-lossy.webp", SCREEN, _saved("WEBP", quality=80)),
        _recipe("webp-alpha.webp", USUAL, lambda name, size: encode(_transparent(name, size), "WEBP", lossless=True, method=0)),
        _recipe("webp-orientation-8.webp", USUAL, _saved("WEBP", exif=oriented(8))),
        _recipe("webp-animated.webp", USUAL, partial(_animated, "WEBP")),
    ]


def _others() -> list[Recipe]:
    return [
        _recipe("tiff-lzw.tif", USUAL, _saved("TIFF", compression="tiff_lzw")),
        _recipe("tiff-cmyk.tif", USUAL, _saved("TIFF", "CMYK")),
        _recipe("tiff-16-bit.tif", USUAL, lambda name, size: encode(deep_grey(name, size), "TIFF")),
        _recipe("tiff-orientation-3.tif", USUAL, _saved("TIFF", tiffinfo={ORIENTATION: 3})),
        _recipe("tiff-pages.tif", USUAL, partial(_animated, "TIFF")),
        _recipe("bmp.bmp", USUAL, _saved("BMP")),
        _recipe("bmp-palette.bmp", USUAL, _saved("BMP", "P")),
    ]


def _telephones() -> list[Recipe]:
    fast = {"quality": 60, "enc_params": {"preset": "ultrafast"}}
    return [
        _recipe("heic-turned.heic", USUAL, _turned_heic),
        _recipe("heic-alpha.heic", USUAL, lambda name, size: encode(_transparent(name, size), "HEIF", **fast)),
        # On one thread: on several, what is written would depend on which of them is first.
        _recipe("avif.avif", SCREEN, _saved("AVIF", speed=8, max_threads=1)),
        _recipe(
            "avif-animated.avif", SMALL, lambda name, size: _timeless(_animated("AVIF", name, size, speed=8, max_threads=1))
        ),
    ]


def _dicoms() -> list[Recipe]:
    def compressed(name: str, size: Size, syntax: str, photometric: str, format_name: str, **options: object) -> bytes:
        picture = paint(name, size)
        return dicom(picture, syntax, photometric, encode(picture, format_name, **options))

    return [
        _recipe("dicom-rgb.dcm", USUAL, lambda name, size: dicom(paint(name, size))),
        _recipe("dicom-grey.dcm", USUAL, lambda name, size: dicom(paint(name, size).convert("L"), IMPLICIT_VR, "MONOCHROME2")),
        _recipe(
            "dicom-rle.dcm", USUAL, lambda name, size: dicom(paint(name, size), RLE, "RGB", run_lengths(paint(name, size)))
        ),
        _recipe(
            "dicom-jpeg.dcm", SCREEN, partial(compressed, syntax=JPEG_BASELINE, photometric="YBR_FULL_422", format_name="JPEG")
        ),
        _recipe(
            "dicom-jpeg-2000.dcm",
            USUAL,
            partial(compressed, syntax=JPEG_2000_LOSSLESS, photometric="YBR_RCT", format_name="JPEG2000", no_jp2=True, mct=1),
        ),
    ]


def _large() -> list[Recipe]:
    return [
        _recipe("jpeg-48-megapixels.jpg", LARGEST, _saved("JPEG", quality=80)),
        _recipe("png-12-megapixels.png", TELEPHONE, lambda name, size: encode(_smooth(name, size), "PNG", compress_level=1)),
        _recipe("webp-12-megapixels.webp", TELEPHONE, _saved("WEBP", quality=60, method=0)),
        _recipe("heic-12-megapixels.heic", TELEPHONE, _saved("HEIF", quality=50, enc_params={"preset": "ultrafast"})),
        _recipe(
            "avif-12-megapixels.avif",
            TELEPHONE,
            lambda name, size: encode(_smooth(name, size), "AVIF", speed=10, max_threads=1),
        ),
    ]


def _smooth(name: str, size: Size) -> Image.Image:
    """Without grain, which no format without loss could hold in 20 MB."""
    return paint(name, SMALL).resize(size, Image.Resampling.BICUBIC)


def _profile() -> bytes:
    """sRGB, without the time at which it was made."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    made[24:36] = bytes(12)
    return bytes(made)


def _transparent(name: str, size: Size) -> Image.Image:
    picture = paint(name, size).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(size))
    return picture


def _animated(format_name: str, name: str, size: Size, **options: object) -> bytes:
    further = [paint(f"{name}-{number}", size) for number in (1, 2)]
    return encode(paint(name, size), format_name, save_all=True, append_images=further, **options)


def _motion_photo(name: str, size: Size) -> bytes:
    """As telephones write it: a video behind the picture's end."""
    video = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(50_000)
    return encode(paint(name, size), "JPEG") + b"MotionPhoto_Data" + video


def _turned_heic(name: str, size: Size) -> bytes:
    picture = paint(name, size)
    picture.info["exif"] = oriented(6)
    return encode(picture, "HEIF", quality=60, enc_params={"preset": "ultrafast"})


def _timeless(animated: bytes) -> bytes:
    """An animated AVIF without the times at which it, its tracks and their media were made (ISO/IEC 14496-12, 8.2.2)."""
    made = bytearray(animated)
    for name in (b"mvhd", b"tkhd", b"mdhd"):
        at = made.find(name)
        while at >= 0:
            times = at + len(name) + 4
            size = 16 if made[times - 4] == 1 else 8
            made[times : times + size] = bytes(size)
            at = made.find(name, times)
    return bytes(made)
