"""Publishes a version: checked first, then one rename, so that no model server ever sees half of it."""

import hashlib
import os
import shutil
from pathlib import Path

from serving.metadata import MetadataError, ModelMetadata

EXTRA = "assets.extra"
METADATA_FILE = "metadata.json"
SUMS_FILE = "SHA256SUMS"


class ReleaseError(Exception):
    """The candidate is not fit to be published, or its place is taken."""


def publish(candidate: Path, base: Path) -> Path:
    """Copy an exported version to `base`/N, N being the version its metadata names.

    TensorFlow Serving loads a numeric folder as soon as it exists and does not retry a broken one: everything is written and
    checked under another name on the same file system, then renamed once.

    Args:
        candidate: folder of a SavedModel with assets.extra/metadata.json.
        base: folder of the model's versions.

    Returns:
        The published folder.

    Raises:
        ReleaseError: no SavedModel, no valid metadata, the number is taken, or the copy differs from the candidate.
    """
    metadata = read_metadata(candidate)
    target = base / str(metadata.version)
    if target.exists():
        raise ReleaseError(f"{target} exists; a version is never overwritten")
    base.mkdir(parents=True, exist_ok=True)
    partial = base / f"partial-{metadata.version}"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(candidate, partial)
        write_sums(partial)
        verify_sums(partial)
        _sync(partial)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return target


def read_metadata(version: Path) -> ModelMetadata:
    """The readable copy of a version's metadata.

    Raises:
        ReleaseError: the folder is no exported version.
    """
    if not (version / "saved_model.pb").is_file():
        raise ReleaseError(f"{version} holds no saved_model.pb")
    try:
        return ModelMetadata.from_json((version / EXTRA / METADATA_FILE).read_text())
    except (OSError, MetadataError) as error:
        raise ReleaseError(f"{version}: {error}") from error


def write_sums(version: Path) -> None:
    """Write assets.extra/SHA256SUMS, in the format of `sha256sum`, over every other file of the version."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(_digests(version).items())]
    (version / EXTRA / SUMS_FILE).write_text("".join(lines))


def verify_sums(version: Path) -> None:
    """Compare every file with assets.extra/SHA256SUMS.

    Raises:
        ReleaseError: a file is missing, added or changed; all are named.
    """
    try:
        lines = (version / EXTRA / SUMS_FILE).read_text().splitlines()
    except OSError as error:
        raise ReleaseError(f"{version} has no checksums: {error}") from error
    expected = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = _digests(version)
    changed = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if changed:
        raise ReleaseError(f"{version}: checksums differ for {', '.join(changed)}")


def _digests(version: Path) -> dict[str, str]:
    """Relative name -> SHA-256, of every file but the list itself."""
    sums = version / EXTRA / SUMS_FILE
    digests = {}
    for path in version.rglob("*"):
        if path.is_file() and path != sums:
            with path.open("rb") as file:
                digests[path.relative_to(version).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _sync(folder: Path) -> None:
    """Onto the disk before the rename: a power cut must not leave a numbered folder of empty files."""
    for path in (folder, *folder.rglob("*")):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
