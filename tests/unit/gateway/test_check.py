"""What is sent from the page and what comes back, without a socket."""

import base64
import html
import io
import re

import numpy as np
import pytest
from PIL import Image
from pypdf import PdfReader
from werkzeug.datastructures import MultiDict

from gateway.api_keys import ApiKeys
from gateway.app import Doors, create_app
from gateway.check import MAX_TURNED
from gateway.classify import MAX_PICTURES
from gateway.errors import AuditUnavailable, CasesUnavailable, ModelServerUnavailable
from gateway.predictor import Prediction
from gateway.settings import KEYS, Settings
from tests import doors
from tests.metadata import METADATA
from tests.pictures import encode, paint
from tests.unit.gateway.test_cases_api import ListAudit, MemoryStore

CLEAR_MAP = np.zeros((7, 7), np.float32)
SPOT = CLEAR_MAP.copy()
SPOT[0, 0] = 3.0


class RedPredictor:
    """The redder the upper left corner, the more malignant: it changes as the picture turns."""

    def __init__(self, cells=SPOT, versions=(1,)):
        self.cells = cells
        self.versions = versions
        self.batches = []

    def predict(self, image):
        return self._predict(image, 0)

    def predict_batch(self, images):
        self.batches.append(len(images))
        return [self._predict(image, place) for place, image in enumerate(images)]

    def _predict(self, image, place):
        version = self.versions[place % len(self.versions)]
        return Prediction(float(image[:100, :100, 0].mean()) / 255, 0.0, self.cells, version)

    def metadata(self, version):
        return METADATA

    def live_metadata(self, timeout_s=None):
        return METADATA


class FailingStore(MemoryStore):
    def keep(self, case, seal):
        raise CasesUnavailable


@pytest.fixture
def predictor():
    return RedPredictor()


@pytest.fixture
def audit():
    return ListAudit()


@pytest.fixture
def caller(predictor, audit):
    return make_caller(predictor, audit)


def make_caller(predictor, audit, store=None, **settings):
    app = create_app(Settings(max_upload_bytes=2_000_000, **settings), predictor, audit=audit, case_store=store)
    caller = app.test_client()
    caller.set_cookie("language", "en")
    return caller


def send(caller, *pictures, **fields):
    form = MultiDict({"consent": "yes"} | fields)
    for number, picture in enumerate(pictures):
        form.add("file", (io.BytesIO(picture), f"Budi-{number}.png"))
    return caller.post("/check", data=form, headers={"X-Request-ID": "the-request-1"})


def corner_picture():
    """Malignant as it is, and benign turned."""
    picture = Image.new("RGB", (300, 300), "black")
    picture.paste((255, 0, 0), (0, 0, 150, 150))
    return encode(picture, "PNG")


def titles(page):
    """Of the articles, in their order."""
    return [
        re.sub(r"\s+", " ", text).strip() for text in re.findall(r'<h2 id="result-heading-\d+"[^>]*>(.*?)</h2>', page, re.S)
    ]


def test_several_pictures_get_an_answer_each_from_one_call(caller, predictor):
    response = send(caller, paint("malignant"), paint("benign"), paint("uncertain"))

    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert predictor.batches == [3]
    assert titles(response.text) == [
        "Picture 1: Shows signs of a malignant lesion",
        "Picture 2: Looks more like a benign lesion",
        "Picture 3: Uncertain: have a dermatologist look",
    ]
    assert "Budi" not in response.text


def test_no_id_comes_twice_on_a_page_of_several(caller):
    page = send(caller, paint("malignant"), paint("benign"), paint("benign"), map="yes", steadiness="yes").text
    ids = re.findall(r'\sid="([^"]+)"', page)

    assert len(ids) == len(set(ids))
    assert {ref for refs in re.findall(r'aria-labelledby="([^"]+)"', page) for ref in refs.split()} <= set(ids)
    assert set(re.findall(r'href="#([^"]+)"', page)) - {"main", "services"} <= set(ids)


