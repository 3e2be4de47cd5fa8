"""Painted pictures: what the tiny model makes of them is in their colours."""

import io
import zipfile

import numpy as np
import pillow_heif
from PIL import Image, ImageCms
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite

from gateway import dicom

pillow_heif.register_heif_opener()

COLOURS = {
    "malignant": (200, 40, 40),
    "benign": (50, 60, 40),
    "uncertain": (102, 60, 60),
    "out_of_scope": (20, 60, 230),
    "guarded": (230, 20, 230),
}


def paint(
    outcome: str = "benign", size: tuple[int, int] = (300, 200), format: str = "PNG", mode: str = "RGB", **save: object
) -> bytes:
    return encode(Image.new("RGB", size, COLOURS[outcome]).convert(mode), format, **save)


def encode(picture: Image.Image, format: str, **save: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **save)
    return buffer.getvalue()


def textured(size: tuple[int, int] = (300, 200), seed: int = 1) -> Image.Image:
    """Smooth blobs: with detail enough to be sharp, and little that JPEG would lose."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(60, 200, (24, 32, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


ORIENTATION = 0x0112
DERMOSCOPY = "1.2.840.10008.5.1.4.1.1.77.1.7"
NATIVE = (dicom.IMPLICIT_VR, dicom.EXPLICIT_VR)


def exchanged_profile() -> bytes:
    """What this profile calls red is blue."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return srgb.replace(b"rXYZ", b"....").replace(b"bXYZ", b"rXYZ").replace(b"....", b"bXYZ")


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as written:
        written.writestr("META-INF/MANIFEST.MF", "Main-Class: Evil")
    return buffer.getvalue()


def motion_photo() -> bytes:
    """What a telephone writes: a JPEG, and behind its end a video and a trailer of the maker's."""
    video = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + np.random.default_rng(1).bytes(50_000)
    # Four bytes that begin the end of an archive come up in a video by chance.
    return encode(textured(), "JPEG") + b"MotionPhoto_Data" + video + b"PK\x05\x06" + bytes(100) + b"SEFT"


def dicom_file(
    picture: Image.Image,
    syntax: str = dicom.EXPLICIT_VR,
    photometric: str = "RGB",
    pixels: bytes | None = None,
    **elements: object,
) -> bytes:
    """A dermoscopic picture in DICOM.

    Args:
        pixels: of all frames, native or encapsulated; those of the picture when there are none.
        elements: keyword of DICOM -> value, to add or to replace.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = str(elements.pop("SOPClassUID", DERMOSCOPY))
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset.Columns, dataset.Rows = picture.size
    dataset.SamplesPerPixel = len(picture.getbands())
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    if dataset.SamplesPerPixel > 1:
        dataset.PlanarConfiguration = 0
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.add_new(dicom._PIXEL_DATA, "OB", picture.tobytes() if pixels is None else pixels)
    dataset["PixelData"].is_undefined_length = syntax not in NATIVE
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def dicom_jpeg(picture: Image.Image, **save: object) -> bytes:
    return dicom_file(picture, dicom.JPEG_BASELINE, "YBR_FULL_422", encapsulate([encode(picture, "JPEG", **save)]))


def turned_heif(orientation: int, picture: Image.Image) -> bytes:
    """HEIF with both: the container's rotation (irot, imir) and EXIF that says the same once more."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    picture.info["exif"] = exif.tobytes()
    return encode(picture, "HEIF", quality=95)
