import io
import re
from html.parser import HTMLParser

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from jinja2 import Environment

from tests.processes import ROOT

CATALOGUES = sorted((ROOT / "web" / "translations").rglob("messages.po"))
TEMPLATES = sorted((ROOT / "web" / "templates").glob("*.html"))
SCRIPTS = sorted((ROOT / "web" / "static" / "js").rglob("*.js"))

PLURAL_FORMS = {"id": "nplurals=1; plural=0"}
"""As Unicode's CLDR has them; Babel does not know Indonesian and would take the English ones."""

SAME_EVERYWHERE = {"Dermserve"}
READ_ATTRIBUTES = {"alt", "title", "placeholder", "aria-label", "aria-description", "label", "content", "value"}
"""Attributes whose text people get to see or hear."""

FOR_PROGRAMS_TOO = {"value", "label"}
"""Of these only what looks like a sentence."""

UNREAD = {"script", "style", "code"}
EMPTY = {"meta", "link", "input", "img", "br", "hr"}

WORD = re.compile(r"[A-Za-zÀ-ÿ]{2,}")
SENTENCE = re.compile(r"^[A-ZÀ-Ý][a-zà-ÿ]+[.!?…]?$|\b[A-Za-zà-ÿ]{2,}[,:]? [A-Za-zà-ÿ]{2,}\b")
FOR_THE_PROGRAM = re.compile(
    r"(?:querySelector(?:All)?|closest|matches|createElement\w*|getContext|addEventListener|dispatchEvent"
    r"|add|remove|toggle|contains|Error|throw new \w+|console\.\w+)\(\s*$|import .*$|from\s*$"
)
"""What stands before a text that nobody reads: selectors, names, and errors for the console."""

TEXT_OF_A_SCRIPT = re.compile(r"""(?P<quote>["'`])(?P<text>(?:\\.|(?!(?P=quote)).)*)(?P=quote)""", re.DOTALL)
COMMENT = re.compile(r"^\s*(?://|\*|/\*).*$|\s//\s.*$|/\*.*?\*/", re.MULTILINE)


class Literals(HTMLParser):
    """Collects what people read of a template and no call translates."""

    def __init__(self):
        super().__init__()
        self.found = []
        self._open = []

    def handle_starttag(self, tag, attrs):
        is_for_programs = tag == "meta" and dict(attrs).get("name") != "description"
        for name, value in [] if is_for_programs else attrs:
            pattern = SENTENCE if name in FOR_PROGRAMS_TOO else WORD
            if name in READ_ATTRIBUTES and value and pattern.search(value):
                self.found.append(value)
        if tag not in EMPTY:
            # A part in a language of its own says so.
            self._open.append((tag, tag in UNREAD or ("lang" in dict(attrs) and tag != "html")))

    def handle_endtag(self, tag):
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        text = data.strip()
        if not SAME_EVERYWHERE.issuperset(WORD.findall(text)) and not any(unread for _, unread in self._open):
            self.found.append(text)


def literals(template):
    """Of a template's own text: blocks, expressions and comments are left out, and an expression is no word."""
    parts = []
    for _, kind, value in Environment(autoescape=True).lex(template):
        if kind == "data":
            parts.append(value)
        elif kind == "variable_begin":
            parts.append("\u2060")
    parser = Literals()
    parser.feed("".join(parts))
    parser.close()
    return parser.found


def sentences(script):
    """Texts in a script that people could read: theirs come from the page."""
    code = COMMENT.sub("", script)
    return [
        match["text"]
        for match in TEXT_OF_A_SCRIPT.finditer(code)
        if SENTENCE.search(match["text"]) and not FOR_THE_PROGRAM.search(code[: match.start()].rpartition("\n")[2])
    ]


def texts():
    """Every text that a template marks for translation; of one with a plural both forms."""
    found = extract_from_dir(str(ROOT / "web"), method_map=[("templates/**.html", "jinja2")])
    return {message for _, _, message, _, _ in found}


def read(path):
    with path.open("rb") as file:
        return read_po(file, locale=path.parts[-3])


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parts[-3])
def test_every_text_is_translated_and_no_other(path):
    translated = {message.id: message.string for message in read(path) if message.id}

    assert translated.keys() == texts()
    assert [text for text, translation in translated.items() if not translation] == []


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parts[-3])
def test_plurals_have_the_forms_of_the_language(path):
    catalogue = read(path)
    plurals = [message for message in catalogue if message.pluralizable]

    assert f"nplurals={catalogue.num_plurals}; plural={catalogue.plural_expr}" == PLURAL_FORMS[path.parts[-3]]
    assert plurals
    for message in plurals:
        forms = message.string if isinstance(message.string, tuple) else (message.string,)
        assert len(forms) == catalogue.num_plurals, message.id
        assert all(forms), message.id


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parts[-3])
def test_a_translation_fills_in_what_the_text_does(path):
    assert [error for message in read(path) for error in message.check()] == []


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parts[-3])
def test_what_is_compiled_is_what_is_written(path):
    compiled = io.BytesIO()
    write_mo(compiled, read(path))

    assert path.with_suffix(".mo").read_bytes() == compiled.getvalue()


def test_there_are_catalogues_and_texts():
    assert CATALOGUES
    assert len(texts()) > 100


def test_no_template_has_a_text_of_its_own():
    assert len(TEMPLATES) > 10
    assert {path.name: literals(path.read_text()) for path in TEMPLATES if literals(path.read_text())} == {}


def test_no_script_has_a_text_of_its_own():
    assert len(SCRIPTS) > 3
    assert {path.name: sentences(path.read_text()) for path in SCRIPTS if sentences(path.read_text())} == {}


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("<p>Hello</p>", ["Hello"]),
        ("<p>{{ _('Hello') }} and {{ x }}</p>", ["\u2060 and \u2060"]),
        ("<img alt='A lesion'>", ["A lesion"]),
        ("<button aria-label='Close'>{{ icon('x') }}</button>", ["Close"]),
        ("<meta name='description' content='What it is'><meta name='viewport' content='width=device-width'>", ["What it is"]),
        ("<input type='submit' value='Send it now'>", ["Send it now"]),
        ("<input value='benign'><p lang='en'>Terms</p><code>none</code> Dermserve · {# Note #}", []),
        ("{% if x == 'malignant' %}<p>{{ _('Hello') }}</p>{% endif %}", []),
    ],
)
def test_a_text_in_a_template_is_found(template, found):
    assert literals(template) == found


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ('status.textContent = "Sending the picture";', ["Sending the picture"]),
        ("status.textContent = `Done`;", ["Done"]),
        ('status.textContent = "x"; // Says that it is done: "Sending the picture".', []),
        ('root.querySelector("dialog form button"); import { a } from "./check.js";', []),
        ('status.textContent = status.dataset.uploading; throw new CropFailed("not one of ours");', []),
    ],
)
def test_a_text_in_a_script_is_found(script, found):
    assert sentences(script) == found
