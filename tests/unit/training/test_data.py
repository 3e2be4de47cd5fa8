import csv

import numpy as np
import pytest
from PIL import Image

from serving.contract import IMAGE_SHAPE
from serving.preprocess import to_model_input
from training.data import binary_labels, evenly, load_examples, load_pixels, select


def paint(path, colour=(200, 30, 30), size=(90, 60)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


@pytest.fixture
def folders(tmp_path):
    for split, count in (("train", 20), ("test", 5)):
        for label in ("benign", "malignant"):
            for index in range(count):
                paint(tmp_path / "data" / split / label / f"{label}-{split}-{index}.png")
    return tmp_path / "data"


def test_validation_pictures_of_folders_come_from_training_never_from_test(folders):
    examples = load_examples(folders, validation_share=0.5)
    assert len({example.group for example in examples}) == len(examples)

    assert {example.path.parents[1].name for example in select(examples, "val")} == {"train"}
    assert len(select(examples, "test")) == 10
    assert 0 < len(select(examples, "val")) < 40
    assert len(examples) == 50


def test_the_same_seed_draws_the_same_validation_split(folders):
    assert load_examples(folders, seed=3) == load_examples(folders, seed=3)
    assert load_examples(folders, 0.5, seed=3) != load_examples(folders, 0.5, seed=4)


def test_csv_paths_are_relative_to_it_and_keep_its_split(tmp_path):
    rows = [("a/1.png", "benign", "nv", "s", "L1", "7", "train"), ("a/2.png", "malignant", "mel", "s", "L2", "8", "test")]
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "dx", "source", "lesion_id", "group", "split"])
        writer.writerows(rows)

    examples = load_examples(tmp_path / "labels.csv")

    assert [example.path for example in examples] == [tmp_path / "a/1.png", tmp_path / "a/2.png"]
    assert [example.split for example in examples] == ["train", "test"]
    assert binary_labels(examples).tolist() == [0, 1]


def test_data_without_one_class_are_refused(tmp_path):
    paint(tmp_path / "train" / "benign" / "1.png")

    with pytest.raises(ValueError, match="no malignant example"):
        load_examples(tmp_path)


def test_pixels_are_those_of_the_one_preprocessing_function_and_are_kept(folders, tmp_path):
    examples = select(load_examples(folders), "test")

    pixels = load_pixels(examples, tmp_path / "cache")
    kept = list((tmp_path / "cache").iterdir())
    again = load_pixels(examples, tmp_path / "cache")

    assert pixels.shape == (10, *IMAGE_SHAPE)
    with Image.open(examples[3].path) as picture:
        assert np.array_equal(pixels[3], to_model_input(picture))
    assert np.array_equal(pixels, again)
    assert [path.suffix for path in kept] == [".npy"]


def test_a_picture_that_was_replaced_is_decoded_anew(folders, tmp_path):
    examples = select(load_examples(folders), "test")
    load_pixels(examples, tmp_path / "cache")
    paint(examples[0].path, (10, 20, 30), (120, 80))

    assert load_pixels(examples, tmp_path / "cache")[0, 0, 0].tolist() == [10, 20, 30]


def test_only_captures_of_one_picture_count_as_one(tmp_path):
    rows = [
        ("a/1.png", "benign", "L1", "train"),
        ("b/1.png", "benign", "L1", "train"),
        ("c/1.png", "benign", "L2", "train"),
        ("d/1.png", "malignant", "L3", "train"),
    ]
    text = "".join(f"{path},{label},nv,s,{group},{group},{split}\n" for path, label, group, split in rows)
    (tmp_path / "labels.csv").write_text("path,label,dx,source,lesion_id,group,split\n" + text)

    captures = [example.capture_id for example in load_examples(tmp_path / "labels.csv")]

    assert captures[0] == captures[1]
    assert len(set(captures)) == 3


def test_evenly_spreads_over_the_whole_list(folders):
    examples = select(load_examples(folders), "test")

    assert evenly(examples, None) == examples
    assert [examples.index(example) for example in evenly(examples, 4)] == [0, 3, 6, 9]
