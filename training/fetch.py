"""Fetches dermoscopic pictures of the ISIC archive into the folders that training reads, through the archive's own command."""

import csv
import hashlib
import shutil
import subprocess
from pathlib import Path

from serving.contract import CLASSES
from training.data import IMAGE_SUFFIXES

SEARCHES = {
    "benign": 'diagnosis_1:"Benign" AND image_type:"dermoscopic"',
    "malignant": 'diagnosis_1:"Malignant" AND image_type:"dermoscopic"',
}
"""Queries of the archive's search, a class each."""


class FetchError(Exception):
    """The archive's command is missing or failed."""


def fetch(out: Path, limit: int, test_share: float = 0.2) -> None:
    """Download up to `limit` pictures a class and lay them out as `out`/train/<class> and `out`/test/<class>.

    Args:
        out: folder to make.
        limit: pictures a class.
        test_share: share of each class for the test folder, drawn by lesion.

    Raises:
        FetchError: `isic` (package isic-cli) is not installed, or it failed, as it does without a network.
    """
    command = shutil.which("isic")
    if command is None:
        raise FetchError("the command `isic` is missing: pip install --require-hashes -r requirements/isic.txt")
    for label in CLASSES:
        download = out / "download" / label
        arguments = ["image", "download", "--search", SEARCHES[label], "--limit", str(limit), str(download)]
        if subprocess.run([command, *arguments], check=False).returncode:  # noqa: S603  (fixed words and our own paths)
            raise FetchError(f"isic {' '.join(arguments)} failed")
        lesions = _lesions(download / "metadata.csv")
        for picture in sorted(path for path in download.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES):
            split = "test" if _share_of(lesions.get(picture.stem, picture.stem)) < test_share else "train"
            target = out / split / label
            target.mkdir(parents=True, exist_ok=True)
            picture.rename(target / picture.name)


def _lesions(metadata: Path) -> dict[str, str]:
    """Picture id -> lesion id, where the archive knows it: pictures of one lesion must not stand on both sides."""
    if not metadata.exists():
        return {}
    with metadata.open(newline="") as file:
        return {row["isic_id"]: row["lesion_id"] for row in csv.DictReader(file) if row.get("lesion_id")}


def _share_of(name: str) -> float:
    """A number from 0 to 1 that depends on the name alone, so that fetching more moves nothing to the other side."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
