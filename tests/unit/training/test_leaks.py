import json

import numpy as np
import pytest
from PIL import Image

from training.data import Example, read_picture
from training.leaks import EMBEDDING_THRESHOLD, HASH_THRESHOLD, find_leaks, perceptual_hashes, render, write_leaks


@pytest.fixture
def album(tmp_path):
    """Paints pictures of soft patches, no two alike, and keeps them as examples."""
    return Album(tmp_path)


class Album:
    def __init__(self, root):
        self.root = root
        self.examples = []
        self._rng = np.random.default_rng(3)

    def paint(self, split, count=1, label="benign"):
        for _ in range(count):
            patches = Image.fromarray(self._rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            self.add(patches.resize((120, 120), Image.Resampling.BICUBIC), split, label)
        return self.examples[-1]

    def add(self, picture, split, label="benign", group=None, name=None, folder="pictures", **saving):
        path = self.root / folder / f"{name or len(self.examples)}.jpg"
        path.parent.mkdir(exist_ok=True)
        picture.save(path, **saving)
        self.examples.append(Example(path, label, "nv", folder, group or str(len(self.examples)), split))
        return self.examples[-1]

    def add_copy(self, example, split, size=(90, 90), **where):
        """As another site would have stored it."""
        with Image.open(example.path) as opened:
            return self.add(opened.resize(size), split, quality=60, **where)

    def leaks(self):
        return find_leaks(self.examples, self.root, embed)

    def overlap(self, earlier, later):
        return next(one for one in self.leaks().overlaps if (one.earlier, one.later) == (earlier, later))


def embed(images):
    """Colours of 8 by 8 fields against grey."""
    return images.reshape(-1, 8, 28, 8, 28, 3).mean(axis=(2, 4)).reshape(len(images), -1) - 128


def test_a_hash_keeps_through_size_and_compression_and_tells_pictures_apart(album):
    picture = album.paint("train")
    copy, other = album.add_copy(picture, "test"), album.paint("train")

    hashes = perceptual_hashes(np.stack([read_picture(example.path) for example in (picture, copy, other)]))

    assert hashes.shape == (3, 64)
    assert (hashes[0] != hashes[1]).sum() <= HASH_THRESHOLD
    assert (hashes[0] != hashes[2]).sum() > 16


def test_a_copy_in_another_split_is_found_by_both_measures_and_named(album):
    album.paint("train", 5)
    original = album.paint("train", label="malignant")
    album.paint("val", 5)
    album.paint("test", 5)
    copy = album.add_copy(original, "test", label="none")

    overlap = album.overlap("train", "test")

    assert overlap.pictures == 6
    assert overlap.near == {"hash": 1, "embedding": 1, "both": 1}
    for pairs in overlap.nearest.values():
        assert (pairs[0].earlier, pairs[0].earlier_label) == (f"pictures/{original.path.name}", "malignant")
        assert (pairs[0].later, pairs[0].later_label) == (f"pictures/{copy.path.name}", "none")
        assert pairs[0].hash <= HASH_THRESHOLD
        assert 0 <= pairs[0].embedding < EMBEDDING_THRESHOLD
    assert album.overlap("train", "val").near == {"hash": 0, "embedding": 0, "both": 0}
    assert album.overlap("val", "test").near == {"hash": 0, "embedding": 0, "both": 0}


def test_near_pictures_of_one_group_are_no_leak_but_a_group_in_two_splits_is(album):
    album.paint("train", 3)
    album.add_copy(album.paint("train"), "val", group=album.examples[-1].group)

    overlap = album.overlap("train", "val")

    assert overlap.near == {"hash": 0, "embedding": 0, "both": 0}
    assert overlap.shared_groups == 1
    assert all(pair.hash > HASH_THRESHOLD for pair in overlap.nearest["hash"])
    assert album.overlap("train", "test").shared_groups == 0


def test_captures_of_one_picture_count_as_one_picture(album):
    original = album.paint("train")
    for folder in ("one", "two"):
        album.add_copy(original, "test", group="lesion", name="same", folder=folder)

    overlap = album.overlap("train", "test")

    assert overlap.pictures == overlap.near["both"] == 1
    assert len(overlap.nearest["hash"]) == 1


def test_pictures_that_stand_twice_in_training_set_the_embedding_threshold(album):
    captures = [album.add_copy(album.paint("train"), "train", group="a", name=name, folder="old") for name in "ab"]
    for capture, size in zip(captures, ((60, 60), (8, 8)), strict=True):
        album.add_copy(capture, "train", size, group="a", name=capture.path.stem, folder="new")

    leaks = album.leaks()

    assert leaks.known_pairs == 2
    median, quantile = leaks.known_distances["embedding"]
    assert leaks.thresholds == {"hash": HASH_THRESHOLD, "embedding": pytest.approx(median)}
    assert 0 < median < quantile
    assert median != EMBEDDING_THRESHOLD


def test_pictures_of_the_test_split_choose_nothing(album):
    album.paint("train")
    capture = album.add_copy(album.paint("test"), "test", group="a", name="same", folder="old")
    album.add_copy(capture, "test", (8, 8), group="a", name="same", folder="new")

    leaks = album.leaks()

    assert leaks.known_pairs == 0
    assert leaks.known_distances == {}
    assert leaks.thresholds["embedding"] == EMBEDDING_THRESHOLD


def test_the_ten_nearest_pairs_are_in_order(album):
    album.paint("train", 4)
    album.paint("val", 15)

    for measure, pairs in album.overlap("train", "val").nearest.items():
        distances = [getattr(pair, measure) for pair in pairs]
        assert len(distances) == 10
        assert distances == sorted(distances)
        assert len({pair.later for pair in pairs}) == 10


def test_a_dozen_pictures_without_a_validation_split_are_enough(album):
    album.paint("train", 8)
    album.paint("test", 4)

    assert album.overlap("train", "val").pictures == 0
    assert album.overlap("val", "test").nearest == {"hash": [], "embedding": []}
    assert "| test: 4 | val |" in render(album.leaks())


def test_a_run_gets_the_report_for_machines_and_for_people(album, tmp_path):
    album.add_copy(album.paint("train"), "test")
    run = tmp_path / "run"
    run.mkdir()

    write_leaks(album.examples, album.root, embed, run)

    report = json.loads((run / "leaks.json").read_text())
    table = (run / "leaks.md").read_text()
    assert [(one["earlier"], one["later"]) for one in report["overlaps"]] == [
        ("train", "val"),
        ("train", "test"),
        ("val", "test"),
    ]
    assert report["overlaps"][1]["near"]["both"] == 1
    assert "| test: 1 | train | 1 (100.0%) | 1 (100.0%) | 1 (100.0%) | 0 |" in table
    assert "| pictures/0.jpg | benign | pictures/1.jpg | benign |" in table
