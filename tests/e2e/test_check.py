"""The check with scripts: from the button to the result, and every way it can go otherwise."""

import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.e2e.visitor import picture_file
from tests.pictures import encode, paint

OUTCOMES = ("malignant", "benign", "uncertain", "guarded", "out_of_scope")


def heavy_picture(side: int = 700) -> bytes:
    """Noise does not compress: about 1.5 MB."""
    return encode(Image.fromarray(np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)), "PNG")


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("language", ["id", "en"])
def test_a_picture_gets_its_result_in_a_dialog(visit, outcome, language):
    visitor = visit(language)
    visitor.open_dialog()
    visitor.fill(**picture_file(outcome))

    visitor.button("check").click()

    expect(visitor.result).to_be_visible()
    expect(visitor.heading(outcome)).to_be_focused()
    assert visitor.page.url.endswith("/")
    expect(visitor.result.get_by_role("img")).to_have_count(0 if outcome == "out_of_scope" else 1)
    expect(visitor.result.get_by_text(re.compile(r"^[0-9a-f]{8}$"))).to_be_visible()


def test_a_malignant_result_says_all_that_is_needed_to_judge_it(visit):
    visitor = visit("en")
    visitor.open_dialog()
    visitor.fill(**picture_file("malignant"))

    visitor.button("check").click()

    for text in (
        "Probability of malignant: 78.4%",
        "From 44.0% on",
        "Between 36.0% and 44.0%",
        "95.0% (95% interval 91.0% to 98.0%, n\u00a0=\u00a0200)",
        "71.0% (95% interval 68.0% to 74.0%, n\u00a0=\u00a0900)",
        "Have a dermatologist examine the lesion as soon as possible",
        "supports a doctor's judgement and does not replace it",
        "may be blurred",
    ):
        expect(visitor.result.get_by_text(text)).to_be_visible()
    expect(visitor.result.get_by_role("button", name="Print")).to_be_visible()


def test_numbers_are_written_as_the_language_writes_them(visit):
    visitor = visit("id")
    visitor.open_dialog()
    visitor.fill(**picture_file("malignant"))

    visitor.button("check").click()

    expect(visitor.result.get_by_role("heading", name="Peluang ganas: 78,4%")).to_be_visible()


def test_the_check_page_shows_the_result_in_a_dialog_too(visit):
    visitor = visit()
    visitor.page.goto("/check")
    visitor.fill(**picture_file("benign"))

    visitor.button("check").click()

    expect(visitor.heading("benign")).to_be_focused()
    visitor.page.keyboard.press("Escape")
    expect(visitor.result).to_be_hidden()
    expect(visitor.button("check")).to_be_focused()


def test_closing_forgets_the_picture_and_the_result(visit):
    visitor = visit()
    visitor.open_dialog()
    visitor.fill()
    expect(visitor.page.get_by_role("figure")).to_be_visible()

    visitor.button("check").click()
    visitor.result.get_by_role("button", name="Tutup").click()

    expect(visitor.result).to_be_hidden()
    expect(visitor.button("start")).to_be_focused()
    expect(visitor.page.get_by_role("article", include_hidden=True)).to_have_count(0)
    visitor.button("start").click()
    expect(visitor.page.get_by_role("figure")).to_be_hidden()
    expect(visitor.consent).not_to_be_checked()


