"""The tree of errors: drawn as it is, one stable code for each."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest

from ssd2 import errors
from ssd2.errors import SlingshotError


def classes() -> list[type[SlingshotError]]:
    found = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, SlingshotError)]
    return [value for value in found if value.__module__ == errors.__name__]


def drawn() -> Iterator[tuple[str, str]]:
    """Every error in the drawing, with its parent."""
    path = ["SlingshotError"]
    assert errors.__doc__ is not None
    for branch, name in re.findall(r"^ {4}([│ ]*)[├└]── (\w+)", errors.__doc__, re.MULTILINE):
        depth = 1 + len(branch) // 4
        path = [*path[:depth], name]
        yield name, path[depth - 1]


def test_the_tree_is_the_one_in_the_docstring() -> None:
    assert dict(drawn()) == {
        error.__name__: error.__bases__[0].__name__ for error in classes() if error is not SlingshotError
    }


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [vars(error).get("code") for error in classes()]
    assert None not in codes
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("error", classes(), ids=lambda error: error.__name__)
def test_a_code_is_its_class_name_in_snake_case(error: type[SlingshotError]) -> None:
    assert error.code == re.sub(r"(?<!^)(?=[A-Z])", "_", error.__name__).lower()


@pytest.mark.parametrize("error", classes(), ids=lambda error: error.__name__)
def test_the_text_is_what_the_person_at_the_keyboard_reads(error: type[SlingshotError]) -> None:
    with pytest.raises(SlingshotError) as caught:
        raise error("the prompt is too long; shorten it")
    assert str(caught.value) == "the prompt is too long; shorten it"
