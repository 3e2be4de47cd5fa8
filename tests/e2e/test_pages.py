"""What holds on every page: languages, keyboard, small screens, paper, accessibility."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.e2e.visitor import picture_file

PAGES = ("/", "/services", "/check", "/model", "/help", "/privacy", "/problems/overloaded", "/no-such-page")
LOOKS = (("id", "light"), ("en", "dark"))
"""Both languages and both schemes: no fault of one has to do with the other."""
AXE_OPTIONS = {
    "resultTypes": ["violations"],
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
}


def violations(page):
    found = Axe().run(page, options=AXE_OPTIONS).response["violations"]
    return [(item["id"], [node["html"] for node in item["nodes"]]) for item in found]


def show_state(visitor, state):
    """Bring the page into one of the states that a check goes through."""
    visitor.open_dialog()
    if state == "form":
        return
    if state == "problem":
        visitor.button("check").click()
        expect(visitor.page.get_by_role("alert")).to_be_visible()
        return
    visitor.fill(**picture_file("benign" if state == "sending" else state))
    if state == "sending":
        visitor.page.route("**/check", lambda route: None)
        visitor.button("check").click()
        expect(visitor.button("cancel")).to_be_visible()
        return
    visitor.button("check").click()
    expect(visitor.heading(state)).to_be_visible()


STATES = ("form", "problem", "sending", "malignant", "benign", "uncertain", "out_of_scope")


@pytest.mark.parametrize(("language", "scheme"), LOOKS)
def test_axe_finds_nothing_on_the_pages(visit, language, scheme):
    page = visit(language, color_scheme=scheme).page
    found = {}
    for path in PAGES:
        page.goto(path)
        found[path] = violations(page)

    assert {path: items for path, items in found.items() if items} == {}


@pytest.mark.parametrize(("language", "scheme"), LOOKS)
@pytest.mark.parametrize("state", STATES)
def test_axe_finds_nothing_in_the_dialogs(visit, state, language, scheme):
    visitor = visit(language, color_scheme=scheme)
    show_state(visitor, state)

    assert violations(visitor.page) == []


def test_pages_fit_a_screen_of_320_pixels(visit):
    page = visit(viewport={"width": 320, "height": 640}).page
    for path in PAGES:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") == 320, path


@pytest.mark.parametrize("state", STATES)
def test_dialogs_fit_a_screen_of_320_pixels(visit, state):
    visitor = visit(viewport={"width": 320, "height": 640})
    show_state(visitor, state)

    widths = visitor.page.get_by_role("dialog").evaluate("dialog => [dialog.scrollWidth, dialog.clientWidth, innerWidth]")
    assert widths[0] == widths[1] < widths[2] == 320


def test_text_of_twice_the_size_fits_too(visit):
    """640 wide with text at 200 %, as a reader sets it in the browser."""
    visitor = visit(viewport={"width": 640, "height": 800})
    for path in PAGES:
        visitor.page.goto(path)
        visitor.page.evaluate("document.documentElement.style.setProperty('font-size', '200%')")
        assert visitor.page.evaluate("document.documentElement.scrollWidth") == 640, path


def test_the_language_is_remembered_and_leads_back_to_the_same_page(visit):
    visitor = visit()
    visitor.page.goto("/model")
    expect(visitor.page.locator("html")).to_have_attribute("lang", "id")

    visitor.page.get_by_role("button", name="English").click()

    expect(visitor.page).to_have_url("/model")
    expect(visitor.page.get_by_role("heading", level=1)).to_have_text("About the model")
    visitor.page.goto("/")
    expect(visitor.page.locator("html")).to_have_attribute("lang", "en")
    visitor.page.get_by_role("button", name="Bahasa Indonesia").click()
    expect(visitor.page.get_by_role("button", name="Mulai pemeriksaan")).to_be_visible()


def test_the_whole_check_works_with_the_keyboard(visit):
    visitor = visit()
    page = visitor.page
    # From the start: asked for only at the key press, the interception may come too late.
    page.on("filechooser", lambda chooser: None)
    page.goto("/")

    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Langsung ke isi utama")).to_be_focused()
    expect(page.get_by_role("link", name="Langsung ke isi utama")).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(visitor.button("start")).to_be_focused()
    page.keyboard.press("Enter")
    expect(visitor.button("close")).to_be_focused()
    page.keyboard.press("Tab")
    expect(visitor.file).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(picture_file("malignant"))
    expect(page.get_by_role("button", name="Potong")).to_be_visible()
    for name in ("Potong", "Hapus"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name=name)).to_be_focused()
    for name in ("Tunjukkan tempat yang dilihat model", "Periksa seberapa tetap", "tanpa gambar", "dengan gambar"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("checkbox", name=name)).to_be_focused()
    page.keyboard.press("Tab")
    expect(visitor.consent).to_be_focused()
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    expect(visitor.button("check")).to_be_focused()
    page.keyboard.press("Enter")
    expect(visitor.heading("malignant")).to_be_focused()
    page.keyboard.press("Escape")
    expect(visitor.result).to_be_hidden()
    expect(visitor.button("start")).to_be_focused()


def test_the_focus_of_the_hidden_file_input_is_visible_on_its_label(visit):
    visitor = visit()
    visitor.open_dialog()
    visitor.page.keyboard.press("Tab")
    expect(visitor.file).to_be_focused()

    label = visitor.page.get_by_text(visitor.words["choose"], exact=True)
    assert label.evaluate("label => getComputedStyle(label).outlineStyle") == "solid"


def test_escape_closes_the_form_and_focus_returns(visit):
    visitor = visit()
    visitor.open_dialog()
    expect(visitor.page.get_by_role("dialog")).to_be_visible()

    visitor.page.keyboard.press("Escape")

    expect(visitor.page.get_by_role("dialog")).to_be_hidden()
    expect(visitor.button("start")).to_be_focused()


def test_on_paper_only_the_result_is_left(visit):
    visitor = visit()
    show_state(visitor, "malignant")

    visitor.page.emulate_media(media="print")

    expect(visitor.heading("malignant")).to_be_visible()
    expect(visitor.page.get_by_text("Kode kasus", exact=True)).to_be_visible()
    expect(visitor.page.get_by_role("banner")).to_be_hidden()
    expect(visitor.page.get_by_role("button", name="Cetak")).to_be_hidden()
    assert visitor.page.get_by_role("dialog").evaluate("dialog => dialog.scrollHeight <= dialog.clientHeight + 1")


def test_the_print_button_prints(visit):
    visitor = visit()
    visitor.page.add_init_script("window.print = () => { window.printed = true; }")
    show_state(visitor, "benign")

    visitor.page.get_by_role("button", name="Cetak").click()

    assert visitor.page.evaluate("window.printed") is True


def test_colours_of_the_reader_keep_the_bar_readable(visit):
    visitor = visit(forced_colors="active")
    show_state(visitor, "malignant")

    colours = visitor.page.get_by_role("img").evaluate(
        "bar => [...bar.querySelectorAll('rect')].map(part => getComputedStyle(part).fill)"
    )
    assert colours[0] != colours[1]


def test_readers_who_want_no_motion_get_none(visit):
    page = visit(reduced_motion="reduce").page
    page.goto("/")

    assert page.get_by_role("button", name="Mulai pemeriksaan").evaluate("e => getComputedStyle(e).transitionDuration") == "0s"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_whatever_the_keyboard_reaches_shows_that_it_is_reached(visit, scheme):
    page = visit(color_scheme=scheme).page
    page.goto("/services")
    reached = []
    while True:
        page.keyboard.press("Tab")
        style = page.evaluate(
            """() => { const at = document.activeElement, { outlineStyle, outlineWidth } = getComputedStyle(at);
                       return at === document.body ? null : [at.textContent.trim(), outlineStyle, outlineWidth]; }"""
        )
        if style is None:
            break
        reached.append(style)

    assert len(reached) > 10
    assert [style for style in reached if style[1:] != ["solid", "3px"]] == []


def test_dark_pages_are_dark_and_paper_is_white(visit):
    page = visit(color_scheme="dark").page
    page.goto("/")
    ground = "getComputedStyle(document.documentElement).backgroundColor"

    assert page.evaluate(ground) == "rgb(17, 25, 29)"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"


def test_the_services_say_how_often_the_model_is_right_and_where_it_ends(visit):
    page = visit("en").page
    page.goto("/")
    page.get_by_role("link", name="Our services").click()

    for text in (
        "Of 100 malignant lesions in its test it flagged 95.",
        "95.0% (95% interval 91.0% to 98.0%, n\u00a0=\u00a0200)",
        "0.500 (95% interval 0.400 to 0.600",
        "How well it works on darker skin is not known.",
        "rule out cancer: no answer means that a lesion is harmless",
    ):
        expect(page.get_by_text(text)).to_be_visible()


def test_what_is_off_is_not_claimed_on_the_page_on_privacy(visit):
    page = visit("en").page
    page.goto("/privacy")

    assert page.get_by_role("term").all_inner_texts() == ["Log of requests"]
    expect(page.get_by_role("table").get_by_role("row")).to_have_count(2)