def test_the_file_name_stays_with_the_visitor(visit):
    visitor = visit()
    # A browser does not show its driver the body of an upload.
    visitor.page.add_init_script(
        """const send = XMLHttpRequest.prototype.send;
           XMLHttpRequest.prototype.send = function (body) {
             window.sent = [...body.values()].map((value) => value.name ?? value);
             send.call(this, body);
           };"""
    )
    visitor.open_dialog()
    visitor.fill(**picture_file(name="Budi-Santoso.png"))

    visitor.button("check").click()

    expect(visitor.result).to_be_visible()
    assert visitor.page.evaluate("sent") == ["yes", "picture"]
    assert "Budi" not in visitor.page.content()


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_can_be_dropped_or_pasted(visit, way):
    visitor = visit()
    visitor.open_dialog()
    transfer = visitor.page.evaluate_handle(
        """bytes => { const transfer = new DataTransfer();
                      transfer.items.add(new File([new Uint8Array(bytes)], "x.png", { type: "image/png" }));
                      return transfer; }""",
        list(paint("malignant")),
    )
    target = visitor.page.get_by_text("atau letakkan di sini")
    if way == "drop":
        target.dispatch_event("drop", {"dataTransfer": transfer})
    else:
        target.evaluate(
            "(e, data) => e.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }))", transfer
        )
    expect(visitor.page.get_by_role("figure")).to_be_visible()
    visitor.consent.check()

    visitor.button("check").click()

    expect(visitor.heading("malignant")).to_be_visible()


