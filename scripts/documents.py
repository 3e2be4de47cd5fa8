"""Parts of documents that a command writes: between `<!-- NAME -->` and `<!-- /NAME -->`."""

from pathlib import Path


def replace_block(document: Path, name: str, text: str) -> None:
    """Put the text, which ends with a line break, between the two marks.

    Raises:
        ValueError: the marks are not there once each.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    whole = document.read_text()
    if whole.count(begin) != 1 or whole.count(end) != 1:
        raise ValueError(f"{document} has no block {name}")
    before, rest = whole.split(begin)
    _, after = rest.split(end)
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}")
