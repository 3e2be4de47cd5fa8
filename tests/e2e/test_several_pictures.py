"""Several pictures at once, and what is done with a picture before it is sent."""

import io
import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.e2e.test_pages import violations
from tests.e2e.visitor import picture_file
from tests.pictures import ORIENTATION, encode, paint

# A browser does not show its driver the body of an upload. The pictures of one are read as the server would get them.
WATCH_UPLOADS = """
  window.sent = [];
  const send = XMLHttpRequest.prototype.send;
  XMLHttpRequest.prototype.send = function (body) {
    window.sent.push(...body.getAll("file").map((file) => ({ file, type: file.type, bytes: file.size })));
    send.call(this, body);
  };
"""


@pytest.fixture
def visitor(visit):
    visitor = visit("en")
    visitor.page.add_init_script(WATCH_UPLOADS)
    visitor.open_dialog()
    return visitor


def three(names=("malignant", "benign", "out_of_scope")):
    return [picture_file(outcome, name=f"Budi-{outcome}.png") for outcome in names]


def chosen(visitor):
    return visitor.page.get_by_role("list", name="Pictures chosen").get_by_role("listitem")


def sent_pictures(visitor):
    """Type and decoded picture of everything that was sent."""
    read = "Promise.all(sent.map(async (s) => [s.type, [...new Uint8Array(await s.file.arrayBuffer())]]))"
    return [(kind, Image.open(io.BytesIO(bytes(data)))) for kind, data in visitor.page.evaluate(read)]


