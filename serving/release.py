"""Puts a version in its place: checked first, then one rename, so that no model server ever sees half of it."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from serving.metadata import MetadataError, ModelMetadata

EXTRA = "assets.extra"
METADATA_FILE = "metadata.json"
SUMS_FILE = "SHA256SUMS"


class ReleaseError(Exception):
    """A version is not fit to be published or to go live, or a place or a server does not take it."""


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
    number = read_metadata(candidate).version
    digests = digests_of(candidate)

    def copy(partial: Path) -> None:
        shutil.copytree(candidate, partial, dirs_exist_ok=True)
        (partial / EXTRA / SUMS_FILE).write_text(format_sums(digests))

    return install(base, number, copy)


def install(base: Path, number: int, fill: Callable[[Path], None]) -> Path:
    """Make `base`/`number`: filled under another name, checked and brought onto the disk there, then renamed once.

    Args:
        base: folder of the model's versions; made if there is none.
        number: of the version.
        fill: writes the version, with its checksums, into the folder it is given.

    Returns:
        The version's folder.

    Raises:
        ReleaseError: the number is taken, the place cannot be written, or what was filled in does not hold. Nothing is left
            then.
    """
    target = base / str(number)
    refuse_taken(target)
    try:
        base.mkdir(parents=True, exist_ok=True)
        # A name of its own: two who publish at once must not write into one folder.
        partial = Path(tempfile.mkdtemp(prefix="partial-", dir=base))
    except OSError as error:
        raise ReleaseError(f"{base} cannot be written: {error}") from error
    try:
        fill(partial)
        _check(partial, target.name)
        partial.chmod(0o755)
        _sync(partial)
        partial.rename(target)
    except (OSError, shutil.Error) as error:
        raise ReleaseError(f"{target} was not written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def refuse_taken(target: Path) -> None:
    """Look before the work begins.

    Raises:
        ReleaseError: the version's folder is there already.
    """
    if target.exists():
        raise ReleaseError(f"{target} exists; a version is never overwritten")


def verify(version: Path) -> ModelMetadata:
    """Check a published version: metadata, number and checksums.

    Returns:
        Its metadata.

    Raises:
        ReleaseError: what does not hold.
    """
    return _check(version, version.resolve().name)


def _check(version: Path, name: str) -> ModelMetadata:
    # Checksums first: nothing is read of a file that is not the one that was published.
    verify_sums(version)
    metadata = read_metadata(version)
    if name != str(metadata.version):
        raise ReleaseError(f"{version} holds version {metadata.version}")
    return metadata


def prune(base: Path, used: Collection[int], keep: int) -> list[int]:
    """Delete old versions, each hidden by one rename first: a model server that polls never finds half of one.

    Args:
        base: folder of the model's versions.
        used: never deleted.
        keep: how many of the others stay, the newest.

    Returns:
        The numbers that are gone.

    Raises:
        ReleaseError: one cannot be deleted.
    """
    try:
        # Of a run that was interrupted.
        for hidden in base.glob("pruned-*"):
            shutil.rmtree(hidden)
        # As the model servers read the names: 007 is version 7.
        found = {int(path.name): path for path in base.iterdir() if path.name.isdecimal()}
        unused = sorted(found.keys() - set(used))
        gone = unused[: max(len(unused) - keep, 0)]
        for version in gone:
            shutil.rmtree(found[version].rename(base / f"pruned-{version}"))
    except OSError as error:
        raise ReleaseError(f"{base}: {error}") from error
    return gone


def read_metadata(version: Path) -> ModelMetadata:
    """The readable copy of a version's metadata.

    Raises:
        ReleaseError: the folder is no exported version.
    """
    graph = version / "saved_model.pb"
    if not graph.is_file() or not graph.stat().st_size:
        raise ReleaseError(f"{version} holds no saved_model.pb")
    try:
        return ModelMetadata.from_json((version / EXTRA / METADATA_FILE).read_bytes())
    except (OSError, MetadataError) as error:
        raise ReleaseError(f"{version}: {error}") from error


def digests_of(candidate: Path) -> dict[str, str]:
    """Relative name -> SHA-256 of a version that is to be published.

    Raises:
        ReleaseError: it brings checksums, and they differ.
    """
    return verify_sums(candidate) if (candidate / EXTRA / SUMS_FILE).exists() else _digests(candidate)


def format_sums(digests: Mapping[str, str]) -> str:
    """The text of assets.extra/SHA256SUMS, in the format of `sha256sum`, for relative names and their digests."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))


def verify_sums(version: Path) -> dict[str, str]:
    """Compare every file with assets.extra/SHA256SUMS.

    Returns:
        Relative name -> SHA-256, as found.

    Raises:
        ReleaseError: a file is missing, added or changed; all are named.
    """
    try:
        lines = (version / EXTRA / SUMS_FILE).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseError(f"{version} has no readable {EXTRA}/{SUMS_FILE}: {error}") from error
    expected = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = _digests(version)
    changed = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if changed:
        raise ReleaseError(f"{version}: checksums differ for {', '.join(changed)}")
    return found


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
