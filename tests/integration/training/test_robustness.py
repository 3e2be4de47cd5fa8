"""Pictures with one coloured quarter, and a predictor that only looks where it lies: every figure can be counted by hand."""

import csv

import numpy as np
import pytest
from PIL import Image

from serving.contract import IMAGE_SHAPE
from serving.metadata import Thresholds
from training import statistics
from training.data import load_examples
from training.robustness import CHANGES, DIHEDRAL, answer, average, other_captures, robustness

THRESHOLDS = Thresholds(malignant=0.4, none=5.0, uncertain_low=0.36, uncertain_high=0.44, guard=0.7)
RED, BLUE, GREY = (200, 60, 60), (60, 60, 200), (60, 60, 60)
TOP_LEFT, BOTTOM_RIGHT = (0, 0), (112, 112)

# source, name, label, colour of the quarter, its corner
PICTURES = [
    *[("large", f"red-{index}", "malignant", RED, TOP_LEFT) for index in range(20)],
    *[("large", f"grey-{index}", "benign", GREY, TOP_LEFT) for index in range(30)],
    *[("large", f"blue-{index}", "benign", BLUE, TOP_LEFT) for index in range(4)],
    *[("small", f"red-{index}", "malignant", RED, BOTTOM_RIGHT) for index in range(3)],
    ("small", "red-3", "malignant", RED, TOP_LEFT),
]


def quarter(colour, corner):
    picture = np.full(IMAGE_SHAPE, 60, np.uint8)
    picture[corner[0] : corner[0] + 112, corner[1] : corner[1] + 112] = colour
    return picture


def look_up(images):
    """Malignant where the red is at the top, out of scope where the blue is at the bottom."""
    higher = images[:, :112].mean(axis=(1, 2)) - images[:, 112:].mean(axis=(1, 2))
    malignant = np.where(higher[:, 0] > 20, 0.9, 0.1)
    return {"probabilities": np.stack([1 - malignant, malignant], axis=1), "none_score": np.where(higher[:, 2] < -20, 9.0, 0.0)}


def measure_brightness(images):
    malignant = images.mean(axis=(1, 2, 3)) / 255
    return {"probabilities": np.stack([1 - malignant, malignant], axis=1), "none_score": np.zeros(len(images))}


@pytest.fixture(scope="module")
def measure(tmp_path_factory):
    """Scores of a predictor over the painted pictures, by metric and subset. Few resamples: intervals are tested elsewhere."""
    root = tmp_path_factory.mktemp("quarters")
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "dx", "source", "lesion_id", "group", "split"])
        for source, name, label, colour, corner in PICTURES:
            (root / source).mkdir(exist_ok=True)
            Image.fromarray(quarter(colour, corner)).save(root / source / f"{name}.png")
            writer.writerow([f"{source}/{name}.png", label, "painted", source, name, name, "test"])

    def scores_of(predict):
        metadata = type("Metadata", (), {"thresholds": THRESHOLDS})()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(statistics, "RESAMPLES", 20)
            scores = robustness(predict, metadata, root / "labels.csv", root / "cache")
        found = {(score.metric, score.subset): score.estimate for score in scores}
        assert len(found) == len(scores)
        return found

    return scores_of


@pytest.fixture(scope="module")
def scores(measure):
    return measure(look_up)


@pytest.mark.parametrize("name", ["turn 90", "turn 180", "mirror 180", "mirror 270"])
def test_views_that_move_the_quarter_down_flip_what_depends_on_it(scores, name):
    """24 red pictures change sides; 4 blue ones are sent to none, which is no flip between classes."""
    assert scores[f"benign/malignant flips: {name}", "all"].value == 24 / 58
    assert scores[f"class flips: {name}", "all"].value == 28 / 58
    assert scores[f"class flips: {name}", "large"].value == 24 / 54
    assert scores[f"AUROC: {name}", "all"].value == pytest.approx((3 + 21 / 2) / 24)


@pytest.mark.parametrize("name", sorted(CHANGES.keys() - {"turn 90", "turn 180", "mirror 180", "mirror 270"}))
def test_changes_that_leave_the_quarter_where_it_is_flip_nothing(scores, name):
    assert scores[f"class flips: {name}", "all"].value == 0
    assert scores[f"benign/malignant flips: {name}", "all"].value == 0
    assert scores[f"AUROC: {name}", "all"].value == pytest.approx((21 + 3 / 2) / 24)


