"""Versions in an S3-compatible object store: the checksums come last there, as the rename does on a disk."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from serving.release import EXTRA, SUMS_FILE, ReleaseError, digests_of, format_sums, install, read_metadata

SCHEME: Final = "s3://"
SUMS: Final = f"{EXTRA}/{SUMS_FILE}"

CONFIG: Final = Config(
    # A lost packet is sent anew after one and three seconds; a store that does not answer by then is not there.
    connect_timeout=5,
    # Silence, not the whole download: a store that is up starts to answer within seconds even from cold disks.
    read_timeout=30,
    # Rides over a restarted store; longer outages are left to whoever runs the command, an init container again and again.
    retries={"mode": "standard", "total_max_attempts": 3},
    # Compatible stores refuse checksum headers that are younger than they are. The signature's SHA-256 of the body, which
    # every one of them compares, and our own of each file do the same.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
    s3={"payload_signing_enabled": True},
)

TRANSFER: Final = TransferConfig(use_threads=False)
"""One connection: an init container has a share of a core, and the files are a handful."""

TAKEN: Final = {409, 412}
"""What a store answers to a conditional write when the name is there, or is just being written."""


class ObjectStore:
    """The versions of the model under one prefix of a bucket.

    Endpoint, region and credentials come from the usual AWS_* variables, AWS_ENDPOINT_URL among them.
    """

    def __init__(self, url: str) -> None:
        """Make a client; nothing is asked of the store yet.

        Args:
            url: s3://BUCKET/PREFIX.

        Raises:
            ReleaseError: it is no such address, or the AWS_* variables make no client.
        """
        self._bucket, self._prefix = parse_url(url)
        try:
            self._client = boto3.Session().client("s3", config=CONFIG)
        except (BotoCoreError, ValueError) as error:
            raise ReleaseError(f"{url}: {error}") from error

    def refuse_taken(self, number: int) -> None:
        """Look before the work begins.

        Raises:
            ReleaseError: the store holds the version, or does not answer.
        """
        with self._told(number):
            _refuse_sums(self._list(number))

    def publish(self, candidate: Path) -> str:
        """Upload an exported version under the number its metadata names, its checksums last.

        Without its checksums a version is an unfinished upload: nobody fetches it, and the next who publishes replaces it.
        Every write is conditional on a free name, so that of two who publish at once the second stops instead of overwriting.

        Args:
            candidate: folder of a SavedModel with assets.extra/metadata.json.

        Returns:
            Where it is.

        Raises:
            ReleaseError: no SavedModel, no valid metadata, the number is taken, somebody else writes there, or the store
                refuses.
        """
        number = read_metadata(candidate).version
        digests = digests_of(candidate)
        with self._told(number):
            unfinished = self._list(number)
            _refuse_sums(unfinished)
            for name in unfinished:
                self._client.delete_object(Bucket=self._bucket, Key=self._key(number, name))
            etags = {}
            for name in sorted(digests):
                with (candidate / name).open("rb") as file:
                    etags[name] = self._put(number, name, file)
            if digests_of(candidate) != digests:
                raise ReleaseError(f"{candidate} was changed while it was uploaded")
            etags[SUMS] = self._put(number, SUMS, format_sums(digests).encode())
            # Somebody who took this upload for one that was given up may have deleted of it what they found.
            if self._list(number) != etags:
                raise ReleaseError("somebody else wrote there at the same time; delete what is there and publish again")
        return self._url(number)

    def fetch(self, number: int, base: Path) -> Path:
        """Download a version to `base`/N: checked under another name, then renamed once.

        Args:
            number: of the version.
            base: folder of the model's versions.

        Returns:
            The version's folder.

        Raises:
            ReleaseError: the store does not hold all of it, it is not what was published, or the folder is not writable.
                Nothing is left then.
        """
        with self._told(number):
            names = self._list(number)
            if not names:
                raise ReleaseError("there is no such version")
            if SUMS not in names:
                raise ReleaseError(f"the upload is unfinished, {SUMS} is not there")
            return install(base, number, lambda partial: self._download(number, names, partial))

    def _download(self, number: int, names: Iterable[str], folder: Path) -> None:
        for name in names:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            self._client.download_file(self._bucket, self._key(number, name), str(target), Config=TRANSFER)

    def _list(self, number: int) -> dict[str, str]:
        """Name of each object of a version, relative to it -> entity tag. None of the names leads elsewhere."""
        root = self._key(number, "")
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=root)
        objects = {found["Key"].removeprefix(root): found["ETag"] for page in pages for found in page.get("Contents", [])}
        for name in objects:
            if not is_file_name(name):
                raise ReleaseError(f"the object {name!r} is no file of a version")
        return objects

    def _put(self, number: int, name: str, body: IO[bytes] | bytes) -> str:
        try:
            return self._client.put_object(Bucket=self._bucket, Key=self._key(number, name), Body=body, IfNoneMatch="*")["ETag"]
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in TAKEN:
                raise ReleaseError(f"somebody else is writing {name} there; look, and publish again") from error
            raise

    def _key(self, number: int, name: str) -> str:
        return f"{self._prefix}{number}/{name}"

    def _url(self, number: int) -> str:
        return f"{SCHEME}{self._bucket}/{self._prefix}{number}"

    @contextmanager
    def _told(self, number: int) -> Iterator[None]:
        """What goes wrong inside is told of this version, in one line."""
        try:
            yield
        except (BotoCoreError, ClientError, Boto3Error, OSError, ReleaseError) as error:
            raise ReleaseError(f"{self._url(number)}: {' '.join(str(error).split())}") from error


def parse_url(url: str) -> tuple[str, str]:
    """Bucket and prefix of s3://BUCKET/PREFIX; the prefix ends with a slash or, for a whole bucket, is empty.

    Raises:
        ReleaseError: it is no such address.
    """
    bucket, _, prefix = url.removeprefix(SCHEME).partition("/")
    prefix = prefix.removesuffix("/")
    if not url.startswith(SCHEME) or not bucket or (prefix and not is_file_name(prefix)):
        raise ReleaseError(f"{url!r} is no place in an object store: {SCHEME}BUCKET/PREFIX")
    return bucket, prefix and f"{prefix}/"


def is_file_name(name: str) -> bool:
    """Whether an object's name stays inside the folder it is fetched to, and on one line of the checksums."""
    return name.isprintable() and not {"", ".", ".."} & set(name.split("/"))


def _refuse_sums(names: Collection[str]) -> None:
    if SUMS in names:
        raise ReleaseError("it is there already, and a version is never overwritten")
