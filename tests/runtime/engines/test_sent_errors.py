from __future__ import annotations

import pickle
import threading

import pytest

from labelwise.errors import LabelError, MissingDependencyError
from labelwise.runtime.engines import ClusterError
from labelwise.runtime.engines.sent_errors import ErrorParts, pack_error


def send(error: Exception) -> Exception:
    """Raise an error, pack it as a worker does, and unpack it as the driver does."""
    try:
        raise error
    except Exception as caught:
        form = pickle.loads(pickle.dumps(pack_error(caught)))
    return form.assemble() if isinstance(form, ErrorParts) else form.error


@pytest.mark.parametrize(
    "error",
    [
        LabelError("no label 'REF_energy'"),
        MissingDependencyError("mace-torch", "mace", "loading a MACE model"),
        FileNotFoundError(2, "No such file or directory", "pool.extxyz"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_as_it_left_with_the_trace_as_a_note(error: Exception) -> None:
    arrived = send(error)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert "test_sent_errors.py" in arrived.__notes__[0]


def test_a_cause_is_told_by_the_note() -> None:
    try:
        try:
            raise KeyError("inner reason")
        except KeyError as inner:
            raise LabelError("outer") from inner
    except LabelError as error:
        arrived = send(error)
    assert "inner reason" in arrived.__notes__[0]


def test_an_error_that_cannot_be_sent_arrives_as_text() -> None:
    arrived = send(ValueError("stuck", threading.Lock()))
    assert isinstance(arrived, ClusterError)
    assert "stuck" in str(arrived)