def test_flips_over_the_dihedral_group_are_averaged_over_views_and_counted_by_picture(scores):
    over_views, any_flip = (
        scores[metric, "all"] for metric in ("label flips over dihedral views", "lesions with any flip over the 8 views")
    )

    assert over_views.value == pytest.approx(4 / 7 * 24 / 58)
    assert any_flip.value == 24 / 58
    assert (over_views.n, any_flip.n) == (58, 58)


def test_views_contradict_each_other_even_where_the_untouched_picture_gets_no_label(measure):
    """Unsure of the red at the top left, benign at the top right, malignant at the bottom."""

    def predict(images):
        red = images[..., 0].astype(int)
        left, top = red[:, :, :112].mean((1, 2)) - red[:, :, 112:].mean((1, 2)), look_up(images)["probabilities"][:, 1] > 0.5
        malignant = np.where(left == 0, 0.1, np.where(top, np.where(left > 0, 0.4, 0.1), 0.9))
        return {"probabilities": np.stack([1 - malignant, malignant], axis=1), "none_score": np.zeros(len(images))}

    scores = measure(predict)

    # Red, at the top left in 21 pictures and at the bottom right, where the untouched one has a label, in 3. Nor is blue red.
    assert scores["lesions with any flip over the 8 views", "all"].value == 24 / 58
    assert scores["label flips over dihedral views", "all"].value == pytest.approx(3 / 58 * 2 / 7)


def test_a_predictor_without_directions_never_flips_over_views(measure):
    scores = measure(measure_brightness)

    assert scores["lesions with any flip over the 8 views", "all"].value == 0
    assert {scores[f"class flips: {name}", "all"].value for name in DIHEDRAL} == {0}
    assert 0 < scores["label flips over dihedral views", "all"].high < 0.1


def test_the_other_capture_is_that_of_the_same_picture_and_others_are_left_out(scores):
    assert scores["class flips: capture", "all"].value == 6 / 8
    assert scores["class flips: capture", "all"].n == 8
    assert scores["benign/malignant flips: capture", "large"].value == 3 / 4
    assert scores["benign/malignant flips: capture", "large"].n == 4
    assert ("AUROC: capture", "all") not in scores  # malignant ones only


def test_captures_are_paired_by_picture(tmp_path):
    rows = ["a/1,benign,L1", "a/2,benign,L1", "b/1,benign,L1", "c/1,benign,L2", "c/1,malignant,L1", "a/3,malignant,L3"]
    text = "".join(f"{path}.png,{label},nv,s,{group},{group},test\n" for path, label, group in (row.split(",") for row in rows))
    (tmp_path / "labels.csv").write_text("path,label,dx,source,lesion_id,group,split\n" + text)

    assert other_captures(load_examples(tmp_path / "labels.csv")).tolist() == [2, 1, 0, 3, 4, 5]


def test_averaging_all_views_takes_the_direction_out_of_the_answer(scores):
    """Red is at the top in half of the views, so that it ends at even odds, wherever it lay."""
    gains = {name: scores[f"gain in AUROC: {name}", "all"].value for name in ("2 views", "4 views", "8 views")}

    assert gains == pytest.approx({"2 views": 0, "4 views": 1.5 / 24, "8 views": 1.5 / 24})
    assert ("gain in AUROC: 1 view", "all") not in scores
    assert scores["AUROC: 1 view", "all"] == scores["AUROC: identity", "all"]
    assert scores["AUROC: 8 views", "all"].value == 1.0
    assert scores["sensitivity: 1 view", "all"].value == 21 / 24
    assert scores["sensitivity: 8 views", "all"].value == 1.0
    assert scores["sensitivity: 8 views", "all"].n == 24
    assert scores["specificity: 8 views", "all"].value == 1.0
    assert scores["ECE: 8 views", "all"].value == pytest.approx((0.5 * 24 + 0.1 * 34) / 58)


def test_a_source_with_few_pictures_counts_only_as_part_of_all(scores):
    assert {subset for _, subset in scores} == {"all", "large"}
    assert scores["AUROC: identity", "large"].n == 54


