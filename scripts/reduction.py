"""`reduction.py DOCUMENT`: what the browser's reduction of a large photograph does to its answer, on real lesions.

Large photographs of lesions are not at hand: test pictures are enlarged to twelve megapixels and given a camera's grain, so
that there is something to lose. Each is classified as it is and as the page's own script sends it from Chromium. The table
takes its place in DOCUMENT.
"""

import base64
import csv
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import requests
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from scripts.documents import replace_block
from tests import processes
from tests.e2e.conftest import ARGUMENTS, CHROMIUM

SIZE = (3464, 3464)
"""Of a photograph, in pixels."""

GRAIN = 6.0
"""Standard deviation of its noise, in grey levels: strong, as in poor light."""

PICTURES = 200
"""Half of them of malignant lesions."""

REDUCE = """async (data) => {
  const { reduce } = await import("/static/js/reduction.js");
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const blob = await reduce(new File([bytes], "x.jpg", { type: "image/jpeg" }));
  return new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.split(",")[1]);
    reader.readAsDataURL(blob);
  });
}"""


@dataclass(frozen=True)
class Pair:
    """One photograph's two answers.

    Attributes:
        megabytes: of both files.
        labels: benign, malignant or none.
        probabilities: of malignant.
    """

    megabytes: tuple[float, float]
    labels: tuple[str, str]
    probabilities: tuple[float, float]


def main(document: Path) -> None:
    """Measure and write."""
    data = Path(os.environ.get("DERMSERVE_DATA") or processes.ROOT.parent / "shared" / "data")
    if not (data / "labels.csv").exists():
        raise SystemExit(f"reduction: no pictures in {data}; name their folder with DERMSERVE_DATA (docs/training.md)")
    with (
        tempfile.TemporaryDirectory(prefix="dermserve-reduction-") as temporary,
        processes.model_server_from(_config(Path(temporary)), Path(temporary)) as (_, port, _),
        processes.gateway(port, Path(temporary), GATEWAY_WORKERS="1") as (_, address),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        page = browser.new_page(base_url=address)
        page.goto("/")
        pairs = [_compare(address, page, photograph) for photograph in photographs(data)]
        version = requests.get(f"{address}/api/v1/model", timeout=30).json()["version"]
        browser.close()
    replace_block(document, "reduction", table(pairs, version))


def photographs(data: Path) -> Iterator[bytes]:
    """The first lesions of the test split, enlarged, as a camera's JPEG; benign and malignant by turns."""
    with (data / "labels.csv").open() as lines:
        rows = [row for row in csv.DictReader(lines) if row["split"] == "test" and row["source"] == "ham10000_224"]
    rng = np.random.default_rng(1)
    kinds = [[row for row in rows if row["label"] == label] for label in ("benign", "malignant")]
    for pair in zip(*(kind[: PICTURES // 2] for kind in kinds), strict=True):
        for row in pair:
            yield _photograph(Image.open(data / row["path"]).convert("RGB"), rng)


def _photograph(picture: Image.Image, rng: np.random.Generator) -> bytes:
    large = np.asarray(picture.resize(SIZE, Image.Resampling.BICUBIC), np.float32)
    grain: npt.NDArray[np.float32] = rng.standard_normal(large.shape[:2], np.float32)[..., None]
    buffer = io.BytesIO()
    Image.fromarray((large + GRAIN * grain).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def _compare(address: str, page: Page, photograph: bytes) -> Pair:
    reduced = base64.b64decode(page.evaluate(REDUCE, base64.b64encode(photograph).decode()))
    if len(reduced) == len(photograph):
        raise RuntimeError("the page's script has reduced nothing")
    answers = [processes.post_picture(address, data).json() for data in (photograph, reduced)]
    return Pair(
        (len(photograph) / 1e6, len(reduced) / 1e6),
        (answers[0]["label"], answers[1]["label"]),
        (answers[0]["probabilities"]["malignant"], answers[1]["probabilities"]["malignant"]),
    )


def table(pairs: list[Pair], version: int) -> str:
    """What changed, as Markdown."""
    moved = np.array([abs(pair.probabilities[0] - pair.probabilities[1]) for pair in pairs])
    whole, reduced = np.median([pair.megabytes for pair in pairs], axis=0)
    rows = {
        "pictures": len(pairs),
        "another label": sum(pair.labels[0] != pair.labels[1] for pair in pairs),
        "of these malignant before, and not after": sum(pair.labels[0] == "malignant" != pair.labels[1] for pair in pairs),
        "probability moves by (median)": f"{np.median(moved):.4f}",
        "(95 of 100 pictures: at most)": f"{np.quantile(moved, 0.95):.4f}",
        "(the most)": f"{moved.max():.4f}",
        "sent (median)": f"{whole:.1f} MB, reduced {reduced:.2f} MB",
    }
    lines = [f"| version {version}, commit {processes.head_commit()} | |", "|---|---|"]
    return "\n".join(lines + [f"| {name} | {value} |" for name, value in rows.items()]) + "\n"


def _config(folder: Path) -> Path:
    """The released version, from this checkout."""
    config = folder / "models.config"
    released = (processes.ROOT / "serving" / "config" / "models.config").read_text()
    config.write_text(released.replace('"/models/lesion"', f'"{processes.ROOT / "serving" / "models" / "lesion"}"'))
    return config


if __name__ == "__main__":
    main(Path(sys.argv[1]))