def test_which_answer_is_whose_is_seen_on_a_small_picture(caller):
    page = send(caller, paint("malignant"), paint("out_of_scope")).text
    small = [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"data:image/jpeg;base64,([^\"]+)", page)]

    assert [picture.size for picture in small] == [(160, 107)] * 2
    red, blue = (picture.resize((1, 1)).getpixel((0, 0)) for picture in small)
    assert red[0] > 150
    assert blue[0] < 100
    assert "data:image" not in send(caller, paint("malignant")).text


def test_a_picture_that_cannot_be_used_does_not_spoil_the_others(caller, audit):
    page = send(caller, paint("benign"), b"text", paint(size=(20, 20))).text

    assert titles(page) == ["Picture 1: Looks more like a benign lesion"]
    assert page.count("not assessed") >= 4
    assert "This file is not a picture that can be read" in page
    assert "The picture is too small" in page
    assert [(event.request_id, event.outcome) for event in audit.events] == [
        ("the-request-1-1", "benign"),
        ("the-request-1-2", "not-a-picture"),
        ("the-request-1-3", "picture-too-small"),
    ]


def test_nothing_is_shown_of_what_could_not_be_recorded(caller, audit):
    audit.fails = True

    response = send(caller, paint("malignant"), paint("benign"))

    assert response.status_code == 503
    assert "Shows signs" not in response.text


def test_more_pictures_than_one_call_takes_are_refused(caller, predictor):
    assert send(caller, *[paint()] * MAX_PICTURES).status_code == 200

    response = send(caller, *[paint()] * (MAX_PICTURES + 1))

    assert response.status_code == 422
    assert "Too many pictures" in response.text
    assert predictor.batches == [MAX_PICTURES]


def test_without_consent_none_of_several_is_looked_at(caller, audit, predictor):
    response = send(caller, paint(), paint(), consent="")

    assert response.status_code == 422
    assert predictor.batches == []
    assert [event.picture for event in audit.events] == [None]


def test_the_map_is_there_only_when_it_is_asked_for(caller):
    without, page = send(caller, paint()).text, send(caller, paint(), map="yes").text

    assert "data:image/png" not in without
    assert "where the model looked, not where the cancer is" in page
    drawn = Image.open(io.BytesIO(base64.b64decode(re.search(r"data:image/png;base64,([^\"]+)", page)[1])))
    assert drawn.size == (300, 200)
    marked, plain = drawn.getpixel((5, 5)), drawn.getpixel((290, 190))
    assert marked[2] > marked[0] + 50
    assert plain[0] == plain[2]


def test_a_map_that_shows_nothing_is_not_drawn_and_says_so(audit):
    page = send(make_caller(RedPredictor(CLEAR_MAP), audit), paint(), map="yes").text

    assert "No map is drawn" in page
    assert "data:image/png" not in page


def test_every_one_of_several_has_its_map(caller):
    assert send(caller, paint(), paint("malignant"), map="yes").text.count("data:image/png") == 2


def test_a_steady_answer_is_called_steadier_and_not_right(caller, predictor, audit):
    page = send(caller, paint("malignant"), steadiness="yes").text

    assert "in all 4 orientations" in page
    assert predictor.batches == [4]
    # The other orientations are no classifications.
    assert len(audit.events) == 1


def test_an_answer_that_turns_with_the_picture_is_told_and_not_averaged(caller):
    plain, page = (send(caller, corner_picture(), **fields).text for fields in ({}, {"steadiness": "yes"}))

    assert "In 1 of 4 orientations it is the same" in page
    probability = re.compile(r"Probability of malignant: ([^<]+)")
    assert probability.search(page)[1] == probability.search(plain)[1]
    assert "How steady" not in plain


def test_a_benign_answer_that_is_malignant_turned_says_so(caller):
    turned = encode(Image.open(io.BytesIO(corner_picture())).rotate(180), "PNG")

    page = send(caller, turned, steadiness="yes").text

    assert "Looks more like a benign lesion" in page
    assert "at least one orientation the model finds signs of a malignant lesion" in page


def test_two_versions_are_not_compared(audit):
    page = send(make_caller(RedPredictor(versions=(1, 2)), audit), paint(), steadiness="yes").text

    assert "It was not looked at" in page


