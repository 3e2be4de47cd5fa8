"""No file takes more than its budget: hostile ones by name, and a corpus of all formats with damage drawn from a seed."""

import json
import random
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate

from gateway import bombs, dicom
from gateway.errors import BrokenPicture
from gateway.images import decode
from gateway.settings import Settings
from tests.pictures import dicom_file, dicom_jpeg, encode, textured
from tests.processes import ROOT

MAX_MEGABYTES = 450
"""A WebP of 25 megapixels takes the most of what is allowed: its decoder holds canvas, frame and a copy."""

MAX_CPU_S = 10
LARGEST = Settings.max_upload_bytes
EDGE = 5000
PNG = encode(textured(), "PNG")
JPEG = encode(textured(), "JPEG")


def chunk(name, content=b""):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def with_chunks(chunks):
    """A PNG with chunks behind its header."""
    return PNG[:33] + chunks + PNG[33:]


def many_scans(size, count):
    """A progressive JPEG whose last scan comes again and again: 73 bytes each."""
    jpeg = encode(Image.new("RGB", size), "JPEG", progressive=True)
    scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    # Behind a comment with the bytes of an end of image, for a reader that only looks for those.
    return jpeg[:-2] + b"\xff\xfe\0\4\xff\xd9" + scan * count + b"\xff\xd9"


