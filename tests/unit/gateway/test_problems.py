import pytest
from werkzeug.exceptions import MethodNotAllowed, NotFound, RequestEntityTooLarge

from gateway import errors
from gateway.errors import GatewayError, ModelServerUnavailable, PictureTooSmall
from gateway.problems import INTERNAL, TABLE, describe


def concrete(root):
    """Exceptions that are raised: those without subclasses."""
    children = root.__subclasses__()
    return [leaf for child in children for leaf in concrete(child)] if children else [root]


def test_every_exception_has_a_problem_and_every_problem_its_own_name():
    assert set(TABLE) == set(concrete(GatewayError))
    problems = set(TABLE.values())
    assert len({problem.slug for problem in problems}) == len(problems)


def test_the_tree_in_the_docstring_is_the_tree():
    for error in concrete(GatewayError):
        assert f"{error.__name__} " in errors.__doc__


def test_a_picture_error_tells_its_facts_and_a_server_error_does_not():
    assert describe(PictureTooSmall(10, 20, 64)).detail == "the picture has 10 x 20 pixels; its shorter edge needs 64"
    assert "10.0.0.7" not in str(describe(ModelServerUnavailable("UNAVAILABLE: connect to 10.0.0.7 failed")))


@pytest.mark.parametrize(("error", "status"), [(NotFound(), 404), (MethodNotAllowed(), 405), (RequestEntityTooLarge(), 413)])
def test_http_errors_have_problems_too(error, status):
    assert describe(error).status == status


def test_an_unexpected_error_says_nothing_of_itself():
    assert describe(RuntimeError("secret")) is INTERNAL
