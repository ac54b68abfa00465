"""A fixture: ``command(...)`` runs the command line here."""

from __future__ import annotations

import pytest

from pysock.cli import main as cli


@pytest.fixture
def command(capfd):
    """``command(*arguments)``: exit code, output and errors."""

    def call(*arguments):
        code = cli.main([*map(str, arguments)])
        return code, *capfd.readouterr()

    return call