def test_every_change_costs_one_pass(measure):
    sizes = []

    def predict(images):
        sizes.append(len(images))
        return look_up(images)

    measure(predict)

    assert sum(sizes) == len(CHANGES) * len(PICTURES)
    assert max(sizes) <= 32


def test_the_mean_of_log_odds_is_platts_map_of_the_mean_logit():
    logits = np.array([[-2.0, 3.0], [0.5, 1.0], [1.2, 400.0]])
    views = [answer(1 / (1 + np.exp(-(0.7 * view - 0.3))), np.array([4.0, 0.0]) + view, THRESHOLDS) for view in logits]

    averaged = average(views, THRESHOLDS)

    assert averaged.malignant[0] == pytest.approx(1 / (1 + np.exp(-(0.7 * -0.1 - 0.3))))
    assert 0.9 < averaged.malignant[1] < 1
    assert averaged.none_score[0] == pytest.approx(4.0 - 0.1)
    assert averaged.labels.tolist() == ["none", "none"]


def test_both_reasons_for_no_label_are_one_label():
    labels = answer(np.array([0.1, 0.4, 0.9, 0.9]), np.array([9.0, 0.0, 9.0, 0.0]), THRESHOLDS).labels

    assert labels.tolist() == ["none", "none", "none", "malignant"]


@pytest.fixture
def textured():
    rng = np.random.default_rng(2)
    coarse = [Image.fromarray(rng.integers(40, 200, (28, 28, 3), dtype=np.uint8)) for _ in range(3)]
    return np.stack([np.asarray(picture.resize((224, 224), Image.Resampling.BICUBIC)) for picture in coarse])


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "identity"])
def test_a_change_gives_other_pixels_of_the_same_kind_and_leaves_its_input(textured, name):
    before = textured.copy()

    changed = CHANGES[name](textured)

    assert changed.shape == textured.shape
    assert changed.dtype == np.uint8
    assert all((changed[index] != textured[index]).any() for index in range(3))
    assert np.array_equal(textured, before)


def test_the_eight_views_are_different_and_keep_every_pixel(textured):
    views = [view(textured) for view in DIHEDRAL.values()]

    assert np.array_equal(DIHEDRAL["identity"](textured), textured)
    assert len({view.tobytes() for view in views}) == len(views) == 8
    assert all(np.array_equal(np.sort(view, axis=None), np.sort(textured, axis=None)) for view in views)
    assert np.array_equal(DIHEDRAL["turn 90"](textured)[0, :, 0], textured[0, 0, ::-1])
    assert np.array_equal(DIHEDRAL["mirror"](textured)[0, :, 0], textured[0, :, -1])


def test_a_lower_grade_and_a_wider_blur_change_more(textured):
    def distance(name):
        return np.abs(CHANGES[name](textured).astype(int) - textured).mean()

    grades = [distance(f"JPEG {grade}") for grade in (90, 70, 50, 30)]
    assert grades == sorted(grades)
    assert 0 < grades[0] < grades[-1] < 10
    assert 0 < distance("blur 1 px") < distance("blur 2 px") < 30


def test_light_is_multiplied_and_stops_at_white():
    images = np.full((1, *IMAGE_SHAPE), 100, np.uint8)
    images[0, 0] = 250

    assert CHANGES["light x0.8"](images)[0, :2, 0, 0].tolist() == [200, 80]
    assert CHANGES["light x1.2"](images)[0, :2, 0, 0].tolist() == [255, 120]


def test_a_turn_is_of_five_degrees_about_the_centre_and_leaves_no_dark_corner():
    images = np.full((1, *IMAGE_SHAPE), 100, np.uint8)
    images[0, 110:115, 190:195] = 220
    angles = {}
    for name in ("turn +5", "turn -5"):
        turned = CHANGES[name](images)[0, :, :, 0].astype(int)
        rows, columns = np.nonzero(turned > 130)
        angles[name] = np.degrees(np.arctan2(111.5 - rows.mean(), columns.mean() - 111.5))
        assert turned.min() == 100

    start = np.degrees(np.arctan2(111.5 - 112, 192 - 111.5))
    assert angles == pytest.approx({"turn +5": start + 5, "turn -5": start - 5}, abs=0.4)