def overlapping_tags():
    """A TIFF with 400 tags that all have the same five megabytes for their value."""
    size = 5_000_000
    tags = [
        (256, 4, 1, 300),
        (257, 4, 1, 200),
        (258, 3, 1, 8),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (278, 4, 1, 200),
        (279, 4, 1, 60_000),
    ]
    tags += [(50_000 + index, 1, size, 0) for index in range(400)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return b"II*\0" + struct.pack("<I", size + 8) + bytes(size) + directory


def claiming(data, width, height):
    """HEIF or AVIF whose container says another size than its frame has."""
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def frames(kind, count):
    first, *others = (Image.new("RGB", (200, 200), (index % 256, 0, 0)) for index in range(count))
    return encode(first, kind, save_all=True, append_images=others)


def huge_webp():
    """A canvas of 16384 x 16384 pixels, and nothing on it."""
    body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff\x3f\0" + b"\xff\x3f\0"
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


HOSTILE = {
    "flat, 25 megapixels.png": lambda: encode(Image.new("RGBA", (EDGE, EDGE), (90, 40, 40, 255)), "PNG"),
    "flat, 25 megapixels.webp": lambda: encode(Image.new("RGBA", (EDGE, EDGE), (90, 40, 40, 200)), "WEBP", method=0),
    "flat, 25 megapixels.avif": lambda: encode(Image.new("RGB", (EDGE, EDGE), (90, 40, 40)), "AVIF", speed=10),
    "flat, 25 megapixels.tiff": lambda: encode(Image.new("CMYK", (EDGE, EDGE)), "TIFF", compression="tiff_lzw"),
    "flat, 48 megapixels.jpg": lambda: encode(Image.new("RGB", (8000, 6000)), "JPEG", progressive=True),
    "sixteen bits.png": lambda: encode(Image.fromarray(np.zeros((EDGE, EDGE), np.uint16)), "PNG"),
    "inflated text.png": lambda: with_chunks(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000)))),
    "inflated profile.png": lambda: with_chunks(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(100_000_000)))),
    "many chunks.png": lambda: with_chunks(chunk(b"abCd") * (LARGEST // 12 - 10_000)),
    "many segments.jpg": lambda: JPEG[:2] + b"\xff\xfe\0\2" * (LARGEST // 4 - 10_000) + JPEG[2:],
    "most scans.jpg": lambda: many_scans((8000, 6000), bombs.MAX_SCANS - 12),
    "many scans.jpg": lambda: many_scans((8000, 6000), 100_000),
    "many scans.dcm": lambda: dicom_file(
        Image.new("RGB", (10, 10)),
        dicom.JPEG_BASELINE,
        "YBR_FULL_422",
        encapsulate([many_scans((8000, 6000), 100_000)]),
        Columns=8000,
        Rows=6000,
    ),
    "overlapping tags.tiff": overlapping_tags,
    "huge canvas.webp": huge_webp,
    "many frames.webp": lambda: frames("WEBP", 400),
    "many frames.png": lambda: frames("PNG", 400),
    "huge frame in a small container.avif": lambda: claiming(
        encode(Image.new("RGB", (8000, 6000)), "AVIF", speed=10), 200, 200
    ),
    "frame in a smaller container.heic": lambda: claiming(encode(textured((1000, 800)), "HEIF"), 200, 200),
    "huge container.heic": lambda: claiming(encode(textured(), "HEIF"), 16_000, 16_000),
    "many boxes.avif": lambda: encode(textured(), "AVIF") + b"\0\0\0\x08free" * (LARGEST // 8 - 10_000),
    "many elements.dcm": lambda: _with_elements(LARGEST // 8 - 50_000),
    "long runs.dcm": lambda: dicom_file(
        Image.new("L", (64, 64)),
        dicom.RLE,
        "MONOCHROME2",
        encapsulate([struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 5_000_000]),
    ),
    "many fragments.dcm": lambda: dicom_file(
        Image.new("L", (64, 64)), dicom.RLE, "MONOCHROME2", bytes.fromhex("feff00e000000000") * (LARGEST // 8 - 10_000)
    ),
    "flat, 12 megapixels, JPEG 2000.dcm": lambda: dicom_file(
        Image.new("RGB", (10, 10)),
        dicom.JPEG_2000,
        "RGB",
        encapsulate([encode(Image.new("RGB", (4000, 3000)), "JPEG2000", no_jp2=True)]),
        Columns=4000,
        Rows=3000,
    ),
}


def _with_elements(count):
    file = dicom_file(textured())
    at = file.index(struct.pack("<HH", 0x0008, 0x0016))
    return file[:at] + struct.pack("<HH2sH", 0x0008, 0x0001, b"UL", 0) * count + file[at:]


def damaged(seed, count):
    """Files of every format with bytes exchanged, doubled, cut out and cut off."""
    rng = random.Random(seed)  # noqa: S311  (to be the same each time)
    picture = textured((120, 90))
    corpus = {
        **{kind: encode(picture, kind) for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF", "HEIF")},
        "MPO": encode(picture, "MPO", save_all=True, append_images=[picture]),
        "progressive": encode(picture, "JPEG", progressive=True),
        "LZW": encode(picture, "TIFF", compression="tiff_lzw"),
        "DICOM": dicom_file(picture),
        "DICOM, JPEG": dicom_jpeg(picture),
    }
    for number in range(count):
        name = rng.choice(sorted(corpus))
        data = bytearray(corpus[name])
        for _ in range(rng.randint(1, 8)):
            # Headers are where sizes stand.
            at = rng.randrange(min(len(data), rng.choice((64, 600, len(data)))))
            match rng.randrange(4):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0"))
                case 2:
                    del data[at : at + rng.randint(1, 40)]
                case 3:
                    data[at:at] = data[at : at + rng.randint(1, 200)]
        yield f"{number:04} {name}", bytes(data[: rng.randint(16, len(data))] if rng.random() < 0.2 else data)


def measure(folder):
    run = subprocess.run(
        [sys.executable, "-m", "tests.decoding", folder], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return {line["name"]: line for line in map(json.loads, run.stdout.splitlines())}


def named(*beginnings):
    return {name for name in HOSTILE if name.startswith(beginnings)}


def over_budget(lines):
    return [line for line in lines.values() if line["cpu_s"] > MAX_CPU_S or line["megabytes"] > MAX_MEGABYTES]


def test_hostile_files_stay_within_the_budget(tmp_path):
    for name, make in HOSTILE.items():
        data = make()
        assert len(data) <= LARGEST, name
        (tmp_path / name).write_bytes(data)

    lines = measure(tmp_path)

    assert lines.keys() == HOSTILE.keys()
    assert over_budget(lines) == []
    refused = {name for name, line in lines.items() if line["outcome"] != "picture"}
    assert refused >= named("many scans", "huge", "inflated", "many elements", "many fragments", "many boxes")
    assert not refused & named("flat", "most scans", "sixteen bits", "many frames")


def test_damaged_files_stay_within_the_budget(tmp_path):
    files = dict(damaged(1, 800))
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)

    lines = measure(tmp_path)

    assert lines.keys() == files.keys()
    assert over_budget(lines) == []
    # Neither is all of it refused, nor does all of it pass: the damage is neither too much nor too little.
    outcomes = [line["outcome"] for line in lines.values()]
    assert 80 < outcomes.count("picture") < 720


@pytest.mark.parametrize("size", [(64, 64), (300, 200), (1025, 700)])
@pytest.mark.parametrize("kind", ["plain", "transparent", "animated"])
def test_the_frames_of_an_avif_are_found(kind, size):
    picture = textured(size)
    more = {}
    if kind == "transparent":
        picture.putalpha(Image.linear_gradient("L").resize(size))
    if kind == "animated":
        more = {"save_all": True, "append_images": [textured(size, seed=2)]}
    data = encode(picture, "AVIF", speed=10, **more)

    sizes = [bombs._frame_size(frame)[:2] for frame in bombs._av1_frames(data)]

    assert sizes == [size] * (1 if kind == "plain" else 2)
    bombs.check_avif_frames(data, size[0] * size[1])
    with pytest.raises(BrokenPicture):
        bombs.check_avif_frames(data, size[0] * size[1] - 1)


def test_usual_progressive_jpegs_have_few_scans():
    assert decode(encode(textured(), "JPEG", progressive=True), 1_000_000).rgb.size == (300, 200)
    with pytest.raises(BrokenPicture, match="scans"):
        decode(many_scans((300, 200), bombs.MAX_SCANS), 1_000_000)


def test_what_follows_a_jpeg_or_stands_in_its_metadata_counts_for_no_scan():
    scans = b"\xff\xda" * bombs.MAX_SCANS * 2

    for data in (JPEG + scans, encode(textured(), "JPEG", comment=scans)):
        assert decode(data, 1_000_000).rgb.size == (300, 200)
