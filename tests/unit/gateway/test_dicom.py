"""DICOM: which pictures are read, and that nothing of the patient gets out."""

import dataclasses
import logging
import struct

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.sequence import Sequence

from gateway import dicom
from gateway.errors import BrokenPicture, NotAPicture, PictureError, PictureTooLarge, PictureTooSmall, Polyglot
from gateway.images import decode, model_input
from serving.contract import IMAGE_SHAPE
from tests.pictures import ORIENTATION, dicom_file, dicom_jpeg, encode, exchanged_profile, textured

MAX_PIXELS = 50_000_000
PATIENT = "Santoso^Budi"
PICTURE = textured((302, 200))


def rle(picture):
    pixels = np.asarray(picture)
    samples = len(picture.getbands())
    return RLELosslessEncoder.encode(
        pixels,
        rows=pixels.shape[0],
        columns=pixels.shape[1],
        samples_per_pixel=samples,
        bits_allocated=8,
        bits_stored=8,
        pixel_representation=0,
        number_of_frames=1,
        photometric_interpretation="RGB" if samples == 3 else "MONOCHROME2",
        **({"planar_configuration": 0} if samples == 3 else {}),
    )


def subsampled(picture):
    """YBR_FULL_422, native: of each pair of pixels both luminances and the colour of the first."""
    y, blue, red = (np.asarray(band) for band in picture.convert("YCbCr").split())
    return np.stack([y[:, ::2], y[:, 1::2], blue[:, ::2], red[:, ::2]], axis=-1).tobytes()


def unmarked(jpeg):
    """A JPEG without the JFIF segment that tells its colour space."""
    length = struct.unpack(">H", jpeg[4:6])[0]
    return jpeg[:2] + jpeg[4 + length :]


PLANES = np.asarray(PICTURE).transpose(2, 0, 1).tobytes()
LUMINANCE = PICTURE.convert("YCbCr")
GREY = PICTURE.convert("L")
# A decoder that is not told better takes these samples for luminance and colour differences.
RAW = unmarked(encode(Image.frombytes("YCbCr", PICTURE.size, PICTURE.tobytes()), "JPEG", quality=95, subsampling=0))
READ = {
    "explicit": dicom_file(PICTURE),
    "implicit": dicom_file(PICTURE, dicom.IMPLICIT_VR),
    "photographic": dicom_file(PICTURE, SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.4"),
    "planar": dicom_file(PICTURE, pixels=PLANES, PlanarConfiguration=1),
    "YBR_FULL": dicom_file(PICTURE, photometric="YBR_FULL", pixels=LUMINANCE.tobytes()),
    "YBR_FULL_422": dicom_file(PICTURE, photometric="YBR_FULL_422", pixels=subsampled(PICTURE)),
    "MONOCHROME2": dicom_file(GREY, photometric="MONOCHROME2"),
    "RLE": dicom_file(PICTURE, dicom.RLE, "RGB", encapsulate([rle(PICTURE)])),
    "RLE, grey": dicom_file(GREY, dicom.RLE, "MONOCHROME2", encapsulate([rle(GREY)])),
    "JPEG": dicom_jpeg(PICTURE, quality=95),
    "JPEG, RGB": dicom_file(PICTURE, dicom.JPEG_BASELINE, "RGB", encapsulate([RAW])),
    "JPEG, grey": dicom_file(GREY, dicom.JPEG_BASELINE, "MONOCHROME2", encapsulate([encode(GREY, "JPEG", quality=95)])),
    "JPEG 2000, lossless": dicom_file(
        PICTURE, dicom.JPEG_2000_LOSSLESS, "YBR_RCT", encapsulate([encode(PICTURE, "JPEG2000", no_jp2=True, mct=1)])
    ),
    "JPEG 2000": dicom_file(
        PICTURE,
        dicom.JPEG_2000,
        "YBR_ICT",
        encapsulate([encode(PICTURE, "JPEG2000", no_jp2=True, mct=1, irreversible=True, quality_layers=[10])]),
    ),
    "several frames": dicom_file(
        PICTURE, pixels=PICTURE.tobytes() + bytes(PICTURE.width * PICTURE.height * 3), NumberOfFrames=2
    ),
    "several JPEGs": dicom_file(
        PICTURE,
        dicom.JPEG_BASELINE,
        "YBR_FULL_422",
        encapsulate([encode(PICTURE, "JPEG", quality=95), encode(Image.new("RGB", PICTURE.size), "JPEG")]),
        NumberOfFrames=2,
    ),
}


@pytest.mark.parametrize("name", READ)
def test_what_is_read_gives_the_pixels_that_were_written(name):
    expected = GREY.convert("RGB") if name in ("MONOCHROME2", "RLE, grey", "JPEG, grey") else PICTURE

    image = model_input(decode(READ[name], MAX_PIXELS)).astype(int)

    assert image.shape == IMAGE_SHAPE
    assert np.abs(image - model_input(decode(encode(expected, "PNG"), MAX_PIXELS))).mean() < 3


def changed(data, tag, value):
    """The file with another value of the same length in an element of explicit VR."""
    at = data.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF)) + 8
    return data[:at] + value + data[at + len(value) :]


