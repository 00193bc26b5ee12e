import pytest

from stnet.utils.errors import UserError
from stnet.utils.registry import Registry


def test_names_are_found_in_any_case():
    registry = Registry("model")
    registry.register("StNet")(42)
    assert registry.get("stnet") == registry.get("STNET") == 42


def test_an_unknown_name_lists_the_known():
    registry = Registry("model")
    registry.register("B")(1)
    registry.register("A")(2)
    with pytest.raises(UserError, match="unknown model 'c'; known: A, B"):
        registry.get("c")


def test_a_name_taken_twice_is_a_bug():
    registry = Registry("model")
    registry.register("A")(1)
    with pytest.raises(ValueError, match="twice"):
        registry.register("a")(2)
