"""Two hosts with one store, of which one has a clock that is an hour off (libfaketime).

"Redis uses its own clock for expiry; elsewhere limits below the difference of the hosts'
clocks are not promised": so the timeouts here are the defaults.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ..conftest import missing
from ..servers import Client, gunicorn

pytest.importorskip("gunicorn")


def library() -> str:
    """The library that tells a process another time."""
    found = list(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        missing("libfaketime (Debian: faketime)")
    return str(found[0])


@pytest.mark.promise("P9")
@pytest.mark.parametrize("ahead", ["+1h", "-1h"])
@pytest.mark.parametrize(
    "kind",
    ["file", "redis", "sqlite", "postgresql", "mariadb"],
    indirect=True,
    scope="session",
)
def test_a_host_whose_clock_is_off_logs_nobody_out(
    url_of_kind: str, tmp_path: Path, ahead: str
) -> None:
    """A visitor whose requests go to both in turn loses neither the login nor a count."""
    fake = {"LD_PRELOAD": library(), "FAKETIME": ahead}
    with (
        gunicorn(url_of_kind, tmp_path / "one.log") as right,
        gunicorn(url_of_kind, tmp_path / "two.log", **fake) as wrong,
        Client(right) as one,
    ):
        one("POST", "/login", user="ann")
        with Client(wrong, one.cookie) as two:
            for number in range(1, 21):
                host = (one, two)[number % 2]
                method = ("GET", "POST")[number // 2 % 2]
                assert host(method, "/increment", key="n") == str(number)
                assert host("GET", "/user") == "ann"
            two("POST", "/login", user="bob")
            one.cookie = two.cookie
            assert one("GET", "/user") == "bob"
            off = float(two("GET", "/time")) - float(one("GET", "/time"))
    assert 3500 < abs(off) < 3700  # the control
