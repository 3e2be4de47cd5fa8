"""Makes a stand-in for docker.io/library/python:3.11-slim where no registry can be reached: Debian and our own CPython."""

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path

LIBRARIES = (
    "ca-certificates,netbase,tzdata,libbz2-1.0,libffi8,liblzma5,libncursesw6,libreadline8,libsqlite3-0,libssl3,libuuid1,zlib1g"
)
"""What the official image has besides Debian's minimum, which is what CPython's modules link to."""

NOT_COPIED = ("__pycache__", "test", "idlelib", "tkinter", "turtledemo", "config-*", "_tkinter*", "*.a")
PATHS = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


def import_stand_in(tag: str, podman: Callable[..., str]) -> None:
    """Into podman's storage. Needs mmdebstrap and the archive of this machine's distribution; about half a minute."""
    prefix = Path(sys.base_prefix)
    assert prefix != Path("/usr"), "Debian's own Python cannot stand in: pip puts packages elsewhere than the official image's"
    with tempfile.TemporaryDirectory(prefix="dermserve-stand-in-") as folder:
        tree, archive = Path(folder, "local"), Path(folder, "root.tar")
        copy_interpreter(prefix, tree)
        # Without documents and translations, as in the official slim images.
        slim = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "info", "locale", "man")]
        hooks = [f"--customize-hook=sync-in {tree} /usr/local", '--customize-hook=chroot "$1" ldconfig']
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={LIBRARIES}", *slim]
        command += ["--dpkgopt=path-include=/usr/share/doc/*/copyright", *hooks, codename(), str(archive)]
        run(command)
        podman("import", "--quiet", "--change", f"ENV PATH={PATHS}", "--change", 'CMD ["python3"]', str(archive), tag)


def copy_interpreter(prefix: Path, tree: Path) -> None:
    """The running CPython as the official image has it under /usr/local: of its packages only pip."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (tree / "bin").mkdir(parents=True)
    shutil.copy2(prefix / "bin" / version, tree / "bin" / version)
    for name in ("python", "python3"):
        (tree / "bin" / name).symlink_to(version)
    library = str(sysconfig.get_config_var("INSTSONAME") or "")
    if ".so" in library:
        (tree / "lib").mkdir()
        shutil.copy2(prefix / "lib" / library, tree / "lib" / library)
    ignored = shutil.ignore_patterns(*NOT_COPIED, "site-packages")
    shutil.copytree(prefix / "lib" / version, tree / "lib" / version, symlinks=True, ignore=ignored)
    for package in (prefix / "lib" / version / "site-packages").glob("pip*"):
        shutil.copytree(package, tree / "lib" / version / "site-packages" / package.name, ignore=ignored)
    strip = shutil.which("strip")
    if strip:
        # The official image is built without symbols.
        run([strip, "--strip-unneeded", *map(str, [*tree.rglob("*.so*"), tree / "bin" / version])])


def codename() -> str:
    """This machine's release: CPython links to its C library."""
    lines = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return lines["VERSION_CODENAME"]


def run(command: list[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
