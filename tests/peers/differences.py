"""The tests of peers' own suites that differ over our adapters, and why.

``nox -s peers`` fails for a difference that is not here, and for one that is no more.
"""

from __future__ import annotations

FROZEN = "settings are read until the first request, and not later"
NO_KEY = "sessions on a server need no secret key"
READER = "a reader sends no cookie; the idle clock is the server's"
EMPTIED = "a session from which all keys were deleted goes on, and so does its cookie"
REVERTS = "modified = False drops what was written"
COOKIES = "the test puts a cookie into request.COOKIES, and no request has sent it"

DIFFERENCES: dict[str, dict[str, str]] = {
    "Flask": {
        "tests/test_basic.py::test_session_accessed": (
            "modified is False again once the session is saved"
        ),
        "tests/test_basic.py::test_session_using_session_settings": EMPTIED,
        "tests/test_basic.py::test_session_using_samesite_attribute": (
            "without a setting the cookie is SameSite=Lax"
        ),
        "tests/test_basic.py::test_missing_session": NO_KEY,
        "tests/test_basic.py::test_session_secret_key_fallbacks": FROZEN,
        "tests/test_basic.py::test_session_cookie_setting": READER,
        "tests/test_basic.py::test_session_refresh_vary": READER,
        "tests/test_basic.py::test_flashes": REVERTS,
        "tests/test_basic.py::test_app_freed_on_zero_refcount": (
            "an application and its middleware go with the garbage collector"
        ),
        "tests/test_testing.py::test_session_transactions_no_null_sessions": NO_KEY,
    },
    "Flask-Login": {},
    "bottle": {},
    "Django": {
        "sessions_tests.tests.SessionMiddlewareTests"
        ".test_session_delete_on_end": COOKIES,
        "sessions_tests.tests.SessionMiddlewareTests"
        ".test_session_delete_on_end_with_custom_domain_and_path": COOKIES,
        "sessions_tests.tests.SessionMiddlewareTests"
        ".test_session_update_error_redirect": (
            "a view puts another session at the request; ours is the one that counts"
        ),
        "sessions_tests.tests.SessionMiddlewareTests.test_empty_session_saved": (
            "the token of a request is in no attribute; session_key is the id there"
        ),
        "sessions_tests.tests.SessionMiddlewareTests"
        ".test_save_every_request_with_non_empty_session_renews_session_cookie": READER,
        "auth_tests.test_views.LoginTest"
        ".test_session_key_flushed_on_login_after_password_change": (
            "a login makes a new token for a user who is logged in already, too"
        ),
    },
}
