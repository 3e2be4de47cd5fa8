"""Which version folders exist and which of them a policy wants."""

import re
from pathlib import Path

from tensorflow_serving.config.file_system_storage_path_source_pb2 import FileSystemStoragePathSourceConfig

_NUMBER = re.compile(r"\s*[+-]?[0-9]+\s*")
"""What absl::SimpleAtoi takes for a number."""


def find_versions(base: Path) -> dict[int, Path]:
    """Version -> folder, of every child whose name is a number; other names are ignored.

    Raises:
        OSError: the base path cannot be listed.
    """
    return {int(path.name): path for path in sorted(base.iterdir()) if _NUMBER.fullmatch(path.name)}


def choose_versions(found: dict[int, Path], policy: FileSystemStoragePathSourceConfig.ServableVersionPolicy) -> dict[int, Path]:
    """Those the policy wants: the latest so many (1 unless said), all, or the listed ones that exist."""
    match policy.WhichOneof("policy_choice"):
        case "all":
            wanted = set(found)
        case "specific":
            wanted = set(policy.specific.versions)
        case _:
            wanted = set(sorted(found)[-(policy.latest.num_versions or 1) :])
    return {version: path for version, path in found.items() if version in wanted}
