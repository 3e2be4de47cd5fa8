"""`python -m tests.decoding FOLDER`: decodes each file of a folder under limits of the process; a line of JSON for each.

Peak memory is the kernel's (VmHWM), set back before each file; time is the processor's, of all threads: neither knows how busy
the machine is. Linux only.
"""

import json
import re
import resource
import sys
import time
from pathlib import Path

from gateway.errors import PictureError
from gateway.images import decode, model_input
from gateway.settings import Settings
from tests.pictures import encode, textured

MAX_ADDRESS_BYTES = 3_000_000_000
MAX_CPU_S = 300
MEGABYTE = 1_000_000


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024


def main(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_BYTES, MAX_ADDRESS_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
    # Codecs and their tables are loaded with the first picture of each kind.
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"):
        model_input(decode(encode(textured(), kind), Settings.max_picture_pixels))
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        Path("/proc/self/clear_refs").write_text("5")
        resident, started = _status("VmRSS"), time.process_time()
        try:
            model_input(decode(data, Settings.max_picture_pixels))
            outcome = "picture"
        except PictureError as error:
            outcome = type(error).__name__
        cpu_s, peak = time.process_time() - started, (_status("VmHWM") - resident) / MEGABYTE
        line = {"name": path.name, "outcome": outcome, "cpu_s": round(cpu_s, 3), "megabytes": round(peak, 1)}
        sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
