"""Run by the build of the gateway's image: gathers the files of a root that has what the gateway runs on, and nothing else.

A base image has a shell, a package manager and Perl, and the packages' wheels have tests, headers and a thousand languages:
size, and what an intruder would look for.
"""

import re
import shutil
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

ENVIRONMENT: Final = Path("/opt/dermserve")
APP: Final = Path("/app")
USER: Final = 10001
LANGUAGES: Final = ("en", "id")

WINDOWS_AND_TESTS: Final = ("test", "tests", "idlelib", "tkinter", "_tkinter*", "turtledemo", "_test*", "nis.*")
TOOLS: Final = ("distutils", "ensurepip", "pydoc_data", "lib2to3", "config-*", "site-packages", "dist-packages")
NOT_OF_PYTHON: Final = (*WINDOWS_AND_TESTS, *TOOLS, "__pycache__", "*.a")
SOURCES: Final = ("include", "*.a", "*.c", "*.h", "*.pyi", "*.pyx", "*.pxd")
UNUSED: Final = (
    "numpy/distutils",
    "numpy/f2py",
    "pydicom/data/test_files",
    "pydicom/sr",
    "sqlalchemy/dialects/mssql",
    "sqlalchemy/dialects/mysql",
    "sqlalchemy/dialects/oracle",
    "sqlalchemy/testing",
)
"""Parts of packages that nothing of ours loads; the build fails when one is no longer there, or is imported."""

NOT_OF_PACKAGES: Final = (*SOURCES, "__pycache__", "tests", "*_tests.*.so", "_simd.*.so")
FOUND_BY_NAME: Final = ("libgcc_s.so.1",)
"""Loaded by glibc when a thread ends; nothing links to it."""

FILES: Final = ("/etc/ld.so.cache", "/etc/os-release", "/etc/ssl/certs/ca-certificates.crt", "/etc/mime.types")
LINKED: Final = re.compile(r"(?:=> )?(/\S+) \(0x")


def main(root: Path) -> None:
    """Fill an empty folder."""
    root.mkdir()
    interpreter = Path(sys.executable).resolve()
    take_python(interpreter, root)
    take_packages(interpreter, root)
    shutil.copytree(APP, within(root, APP), ignore=shutil.ignore_patterns("__pycache__"))
    libraries = sorted(linked_libraries([interpreter, *root.rglob("*.so*")], root))
    for path in [*libraries, *(Path(name) for name in FILES if Path(name).exists())]:
        copy(path, root)
    keep_records(libraries, root)
    for path in root.rglob("*.so*"):
        if path.is_file() and not path.is_symlink():
            forget_symbols(path)
    for name, mode in (("tmp", 0o1777), ("proc", 0o555), ("sys", 0o555), ("dev", 0o755), ("run", 0o755)):
        (root / name).mkdir(exist_ok=True)
        (root / name).chmod(mode)
    write(root / "etc/passwd", f"root:x:0:0:root:/:/nonexistent\ndermserve:x:{USER}:{USER}::/tmp:/nonexistent\n")
    write(root / "etc/group", f"root:x:0:\ndermserve:x:{USER}:\n")
    write(root / "etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")


def take_python(interpreter: Path, root: Path) -> None:
    """The interpreter and its library, in a root where libraries are found through the links of the base."""
    for link in (Path("/lib"), Path("/lib64")):
        if link.is_symlink():
            within(root, link).symlink_to(link.readlink())
    copy(interpreter, root)
    for folder in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}:
        shutil.copytree(folder, within(root, Path(folder)), symlinks=True, ignore=shutil.ignore_patterns(*NOT_OF_PYTHON))


def take_packages(interpreter: Path, root: Path) -> None:
    """The environment without what nothing loads; of its programs only the interpreter."""
    environment = within(root, ENVIRONMENT)
    shutil.copytree(ENVIRONMENT, environment, symlinks=True, ignore=shutil.ignore_patterns(*NOT_OF_PACKAGES))
    (packages,) = environment.glob("lib/*/site-packages")
    for name in UNUSED:
        shutil.rmtree(packages / name)
    forget_languages(packages)
    shutil.rmtree(environment / "bin")
    (environment / "bin").mkdir()
    for name in ("python", "python3"):
        (environment / "bin" / name).symlink_to(interpreter)


def within(root: Path, path: Path) -> Path:
    """Where a path of ours lies in the new root."""
    return root / path.relative_to("/")


def copy(path: Path, root: Path) -> None:
    """A file under the name that it is looked for by; what links on the way point to is followed."""
    target = within(root, path.parent.resolve() / path.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target)


def forget_languages(packages: Path) -> None:
    """Babel has the rules of a thousand languages and regions, thirty megabytes; we have two languages."""
    for file in (packages / "babel/locale-data").glob("*.dat"):
        if file.stem.partition("_")[0] not in (*LANGUAGES, "root"):
            file.unlink()


def forget_symbols(library: Path) -> None:
    """What lies behind the last segment is for debuggers: symbols, and the table of sections, which no loader reads.

    As `strip` does, which no base image has. Twenty megabytes of what the wheels bring.
    """
    data = bytearray(library.read_bytes())
    if data[:5] != b"\x7fELF\x02":
        return
    first, size, count = (*struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54))
    headers = (struct.unpack_from("<IIQQQQQQ", data, first + number * size) for number in range(count))
    end = max(offset + length for _, _, offset, _, _, length, _, _ in headers)
    struct.pack_into("<Q", data, 40, 0)  # where the table of sections is
    struct.pack_into("<HH", data, 60, 0, 0)  # how many there are, and which has their names
    library.write_bytes(data[:end])


def linked_libraries(programs: Iterable[Path], root: Path) -> Iterator[Path]:
    """Libraries of the system that programs and modules need, as the loader finds them.

    Asked of the originals: those in the new root have nothing to link to yet.
    """
    found: set[Path] = set()
    for program in programs:
        original = Path("/", program.relative_to(root)) if program.is_relative_to(root) else program
        listed = subprocess.run(["ldd", original], capture_output=True, text=True, check=False).stdout
        if "not found" in listed:
            sys.exit(f"{original} links to what is not there:\n{listed}")
        found |= {Path(path) for path in LINKED.findall(listed)}
    beside = next(path.parent for path in found if path.name == "libc.so.6")
    found |= {beside / name for name in FOUND_BY_NAME}
    return (path for path in found if not path.is_relative_to(ENVIRONMENT))


def keep_records(libraries: Iterable[Path], root: Path) -> None:
    """What scanners look for: name and version of each Debian package that a library is from, and its copyright."""
    for library in libraries:
        owner = owner_of(library)
        if not owner:
            continue
        name = owner.partition(":")[0]
        record = root / "var/lib/dpkg/status.d" / name
        if not record.exists():
            status = subprocess.run(["dpkg-query", "--status", owner], capture_output=True, text=True, check=True).stdout
            write(record, status)
            licence = Path("/usr/share/doc", name, "copyright")
            if licence.exists():
                copy(licence, root)


def owner_of(path: Path) -> str:
    """The Debian package of a file, which may know it by the name that it had before /usr was merged."""
    for name in (path, path.resolve(), *(Path("/", *place.parts[2:]) for place in (path, path.resolve()))):
        answer = subprocess.run(["dpkg-query", "--search", name], capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            return answer.stdout.partition(": ")[0].partition(",")[0]
    return ""


def write(path: Path, text: str) -> None:
    """With the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