@pytest.mark.parametrize(("count", "shown"), [(MAX_TURNED, True), (MAX_TURNED + 1, False)])
def test_the_steadiness_of_many_is_not_looked_at(caller, predictor, count, shown):
    page = send(caller, *[paint()] * count, steadiness="yes").text

    assert predictor.batches == [MAX_PICTURES if shown else count]
    assert (page.count("It was not looked at") == 0) == shown


def test_what_a_flag_means_is_counted_from_the_version_that_answered(caller):
    page = send(caller, paint("malignant")).text
    section = re.search(r'<section class="prevalence".*?</section>', page, re.S)[0]

    assert re.findall(r"<dd>\s*([^<]+?)\s*</dd>", section) == ["about 6", "about 20", "about 77"]
    counts = re.search(r'data-counts="([^"]+)"', section)[1].split("|")
    assert len(counts) == 50
    assert (counts[1].strip(), counts[6].strip(), counts[49].strip()) == ("about 6", "about 20", "about 77")


def test_what_a_missing_flag_means_is_counted_too(caller):
    section = re.search(r'<section class="prevalence".*?</section>', send(caller, paint("benign")).text, re.S)[0]

    assert re.findall(r"<dd>\s*([^<]+?)\s*</dd>", section) == ["about 1", "about 5", "about 66"]


def test_an_uncertain_answer_has_no_such_count(caller):
    assert "prevalence" not in send(caller, paint("uncertain")).text


@pytest.mark.parametrize("outcome", ["out_of_scope", "guarded", "uncertain"])
def test_none_is_never_worded_as_reassurance(outcome):
    class Fixed(RedPredictor):
        def predict(self, image):
            malignant, none_score = {"out_of_scope": (0.1, 9), "guarded": (0.8, 9), "uncertain": (0.4, 0)}[outcome]
            return Prediction(malignant, none_score, CLEAR_MAP, 1)

    page = send(make_caller(Fixed(), ListAudit()), paint()).text

    assert re.search(r"does not mean that there is no cancer|must not be set aside|neither a good nor a bad sign", page)
    assert "dermatologist" in page or "see a doctor" in page
    assert not re.search(r"\b(healthy|harmless|all clear|nothing to worry)\b", page)


def test_what_is_kept_is_what_was_answered(predictor, audit):
    store = MemoryStore()

    page = send(make_caller(predictor, audit, store), paint("malignant"), keep="yes").text

    (case,) = store.cases.values()
    assert (case.label, case.model_version, case.kept_by) == ("malignant", 1, "anybody")
    assert case.id in page
    assert audit.told() == [("classify", "malignant"), ("keep_case", "malignant")]
    assert {event.request_id for event in audit.events} == {"the-request-1"}
    assert {event.picture if isinstance(event.picture, str) else None for event in audit.events[1:]} == {case.picture_sha256}


def test_of_several_those_are_kept_that_have_an_answer(predictor, audit):
    store = MemoryStore()

    send(make_caller(predictor, audit, store), paint("malignant"), b"text", paint("benign"), keep="yes")

    assert [case.label for case in store.cases.values()] == ["malignant", "benign"]
    assert len({case.picture_sha256 for case in store.cases.values()}) == 2


def test_nothing_is_kept_that_was_not_asked_for(predictor, audit):
    store = MemoryStore()

    send(make_caller(predictor, audit, store), paint())

    assert store.cases == {}


def test_an_answer_is_shown_although_its_case_could_not_be_kept(predictor, audit):
    response = send(make_caller(predictor, audit, FailingStore()), paint("malignant"), keep="yes")

    assert response.status_code == 200
    assert "Shows signs of a malignant lesion" in response.text
    assert "This case was not kept" in response.text


def test_a_case_without_its_record_is_not_answered(predictor):
    class LateFailure(ListAudit):
        def write(self, event):
            if event.action == "keep_case":
                raise AuditUnavailable("the disk is full")
            return super().write(event)

    store = MemoryStore()
    response = send(make_caller(predictor, LateFailure(), store), paint(), keep="yes")

    assert (response.status_code, store.cases) == (503, {})