def test_a_phone_offers_its_camera(visit):
    visitor = visit(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    visitor.open_dialog()

    expect(visitor.page.get_by_text("Ambil foto")).to_be_visible()
    visitor.page.get_by_label("Ambil foto").set_input_files(picture_file("malignant"))
    visitor.consent.check()
    visitor.button("check").click()

    expect(visitor.heading("malignant")).to_be_visible()


@pytest.mark.parametrize(
    ("file", "what", "next_step"),
    [
        ({"name": "x.txt", "mimeType": "text/plain", "buffer": b"text"}, "not a picture", "Choose a JPEG"),
        ({"name": "x.png", "mimeType": "image/png", "buffer": b"text"}, "not a picture", "Choose a JPEG"),
        ({"name": "x.png", "mimeType": "image/png", "buffer": paint()[:60]}, "damaged", "take the picture again"),
        ({"name": "x.png", "mimeType": "image/png", "buffer": paint(size=(30, 30))}, "too small", "64 pixels"),
        ({"name": "x.png", "mimeType": "image/png", "buffer": bytes(20_000_001)}, "too large", "up to 20\u00a0MB"),
    ],
    ids=["by its type", "by its bytes", "damaged", "too small", "too large"],
)
def test_a_file_that_cannot_be_assessed_says_why_and_what_to_do(visit, file, what, next_step):
    visitor = visit("en")
    visitor.open_dialog()
    visitor.fill(**file)

    visitor.button("check").click()

    problem = visitor.page.get_by_role("alert")
    expect(problem).to_be_focused()
    expect(problem.get_by_role("heading")).to_contain_text(what)
    expect(problem).to_contain_text(next_step)
    visitor.file.set_input_files(picture_file("benign"))
    visitor.button("check").click()
    expect(visitor.heading("benign")).to_be_visible()


def test_a_form_that_is_not_filled_in_is_not_sent(visit):
    visitor = visit("en")
    visitor.open_dialog()
    sent = []
    visitor.page.on("request", lambda request: sent.append(request.method))

    visitor.button("check").click()
    expect(visitor.page.get_by_role("alert")).to_contain_text("No picture was chosen")
    visitor.file.set_input_files(picture_file())
    visitor.button("check").click()
    expect(visitor.page.get_by_role("alert")).to_contain_text("consent is missing")
    expect(visitor.consent).to_have_attribute("aria-invalid", "true")
    assert "POST" not in sent

    visitor.consent.check()
    expect(visitor.page.get_by_role("alert")).to_be_hidden()
    expect(visitor.consent).not_to_have_attribute("aria-invalid", "true")


def test_cancel_ends_the_upload(visit):
    visitor = visit()
    visitor.open_dialog()
    visitor.fill(name="x.png", mimeType="image/png", buffer=heavy_picture())
    visitor.slow_down(bytes_per_second=100_000)

    visitor.button("check").click()
    expect(visitor.status).to_have_text("Mengirim gambar…")
    expect(visitor.button("cancel")).to_be_focused()
    expect(visitor.page.get_by_role("progressbar")).to_have_js_property("max", 1)
    with visitor.page.expect_event("requestfailed") as failed:
        visitor.button("cancel").click()

    assert failed.value.failure == "net::ERR_ABORTED"
    expect(visitor.status).to_have_text("Dibatalkan. Tidak ada yang disimpan.")
    expect(visitor.button("check")).to_be_focused()


def test_progress_moves_and_then_the_picture_is_analysed(visit):
    visitor = visit()
    visitor.open_dialog()
    visitor.fill(name="x.png", mimeType="image/png", buffer=heavy_picture())
    visitor.page.evaluate(
        """() => { window.seen = [];
                   const bar = document.querySelector("progress"), text = document.querySelector("[role=status]");
                   const look = () => seen.push([bar.hasAttribute("value") ? bar.value : null, text.textContent]);
                   new MutationObserver(look).observe(bar, { attributes: true });
                   new MutationObserver(look).observe(text, { childList: true }); }"""
    )
    visitor.slow_down(bytes_per_second=1_000_000)

    visitor.button("check").click()

    expect(visitor.result).to_be_visible()
    seen = visitor.page.evaluate("seen")
    assert any(value is not None and 0 < value < 1 for value, _ in seen)
    assert [None, "Menganalisis gambar…"] in seen


def test_escape_ends_the_upload_too(visit):
    visitor = visit()
    visitor.open_dialog()
    visitor.fill(name="x.png", mimeType="image/png", buffer=heavy_picture())
    visitor.slow_down(bytes_per_second=100_000)
    visitor.button("check").click()
    expect(visitor.status).to_have_text("Mengirim gambar…")

    with visitor.page.expect_event("requestfailed"):
        visitor.page.keyboard.press("Escape")

    expect(visitor.page.get_by_role("dialog")).to_be_hidden()
    expect(visitor.button("start")).to_be_focused()


def test_submitting_twice_sends_once(visit):
    visitor = visit()
    visitor.open_dialog()
    visitor.fill()
    sent = []
    visitor.page.on("request", lambda request: sent.append(request.method))

    visitor.button("check").evaluate("button => { button.click(); button.form.requestSubmit(); }")

    expect(visitor.result).to_be_visible()
    assert sent.count("POST") == 1


def test_a_lost_connection_is_explained_and_the_picture_is_still_there(visit):
    visitor = visit("en")
    visitor.open_dialog()
    visitor.fill()
    visitor.page.context.set_offline(True)

    visitor.button("check").click()

    expect(visitor.page.get_by_role("alert")).to_contain_text("The server could not be reached")
    visitor.page.context.set_offline(False)
    visitor.button("check").click()
    expect(visitor.heading("benign")).to_be_visible()


def test_an_answer_that_is_not_ours_is_not_shown(visit):
    visitor = visit("en")
    visitor.open_dialog()
    visitor.fill()
    visitor.page.route("**/check", lambda route: route.fulfill(status=502, body="<h1>Bad Gateway of a proxy</h1>"))

    visitor.button("check").click()

    expect(visitor.page.get_by_role("alert")).to_contain_text("The server could not be reached")
    assert "Bad Gateway" not in visitor.page.content()


def test_two_at_once_never_see_each_others_result(visit):
    pairs = [(visit(), outcome) for outcome in ("malignant", "benign") * 3]
    for visitor, outcome in pairs:
        visitor.open_dialog()
        visitor.fill(**picture_file(outcome))
    # Started in every page before any of them is looked at.
    for visitor, _ in pairs:
        visitor.button("check").evaluate("button => button.click()")

    for visitor, outcome in pairs:
        expect(visitor.heading(outcome)).to_be_visible()
    codes = [visitor.result.get_by_text(re.compile(r"^[0-9a-f]{8}$")).inner_text() for visitor, _ in pairs]
    assert len(set(codes)) == len(pairs)
