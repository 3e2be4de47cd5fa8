"""Pictures with marks in every place where a picture, or its upload, can carry words; and how a mark is found again."""

import base64

from PIL import Image, PngImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from tests.pictures import archive, dicom_file, encode, textured

SEED = "Xq7VwKz3Jh"
"""All marks begin with it: letters and digits that come up nowhere else and survive escaping."""

_DESCRIPTION, _ARTIST, _COMMENT, _GPS, _GPS_METHOD, _XMP, _IPTC = 0x010E, 0x013B, 0x9286, 0x8825, 0x001B, 700, 33723


def mark(place: str) -> str:
    """A mark that says where it was planted."""
    return f"{SEED}-{place}"


def leaks(data: bytes) -> bool:
    """Whether a mark is in there, as it is or written in another way."""
    lowered = data.lower()
    if any(form.lower() in lowered for form in (SEED.encode(), SEED.encode("utf-16-le"), SEED.encode("utf-16-be"))):
        return True
    if SEED.encode().hex().encode() in lowered:
        return True
    # In base64 a word looks different for each of three places where it can begin, and its edges depend on its neighbours.
    cores = (base64.b64encode(bytes(shift) + SEED.encode())[(0, 4, 4)[shift] :][:8] for shift in range(3))
    return any(core in data for core in cores)


def good_pictures() -> dict[str, bytes]:
    """Pictures that are answered."""
    return {
        "x.jpg": _with_iptc(encode(textured(), "JPEG", exif=_exif("jpeg"), xmp=_xmp("jpeg"), comment=mark("jpeg-comment"))),
        "x.png": encode(textured(), "PNG", exif=_exif("png"), pnginfo=_png_texts()),
        "x.tif": encode(textured(), "TIFF", tiffinfo=_tiff_tags(), compression="tiff_lzw"),
        "x.webp": encode(textured(), "WEBP", exif=_exif("webp"), xmp=_xmp("webp")),
        "x.heic": encode(textured(), "HEIF", exif=_exif("heic").tobytes(), xmp=_xmp("heic")),
        "x.dcm": dicom_file(
            textured(),
            PatientName=mark("dicom-name"),
            PatientID=mark("dicom-id"),
            PatientComments=mark("dicom-comments"),
            InstitutionName=mark("dicom-institution"),
        ),
    }


def bad_pictures(good: dict[str, bytes]) -> dict[str, bytes]:
    """Files that are refused, each by another part of the gateway."""
    texts = good["x.png"]
    broken_text = texts.find(b"tEXt") + 6
    return {
        **{f"truncated-{name}": data[: len(data) * 9 // 10] for name, data in good.items()},
        "crc.png": texts[:broken_text] + b"\0" + texts[broken_text + 1 :],
        "bomb.png": encode(textured(), "PNG", pnginfo=_png_texts(bomb=True)),
        "polyglot.jpg": good["x.jpg"] + archive(),
        "script.jpg": good["x.jpg"][:20] + f"<script>{mark('script')}".encode() + good["x.jpg"][20:],
        "small.jpg": encode(textured((20, 20)), "JPEG", comment=mark("small")),
        "words.csv": f"name\n{mark('words')}\n".encode(),
        "secret.dcm": dicom_file(textured(), SOPClassUID="1.2.840.10008.5.1.4.1.1.2", PatientName=mark("ct-name")),
        "lying.dcm": dicom_file(textured(), pixels=mark("pixels").encode() + b" ", PatientName=mark("short-name")),
    }


def _exif(kind: str) -> Image.Exif:
    exif = Image.Exif()
    exif[_DESCRIPTION], exif[_ARTIST] = mark(f"{kind}-description"), mark(f"{kind}-artist")
    exif.get_ifd(0x8769)[_COMMENT] = b"UNICODE\0" + mark(f"{kind}-comment").encode("utf-16-le")
    exif.get_ifd(_GPS)[_GPS_METHOD] = b"ASCII\0\0\0" + mark(f"{kind}-gps").encode()
    return exif


def _xmp(kind: str) -> bytes:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><dc:creator>{mark(f"{kind}-xmp")}</dc:creator></x:xmpmeta>'.encode()


def _iptc(kind: str) -> bytes:
    caption = mark(f"{kind}-iptc").encode()
    return b"\x1c\x02\x78" + len(caption).to_bytes(2, "big") + caption


def _with_iptc(jpeg: bytes) -> bytes:
    records = _iptc("jpeg")
    records += bytes(len(records) % 2)
    block = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + len(records).to_bytes(4, "big") + records
    return jpeg[:2] + b"\xff\xed" + (len(block) + 2).to_bytes(2, "big") + block + jpeg[2:]


def _png_texts(bomb: bool = False) -> PngImagePlugin.PngInfo:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Patient", mark("png-text"))
    texts.add_text("Packed", mark("png-packed") * (200_000 if bomb else 1), zip=True)
    texts.add_itxt("XML:com.adobe.xmp", _xmp("png").decode())
    return texts


def _tiff_tags() -> ImageFileDirectory_v2:
    tags = ImageFileDirectory_v2()
    tags[_DESCRIPTION], tags[_ARTIST] = mark("tiff-description"), mark("tiff-artist")
    tags.tagtype[_XMP] = tags.tagtype[_IPTC] = 7
    tags[_XMP], tags[_IPTC] = _xmp("tiff"), _iptc("tiff")
    return tags