@pytest.mark.parametrize(("permissions", "kept"), [(("classify",), 0), (("classify", "write_cases"), 1)])
def test_only_those_keep_who_may(permissions, kept, tmp_path, predictor):
    keys = doors.write_keys(tmp_path / "keys.json", clinic=" ".join(permissions))
    store = MemoryStore()
    settings = Settings(identity=KEYS, api_keys_file=str(keys))
    app = create_app(settings, predictor, Doors(ApiKeys(keys)), case_store=store)
    form = MultiDict([("consent", "yes"), ("keep", "yes"), ("file", (io.BytesIO(paint()), "x.png"))])

    response = app.test_client().post("/check", data=form, headers=doors.header(name="clinic"))

    assert (response.status_code, len(store.cases)) == (200, kept)


@pytest.mark.parametrize(("store", "offered"), [(None, False), (MemoryStore(), True)], ids=["no record", "record"])
def test_keeping_is_offered_where_there_is_a_record(predictor, audit, store, offered):
    assert ('name="keep"' in make_caller(predictor, audit, store).get("/check").text) == offered


def test_a_model_that_does_not_answer_is_the_problem_of_all(audit):
    class Away(RedPredictor):
        def predict_batch(self, images):
            raise ModelServerUnavailable("x")

    response = send(make_caller(Away(), audit), paint(), paint())

    assert response.status_code == 503
    assert "Your picture was not assessed" in response.text


def pdf_of(page):
    (data,) = re.findall(r'href="data:application/pdf;base64,([^"]+)"', page)
    return PdfReader(io.BytesIO(base64.b64decode(data)))


def words(text):
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("language", ["id", "en"])
@pytest.mark.parametrize("outcome", ["malignant", "benign", "uncertain", "out_of_scope"])
def test_a_pdf_says_what_the_page_says(caller, outcome, language):
    caller.set_cookie("language", language)
    page = send(caller, paint(outcome), pdf="yes", steadiness="yes", map="yes").text
    pdf = pdf_of(page)
    text = words(" ".join(sheet.extract_text() for sheet in pdf.pages))
    article = re.search(r"<article.*?</article>", page, re.S).group()
    # What the page shows to a reader without scripts, but for what belongs to a picture.
    article = re.sub(
        r'<section class="map".*?</section>|<(svg|button|summary)\b.*?</\1>|<div class="asked".*?</div>',
        "",
        article,
        flags=re.S,
    )

    for said in re.findall(r"<(?:h\d|p|li|dt|dd)\b[^>]*>(.*?)</(?:h\d|p|li|dt|dd)>", article, re.S):
        assert words(html.unescape(re.sub(r"<[^>]+>", "", said))).strip() in text
    assert pdf.trailer["/Root"]["/Lang"] == language
    assert [len(sheet.images) for sheet in pdf.pages] == [0] * len(pdf.pages)


def test_a_pdf_is_made_only_when_asked_for_and_holds_the_picture_only_when_asked_for(caller):
    assert "application/pdf" not in send(caller, paint("malignant")).text
    assert "data:image/jpeg" not in send(caller, paint("malignant"), pdf="yes").text

    page = send(caller, paint("malignant"), pdf_picture="yes").text
    (picture,) = (image for sheet in pdf_of(page).pages for image in sheet.images)

    assert picture.image.size == (160, 107)
    assert picture.image.convert("RGB").resize((1, 1)).getpixel((0, 0))[0] > 150
    # The page of one picture needs no copy: whoever looks at it has just chosen it.
    assert "data:image/jpeg" not in page


def test_each_of_several_pictures_has_a_sheet_of_its_own_in_the_pdf(caller):
    pdf = pdf_of(send(caller, paint("malignant"), b"text", paint("benign"), pdf_picture="yes").text)
    sheets = [words(sheet.extract_text()) for sheet in pdf.pages]

    assert "Picture 1: Shows signs of a malignant lesion" in sheets[0]
    assert any("Picture 2: not assessed" in sheet and "Picture 3" not in sheet for sheet in sheets[1:])
    assert "Picture 3: Looks more like a benign lesion" in words(" ".join(sheets[1:]))
    assert sum(len(sheet.images) for sheet in pdf.pages) == 2
    without = pdf_of(send(caller, paint("malignant"), paint("benign"), pdf="yes", map="yes").text)
    assert sum(len(sheet.images) for sheet in without.pages) == 0
    assert all("This is not a diagnosis." in sheet for sheet in sheets)
