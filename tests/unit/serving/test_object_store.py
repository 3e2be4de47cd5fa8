import pytest

from serving.object_store import is_file_name, parse_url
from serving.release import ReleaseError


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("s3://models/lesion", ("models", "lesion/")),
        ("s3://models/lesion/", ("models", "lesion/")),
        ("s3://models/teams/skin/lesion", ("models", "teams/skin/lesion/")),
        ("s3://models", ("models", "")),
        ("s3://models/", ("models", "")),
    ],
)
def test_a_place_is_a_bucket_and_a_prefix(url, parts):
    assert parse_url(url) == parts


@pytest.mark.parametrize(
    "url",
    [
        "models/lesion",
        "s3:/models/lesion",
        "S3://models",
        "s3://",
        "s3:///lesion",
        "s3://models//lesion",
        "s3://models/../lesion",
    ],
)
def test_what_is_no_place_in_an_object_store_is_refused(url):
    with pytest.raises(ReleaseError, match="BUCKET/PREFIX"):
        parse_url(url)


@pytest.mark.parametrize(
    "name", ["saved_model.pb", "variables/variables.index", "assets/a b.txt", "..hidden", "a/...", "\u00e4"]
)
def test_a_name_that_stays_in_the_folder_is_one_of_a_file(name):
    assert is_file_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/etc/passwd",
        "variables/",
        "a//b",
        ".",
        "..",
        "../2/saved_model.pb",
        "a/../../b",
        "a/./b",
        "a\nb",
        "a\0b",
        "a\u2028b",
    ],
)
def test_a_name_that_leads_elsewhere_is_none(name):
    assert not is_file_name(name)