ROWS, COLUMNS = 0x00280010, 0x00280011
SMALL_J2K = encapsulate([encode(PICTURE, "JPEG2000", no_jp2=True)])


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (dicom_file(PICTURE, SOPClassUID="1.2.840.10008.5.1.4.1.1.2"), NotAPicture),
        (dicom_file(PICTURE, "1.2.840.10008.1.2.4.57", pixels=encapsulate([b"\0\0"])), NotAPicture),
        (dicom_file(PICTURE, "1.2.840.10008.1.2.4.80", pixels=encapsulate([b"\0\0"])), NotAPicture),
        (dicom_file(GREY, photometric="PALETTE COLOR"), NotAPicture),
        (dicom_file(GREY, photometric="MONOCHROME1"), NotAPicture),
        (dicom_file(PICTURE, BitsAllocated=16, BitsStored=12, HighBit=11), NotAPicture),
        (dicom_file(PICTURE, photometric="MONOCHROME2"), BrokenPicture),
        (dicom_file(PICTURE, NumberOfFrames=2), BrokenPicture),
        (dicom_file(PICTURE, NumberOfFrames=dicom.MAX_FRAMES + 1), BrokenPicture),
        (dicom_file(PICTURE, pixels=b""), BrokenPicture),
        (dicom_file(PICTURE)[:5000], BrokenPicture),
        (dicom_jpeg(PICTURE)[:3000], BrokenPicture),
        (bytes(128) + b"DICM", BrokenPicture),
        (bytes(128) + b"DICM" + b"\xff" * 100, BrokenPicture),
        (dicom_file(textured((63, 300))), PictureTooSmall),
        # What it claims is over the limit: that comes before the pixels are looked at.
        (changed(changed(dicom_jpeg(PICTURE), ROWS, b"\xff\xff"), COLUMNS, b"\xff\xff"), PictureTooLarge),
        (
            changed(
                dicom_file(PICTURE, dicom.RLE, "RGB", encapsulate([b"\0" * 64]), Rows=5001), COLUMNS, struct.pack("<H", 5000)
            ),
            PictureTooLarge,
        ),
        (dicom_file(PICTURE, dicom.JPEG_2000, "RGB", SMALL_J2K, Rows=3536, Columns=3536), PictureTooLarge),
        # A frame is as large as the header says, or it is not decoded.
        (dicom_file(PICTURE, dicom.JPEG_2000, "RGB", SMALL_J2K, Rows=100), BrokenPicture),
        (changed(dicom_jpeg(PICTURE), ROWS, struct.pack("<H", 100)), BrokenPicture),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(data, error):
    with pytest.raises(error):
        decode(data, MAX_PIXELS)


@pytest.mark.parametrize("preamble", [b"MZ", b"#!/bin/sh", b"II*\0", b"<html>"])
def test_a_preamble_that_begins_another_file_is_refused(preamble):
    data = dicom_file(PICTURE)

    with pytest.raises(Polyglot):
        decode(preamble + data[len(preamble) :], MAX_PIXELS)


