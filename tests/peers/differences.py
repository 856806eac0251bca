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
NAMED = (
    "an id leads to a visitor's session by get_by_id() alone, and never by Session()"
)
INSIDE = "the test looks into Beaker's own parts: request, namespace, cookie, options"
ITS_OWN_BYTES = "the test decodes the bytes of Beaker's cookie"
NOTHING_KEPT = "of a visitor without values nothing is kept, and no cookie is sent"

SESSION = "beaker_tests/test_session.py::"
OBJECT = f"{SESSION}TestSessionObject::"
ACCESSED = f"{SESSION}TestSaveAccessedTime::"
IN_A_COOKIE = "beaker_tests/test_cookie_only.py::"
EXPIRES = "beaker_tests/test_cookie_expires.py::"

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
    "Beaker": {
        f"{SESSION}test_session": NAMED,
        f"{SESSION}test_regenerate_id": NAMED,
        f"{SESSION}test_timeout_requires_accessed_time": (
            "the two options together mean: idle since the last change"
        ),
        f"{SESSION}test_cookies_enabled": INSIDE,
        f"{SESSION}test_cookies_disabled": INSIDE,
        f"{SESSION}test_file_based_replace_optimization": INSIDE,
        f"{SESSION}test_use_json_serializer_without_encryption_key": INSIDE,
        f"{SESSION}test_invalidate_corrupt": INSIDE,
        f"{ACCESSED}test_doesnt_save_if_session_not_written_and_accessed_time_false": (
            NAMED
        ),
        f"{ACCESSED}test_saves_if_session_not_written_and_accessed_time_true": NAMED,
        f"{ACCESSED}test_saves_if_session_written_and_accessed_time_false": NAMED,
        f"{OBJECT}test_accessed_time_off_doesnt_save_without_save": INSIDE,
        f"{OBJECT}test_accessed_time_off_saves_atime_when_saving": INSIDE,
        f"{OBJECT}test_auto_save_saves_without_save": INSIDE,
        f"{OBJECT}test_no_autosave_saves_atime_without_save": INSIDE,
        f"{OBJECT}test_no_autosave_saves_with_delete": INSIDE,
        f"{OBJECT}test_no_autosave_saves_with_save": INSIDE,
        f"{IN_A_COOKIE}test_json_serializer": ITS_OWN_BYTES,
        f"{IN_A_COOKIE}test_custom_serializer": ITS_OWN_BYTES,
        f"{IN_A_COOKIE}test_pickle_serializer": "pickle is refused",
        f"{IN_A_COOKIE}test_cookie_id": "the id is at session.id, and no value",
        f"{IN_A_COOKIE}test_invalidate_with_save_does_not_delete_session": NOTHING_KEPT,
        f"{IN_A_COOKIE}test_cookie_path_properly_set_after_delete": NOTHING_KEPT,
        "beaker_tests/test_cookie_domain_only.py::test_increment": (
            "the dot before a Domain has no meaning (RFC 6265 5.2.3), and is left out"
        ),
        f"{EXPIRES}test_cookie_expires": INSIDE,
        f"{EXPIRES}test_cookie_exprires_2": INSIDE,
        f"{EXPIRES}test_set_cookie_expires": INSIDE,
        "beaker_tests/test_increment.py::test_revert": NOTHING_KEPT,
    },
}
