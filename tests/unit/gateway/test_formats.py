"""What the page says is taken is what is taken, and what is refused has its text in both languages."""

import io
import re

import pytest

from gateway.app import create_app
from gateway.errors import ModelServerUnavailable
from gateway.images import FORMATS
from gateway.settings import Settings
from tests.pictures import archive, dicom_file, encode, textured
from tests.processes import ROOT

NAMES = {"JPEG": "JPEG", "PNG": "PNG", "WEBP": "WebP", "TIFF": "TIFF", "BMP": "BMP", "AVIF": "AVIF", "HEIF": "HEIC"}


class NoModel:
    def predict(self, image):
        raise ModelServerUnavailable("no model server")

    def live_metadata(self, timeout_s=None):
        raise ModelServerUnavailable("no model server")


def client(language="en"):
    caller = create_app(Settings(), NoModel()).test_client()
    caller.set_cookie("language", language)
    return caller


def post(caller, data, path="/check", name="x.jpg"):
    return caller.post(path, data={"file": (io.BytesIO(data), name), "consent": "yes"})


@pytest.mark.parametrize("language", ["id", "en"])
def test_every_format_is_named_where_a_picture_is_chosen_and_where_one_is_refused(language):
    caller = client(language)
    page, refusal = caller.get("/check").text, post(caller, b"text").text

    assert NAMES.keys() == set(FORMATS)
    for name in [*NAMES.values(), "DICOM"]:
        assert name in re.search(r"<p>Format[^<]*</p>", page)[0]
        assert name in refusal


def test_the_field_offers_what_a_browser_does_not_count_among_pictures():
    accepted = re.search(r'id="file"[^>]*accept="([^"]*)"', client().get("/check").text)[1].split(",")

    assert set(accepted) == {"image/*", ".heic", ".heif", ".avif", ".dcm", "application/dicom"}
    assert "application\\/dicom" in (ROOT / "web" / "static" / "js" / "picker.js").read_text()


@pytest.mark.parametrize("data", [encode(textured(), "HEIF"), encode(textured(), "AVIF"), dicom_file(textured())])
@pytest.mark.parametrize("name", ["x.heic", "x.exe"])
def test_a_file_is_judged_by_its_bytes(data, name):
    # Without a model there is no answer, but a picture that is refused would not come so far.
    assert post(client(), data, "/api/v1/classifications", name).status_code == 503


@pytest.mark.parametrize(
    ("language", "heading"), [("id", "Berkas ini bukan hanya gambar"), ("en", "The file is not only a picture")]
)
def test_a_picture_that_is_something_else_as_well_has_its_own_problem(language, heading):
    data = encode(textured(), "JPEG") + archive()
    caller = client(language)

    machine, page = post(caller, data, "/api/v1/classifications"), post(caller, data)

    assert machine.status_code == page.status_code == 415
    assert machine.get_json(force=True)["type"] == "/problems/polyglot"
    assert heading in page.text