def test_a_deflated_file_is_refused_before_it_is_inflated():
    with pytest.raises(NotAPicture, match="transfer syntax"):
        decode(dicom_file(PICTURE).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99", 1), MAX_PIXELS)


def test_a_large_jpeg_is_decoded_at_a_reduced_scale():
    assert decode(dicom_jpeg(textured((4000, 3000))), MAX_PIXELS).rgb.size == (500, 375)


def test_a_note_of_the_camera_in_a_frame_turns_nothing():
    exif = Image.Exif()
    exif[ORIENTATION] = 6

    assert decode(dicom_jpeg(PICTURE, exif=exif), MAX_PIXELS).rgb.size == PICTURE.size


def test_the_profile_of_the_file_is_applied():
    plain = model_input(decode(dicom_file(PICTURE), MAX_PIXELS)).astype(int)

    other = model_input(decode(dicom_file(PICTURE, ICCProfile=exchanged_profile()), MAX_PIXELS))

    assert np.abs(other - plain[..., ::-1]).mean() < 2


def test_millions_of_elements_are_not_read():
    """Each of eight bytes: there is room for a million in the largest upload."""
    header = dicom_file(PICTURE)
    at = header.index(struct.pack("<HH", 0x0008, 0x0016))
    elements = struct.pack("<HH2sH", 0x0008, 0x0001, b"UL", 0) * dicom.MAX_READS

    with pytest.raises(BrokenPicture):
        decode(header[:at] + elements + header[at:], MAX_PIXELS)


def with_patient():
    """Files in which a patient's name stands wherever a text can."""
    item = Dataset()
    item.PatientName = PATIENT
    return {
        name: dicom_file(
            picture,
            syntax,
            photometric,
            pixels,
            PatientName=PATIENT,
            PatientID=PATIENT,
            PatientBirthDate="19600401",
            StudyDescription=PATIENT,
            SpecificCharacterSet=["ISO_IR 100"],
            OtherPatientIDsSequence=Sequence([item]),
        )
        for name, picture, syntax, photometric, pixels in [
            ("native", PICTURE, dicom.EXPLICIT_VR, "RGB", None),
            ("implicit", PICTURE, dicom.IMPLICIT_VR, "RGB", None),
            ("jpeg", PICTURE, dicom.JPEG_BASELINE, "YBR_FULL", encapsulate([encode(PICTURE, "JPEG")])),
        ]
    }


def damaged(data):
    """Cuts, and the patient's name in the place of everything that is read."""
    yield from (data[:size] for size in range(140, 1200, 37))
    name = PATIENT.encode()
    for at in range(132, 1000, 7):
        yield data[:at] + name + data[at + len(name) :]


def texts_of(error):
    """All that a log could print of it."""
    while error is not None:
        yield from (str(error), repr(error), repr(vars(error)))
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("name", with_patient())
def test_nothing_of_the_patient_gets_out(name, caplog, capfd, recwarn):
    caplog.set_level(logging.DEBUG)
    data = with_patient()[name]
    errors = []

    for changed_data in (data, *damaged(data)):
        try:
            picture = decode(changed_data, MAX_PIXELS)
        except PictureError as error:
            errors.append(error)
        else:
            assert picture.rgb.info == {}
            assert "Santoso" not in repr(vars(picture))

    output = capfd.readouterr()
    assert len(errors) > 50
    assert not any("Santoso" in text for error in errors for text in texts_of(error))
    assert "Santoso" not in output.out + output.err + caplog.text
    assert not list(recwarn)


def test_the_header_holds_nothing_but_what_describes_pixels():
    header = dicom.read_header(with_patient()["native"])

    assert PATIENT not in repr(header)
    assert {field.name for field in dataclasses.fields(header)} == {
        "columns",
        "rows",
        "samples",
        "photometric",
        "is_planar",
        "frames",
        "transfer_syntax",
        "icc_profile",
        "pixel_data",
    }


def test_the_parser_s_log_is_silent():
    assert logging.getLogger("pydicom").disabled
