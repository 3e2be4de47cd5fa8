"""Fetches dermoscopic pictures of the ISIC archive and lists them for training, through the archive's own command."""

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


TEST_SHARE = 0.2
VALIDATION_SHARE = 0.16
"""A fifth of what is left, as in the paper."""


class FetchError(Exception):
    """The archive's command is missing or failed."""


def fetch(out: Path, limit: int) -> Path:
    """Download up to `limit` pictures a class and list them with their splits, drawn by lesion.

    Args:
        out: folder to make.
        limit: pictures a class.

    Returns:
        `out`/labels.csv, as `training.data` reads it.

    Raises:
        FetchError: `isic` (package isic-cli) is not installed, or it failed.
    """
    command = shutil.which("isic")
    if command is None:
        raise FetchError("the command `isic` is missing: pip install --require-hashes -r requirements/isic.txt")
    rows, without_lesion = [], 0
    for label in CLASSES:
        download = out / label
        arguments = ["image", "download", "--search", SEARCHES[label], "--limit", str(limit), str(download)]
        if subprocess.run([command, *arguments], check=False).returncode:  # noqa: S603  (fixed words and our own paths)
            raise FetchError(f"isic {' '.join(arguments)} failed")
        lesions = _lesions(download / "metadata.csv")
        for picture in sorted(path for path in download.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES):
            lesion = lesions.get(picture.stem, "")
            without_lesion += not lesion
            group = lesion or picture.stem
            rows.append([f"{label}/{picture.name}", label, label, "isic", lesion, group, _split_of(group)])
    with (out / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "dx", "source", "lesion_id", "group", "split"])
        writer.writerows(rows)
    if without_lesion:
        print(f"warning: {without_lesion} pictures are of lesions unknown to the archive; some may stand in two splits")
    return out / "labels.csv"


def _lesions(metadata: Path) -> dict[str, str]:
    """Picture -> lesion, where the archive knows it."""
    if not metadata.exists():
        return {}
    with metadata.open(newline="") as file:
        return {row["isic_id"]: row["lesion_id"] for row in csv.DictReader(file) if row.get("lesion_id")}


def _split_of(group: str) -> str:
    """The same split for all pictures of a group, whatever else is downloaded."""
    share = int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) / 16**8
    return "test" if share < TEST_SHARE else "val" if share < TEST_SHARE + VALIDATION_SHARE else "train"
