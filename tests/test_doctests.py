"""The examples in the docstrings of pure modules run and are right."""

import doctest
import pkgutil
from importlib import import_module

import pytest

ROOMS = ("arrays", "planning", "evaluation", "records")
SINGLE = (
    "autoseg.arguments",
    "autoseg.commands.explain",
    "autoseg.io.patterns",
    "autoseg.io.scans",
    "autoseg.training.schedule",
    "autoseg.inference.sliding_window",
)


def list_modules():
    rooms = [import_module(f"autoseg.{room}") for room in ROOMS]
    return [entry.name for room in rooms for entry in pkgutil.iter_modules(room.__path__, f"{room.__name__}.")] + list(SINGLE)


@pytest.mark.parametrize("name", list_modules())
def test_examples_in_docstrings_are_right(name):
    assert doctest.testmod(import_module(name), raise_on_error=False).failed == 0


def test_examples_are_found_at_all():
    finder = doctest.DocTestFinder()
    assert sum(bool(found.examples) for name in list_modules() for found in finder.find(import_module(name))) >= 10
