"""What Django asks of every engine of sessions, asked of ours."""

from django.test import TestCase
from sessions_tests.tests import SessionTestsMixin

from wsgisession.integrations.django import SessionStore


class OurSessionTests(SessionTestsMixin, TestCase):
    """All tests of the mixin."""

    backend = SessionStore
