import pickle

import pytest

from stnet.utils.errors import UserError, first_line, last_line


@pytest.mark.parametrize(
    ("message", "first", "last"),
    [
        ("one", "one", "one"),
        ("\n  a: b  \n\n  why\n----- \n", "a: b", "why"),
        ("x" * 300 + "\n" + "y" * 300, "x" * 200, "y" * 200),
        ("", "ValueError", "ValueError"),
    ],
)
def test_the_first_and_the_last_line_of_a_message_skip_what_says_nothing(message, first, last):
    assert (first_line(ValueError(message)), last_line(ValueError(message))) == (first, last)


def test_a_user_error_keeps_its_topic_from_process_to_process():
    error = pickle.loads(pickle.dumps(UserError("a fact", "out")))
    assert (str(error), error.hint) == ("a fact", "out")
