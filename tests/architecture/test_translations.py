import io

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

from tests.processes import ROOT

CATALOGUES = sorted((ROOT / "web" / "translations").rglob("messages.po"))


def texts():
    """Every text that a template marks for translation."""
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
