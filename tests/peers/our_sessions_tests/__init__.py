"""An application for Django's runner of tests."""
