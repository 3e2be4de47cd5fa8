"""What can be done with a result, and the ways of a check that end without one."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import Error, expect
from pypdf import PdfReader

from tests import processes
from tests.e2e.test_pages import violations
from tests.e2e.visitor import Visitor, picture_file
from tests.pictures import encode, paint, textured

OPTIONS = ("Show where the model looked", "Check how steady the answer is")


def check(visitor, outcome="malignant", options=()):
    visitor.open_dialog()
    visitor.fill(**(picture_file(outcome) if isinstance(outcome, str) else outcome))
    for option in options:
        visitor.page.get_by_role("checkbox", name=option).check()
    visitor.button("check").click()
    expect(visitor.result).to_be_visible()


def test_the_map_is_shown_on_demand(visit):
    visitor = visit("en")
    # The tiny model's map is how green each place is.
    check(visitor, {"name": "x.png", "mimeType": "image/png", "buffer": encode(textured(), "PNG")}, OPTIONS[:1])
    drawing = visitor.result.get_by_role("img", name="The picture in grey")
    expect(drawing).to_be_hidden()

    visitor.page.get_by_text("Show the map").press("Enter")

    expect(drawing).to_be_visible()
    assert drawing.evaluate("image => image.naturalWidth") == 300
    expect(visitor.result.get_by_text("not where the cancer is")).to_be_visible()
    assert violations(visitor.page) == []


def test_a_map_that_shows_nothing_says_so(visit):
    visitor = visit("en")
    check(visitor, "malignant", OPTIONS[:1])

    expect(visitor.result.get_by_text("No map is drawn")).to_be_visible()


def test_the_steadiness_of_an_answer_is_told(visit):
    visitor = visit("en")
    check(visitor, "benign", OPTIONS[1:])

    expect(visitor.result.get_by_text("in all 4 orientations")).to_be_visible()


@pytest.mark.parametrize(("outcome", "few", "many"), [("malignant", "about 3", "about 77"), ("benign", "about 1", "about 66")])
def test_the_reader_chooses_who_is_checked(visit, outcome, few, many):
    visitor = visit("en")
    check(visitor, outcome)
    slider = visitor.result.get_by_role("slider")
    answer = visitor.result.get_by_role("status")
    expect(answer).to_have_text("about 20" if outcome == "malignant" else "about 5")

    slider.press("Home")
    expect(answer).to_have_text(few)
    slider.press("End")
    expect(answer).to_have_text(many)


def test_the_case_code_is_copied(visit):
    visitor = visit("en")
    visitor.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    check(visitor)
    code = visitor.result.get_by_text(re.compile(r"^[0-9a-f]{8}$")).inner_text()

    visitor.result.get_by_role("button", name="Copy").click()

    expect(visitor.result.get_by_role("button", name="Copied")).to_be_visible()
    assert visitor.page.evaluate("navigator.clipboard.readText()") == code


@pytest.mark.parametrize("scripts", [True, False])
def test_the_result_is_saved_as_a_pdf(visit, scripts):
    visitor = visit("en", java_script_enabled=scripts)
    visitor.page.goto("/check")
    visitor.fill(**picture_file("malignant"))
    visitor.page.get_by_role("checkbox", name="Make a PDF of the result, without the picture").check()
    visitor.button("check").click()
    code = visitor.page.get_by_role("article").get_by_text(re.compile(r"^[0-9a-f]{8}$")).inner_text()

    with visitor.page.expect_download() as saving:
        visitor.page.get_by_role("link", name="Save the PDF").click()

    assert saving.value.suggested_filename == f"dermserve-{code}.pdf"
    text = PdfReader(saving.value.path()).pages[0].extract_text()
    assert visitor.words["malignant"] in text
    assert code in text


def test_on_paper_there_are_no_controls(visit):
    visitor = visit("en")
    check(visitor)

    visitor.page.emulate_media(media="print")

    expect(visitor.result.get_by_role("slider")).to_be_hidden()
    expect(visitor.result.get_by_role("button")).to_have_count(0)
    expect(visitor.result.get_by_text("if 7 of 100 people checked have one")).to_be_visible()


def test_the_back_button_shows_nobodys_result(visit):
    visitor = visit("en", java_script_enabled=False)
    visitor.page.goto("/check")
    visitor.fill(**picture_file("malignant"))
    visitor.button("check").click()
    expect(visitor.heading("malignant")).to_be_visible()
    visitor.page.goto("/model")

    # It is not stored, and what it was the answer to is not sent again unasked.
    with pytest.raises(Error, match="ERR_CACHE_MISS"):
        visitor.page.go_back()

    expect(visitor.heading("malignant")).to_have_count(0)


@pytest.mark.parametrize("language", ["id", "en"])
def test_a_busy_server_says_so_and_the_picture_is_still_there(browser, tmp_path, language):
    settings = {"GATEWAY_WORKERS": "1", "GATEWAY_THREADS": "1", "GATEWAY_MAX_WAITING": "0", "GATEWAY_GOLDEN_PERIOD_S": "0"}
    with (
        processes.paced_server(tmp_path, slots=1, seconds=4.0) as (_, port),
        processes.gateway(port, tmp_path, **settings) as (_, address),
        ThreadPoolExecutor(1) as pool,
    ):
        context = browser.new_context(base_url=address)
        context.add_cookies([{"name": "language", "value": language, "url": address}])
        visitor = Visitor(context.new_page(), language)
        visitor.open_dialog()
        visitor.fill()
        other = pool.submit(processes.post_picture, address, paint())
        present = ("pictures", "at_work")
        processes.wait_until(lambda: processes.read_metrics(address).get(present) == 1)

        visitor.button("check").click()

        expect(visitor.page.get_by_role("alert")).to_be_focused()
        words = {"id": "Terlalu banyak orang", "en": "Too many people are using the service"}
        expect(visitor.page.get_by_role("alert")).to_contain_text(words[language])
        assert violations(visitor.page) == []
        assert other.result().status_code == 200
        visitor.button("check").click()
        expect(visitor.page.get_by_role("article")).to_be_visible(timeout=20_000)
        context.close()