def photograph(size=(3000, 2000), orientation=None):
    """Left half red, right half blue, with noise: a JPEG of more than 1 MB."""
    pixels = np.random.default_rng(1).integers(0, 90, (size[1], size[0], 3), dtype=np.uint8)
    pixels[:, : size[0] // 2, 0] = 220
    pixels[:, size[0] // 2 :, 2] = 220
    exif = Image.Exif()
    if orientation:
        exif[ORIENTATION] = orientation
    return encode(Image.fromarray(pixels), "JPEG", quality=90, exif=exif)


@pytest.mark.parametrize("language", ["id", "en"])
def test_several_pictures_get_a_result_each(visit, language):
    visitor = visit(language)
    visitor.open_dialog()
    visitor.file.set_input_files([*three(), {"name": "x.png", "mimeType": "image/png", "buffer": b"text"}])
    visitor.consent.check()
    for box in visitor.page.get_by_role("group").get_by_role("checkbox").all():
        box.check()

    visitor.button("check").click()

    dialog = visitor.page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", level=2)).to_be_focused()
    for place, outcome in enumerate(("malignant", "benign", "out_of_scope"), 1):
        expect(dialog.get_by_role("heading", level=3).nth(place - 1)).to_contain_text(visitor.words[outcome])
    expect(dialog.get_by_role("article")).to_have_count(3)
    expect(dialog.get_by_role("listitem").nth(3)).to_contain_text({"id": "tidak dinilai", "en": "not assessed"}[language])
    assert violations(visitor.page) == []
    assert "Budi" not in visitor.page.content()


@pytest.mark.parametrize(("width", "text"), [(320, "100%"), (640, "200%")])
def test_several_results_fit_a_small_screen_and_text_of_twice_the_size(visit, width, text):
    visitor = visit(viewport={"width": width, "height": 640})
    visitor.open_dialog()
    visitor.page.evaluate("size => document.documentElement.style.setProperty('font-size', size)", text)
    visitor.file.set_input_files(three())
    visitor.page.get_by_role("button", name="Potong").first.click()
    expect(visitor.page.get_by_role("button", name="Selesai")).to_be_visible()
    measure = "dialog => [dialog.scrollWidth, dialog.clientWidth]"
    width, room = visitor.page.get_by_role("dialog").evaluate(measure)
    assert width == room
    visitor.consent.check()

    visitor.button("check").click()

    expect(visitor.page.get_by_role("article")).to_have_count(3)
    width, room = visitor.page.get_by_role("dialog").evaluate(measure)
    assert width == room


def test_colours_of_the_reader_keep_the_square_and_the_results_apart(visit):
    visitor = visit(forced_colors="active")
    visitor.open_dialog()
    visitor.file.set_input_files(three())
    visitor.page.get_by_role("button", name="Potong").first.click()
    frame = visitor.page.locator("[data-frame]").first
    colours = frame.evaluate("frame => [getComputedStyle(frame).borderTopColor, getComputedStyle(frame).outlineColor]")
    assert colours[0] != colours[1]
    visitor.consent.check()

    visitor.button("check").click()

    entry = visitor.page.get_by_role("dialog").get_by_role("listitem").first
    edge = entry.evaluate("item => [getComputedStyle(item).borderLeftColor, getComputedStyle(document.body).backgroundColor]")
    assert edge[0] != edge[1]
    # Words carry it, whatever the colours are.
    expect(entry).to_contain_text(visitor.words["malignant"])


def test_without_scripts_several_pictures_get_a_page_of_results(visit):
    visitor = visit(java_script_enabled=False)
    visitor.page.goto("/check")
    visitor.file.set_input_files(three())
    visitor.consent.check()
    visitor.page.get_by_role("checkbox", name="Tunjukkan tempat yang dilihat model").check()

    visitor.button("check").click()

    expect(visitor.page.get_by_role("heading", level=1)).to_have_text("Hasil 3 gambar")
    expect(visitor.page.get_by_role("heading", level=2).nth(0)).to_have_text(f"Gambar 1: {visitor.words['malignant']}")
    expect(visitor.page.get_by_role("article")).to_have_count(3)
    expect(visitor.page.get_by_role("slider")).to_have_count(0)
    assert "Budi" not in visitor.page.content()


def test_one_of_several_can_be_left_out_again(visitor):
    visitor.file.set_input_files(three())
    expect(chosen(visitor)).to_have_count(3)

    chosen(visitor).nth(0).get_by_role("button", name="Remove").click()

    expect(chosen(visitor)).to_have_count(2)
    expect(chosen(visitor).nth(0)).to_contain_text("Picture 1")
    expect(chosen(visitor).nth(0).get_by_role("button", name="Remove")).to_be_focused()
    chosen(visitor).nth(1).get_by_role("button", name="Remove").click()
    visitor.consent.check()
    visitor.button("check").click()
    expect(visitor.heading("benign")).to_be_focused()


def test_more_than_sixteen_are_refused_before_they_are_sent(visitor):
    visitor.file.set_input_files([picture_file()] * 17)
    visitor.consent.check()

    visitor.button("check").click()

    expect(visitor.page.get_by_role("alert")).to_contain_text("Too many pictures")
    assert visitor.page.evaluate("sent.length") == 0


@pytest.mark.parametrize(("orientation", "expected"), [(None, (2048, 1365)), (6, (1365, 2048))], ids=["as it is", "turned"])
def test_a_large_photograph_is_sent_smaller_and_upright(visitor, orientation, expected):
    data = photograph(orientation=orientation)
    visitor.fill(name="x.jpg", mimeType="image/jpeg", buffer=data)

    visitor.button("check").click()

    expect(visitor.result).to_be_visible()
    ((kind, picture),) = sent_pictures(visitor)
    assert (kind, picture.size) == ("image/jpeg", expected)
    assert visitor.page.evaluate("sent[0].bytes") < len(data)
    assert not picture.getexif()
    # Red was left; turned by a quarter to the right it is at the top.
    red, blue = picture.getpixel((30, 30)), picture.getpixel((expected[0] - 30, expected[1] - 30))
    assert red[0] > red[2]
    assert blue[2] > blue[0]


def test_what_is_small_or_cannot_be_drawn_is_sent_as_it_is(visitor):
    small, strange = paint("malignant", size=(400, 300)), bytes(1_200_000)
    visitor.file.set_input_files(
        [
            {"name": "x.png", "mimeType": "image/png", "buffer": small},
            {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": strange},
            {"name": "x.dcm", "mimeType": "application/dicom", "buffer": strange},
        ]
    )
    visitor.consent.check()

    visitor.button("check").click()

    expect(visitor.page.get_by_role("article")).to_have_count(1)
    assert visitor.page.evaluate("sent.map((s) => s.bytes)") == [len(small), len(strange), len(strange)]


def test_a_part_is_chosen_with_the_keyboard_alone(visitor):
    visitor.fill(name="x.jpg", mimeType="image/jpeg", buffer=photograph((600, 400)))
    visitor.page.get_by_role("button", name="Crop", exact=True).press("Enter")
    expect(visitor.page.get_by_role("button", name="Left")).to_be_focused()
    expect(visitor.page.get_by_text("The square is 320 pixels wide, 140 from the left and 40 from the top.")).to_be_visible()
    assert violations(visitor.page) == []

    visitor.page.get_by_role("button", name="Smaller").press("Enter")
    for _ in range(12):
        visitor.page.get_by_role("button", name="Right").press("Space")
    expect(visitor.page.get_by_text("The square is 256 pixels wide, 344 from the left and 72 from the top.")).to_be_visible()
    visitor.page.get_by_role("button", name="Done", exact=True).press("Enter")
    expect(visitor.page.get_by_role("button", name="Crop", exact=True)).to_be_focused()
    expect(visitor.page.get_by_text("cropped")).to_be_visible()
    visitor.button("check").click()

    expect(visitor.result).to_be_visible()
    ((_, picture),) = sent_pictures(visitor)
    assert picture.size == (256, 256)
    assert all(picture.getpixel((x, 128))[2] > picture.getpixel((x, 128))[0] for x in (2, 128, 253))


def test_a_part_is_chosen_by_pointing_and_the_whole_is_one_click_away(visitor):
    visitor.fill(name="x.jpg", mimeType="image/jpeg", buffer=photograph((600, 400)))
    visitor.page.get_by_role("button", name="Crop", exact=True).click()
    stage = visitor.page.get_by_role("img", name="Picture to crop")
    expect(visitor.page.get_by_text("140 from the left")).to_be_visible()

    box = stage.bounding_box()
    visitor.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    visitor.page.mouse.down()
    visitor.page.mouse.move(box["x"] + 2, box["y"] + 2)
    visitor.page.mouse.up()

    expect(visitor.page.get_by_text("320 pixels wide, 0 from the left and 0 from the top")).to_be_visible()
    visitor.page.get_by_role("button", name="Whole picture").click()
    expect(visitor.page.get_by_text("cropped")).to_be_hidden()
    visitor.button("check").click()
    expect(visitor.result).to_be_visible()
    ((_, picture),) = sent_pictures(visitor)
    assert picture.size == (600, 400)


def test_a_part_that_cannot_be_cut_out_is_not_sent_whole(visitor):
    visitor.fill(name="x.jpg", mimeType="image/jpeg", buffer=photograph((600, 400)))
    visitor.page.get_by_role("button", name="Crop", exact=True).click()
    visitor.page.get_by_role("button", name="Done", exact=True).click()
    visitor.page.evaluate("() => { window.createImageBitmap = () => Promise.reject(new Error('no memory')); }")

    visitor.button("check").click()

    expect(visitor.page.get_by_role("alert")).to_be_focused()
    assert visitor.page.evaluate("sent.length") == 0


def test_the_camera_adds_to_what_was_chosen(visit):
    visitor = visit(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    visitor.open_dialog()
    visitor.file.set_input_files(picture_file("benign"))

    visitor.page.get_by_label("Ambil foto").set_input_files(picture_file("malignant"))
    visitor.consent.check()
    visitor.button("check").click()

    expect(visitor.page.get_by_role("heading", name=re.compile("Gambar 2: .*ganas"))).to_be_visible()
