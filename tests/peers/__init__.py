"""Peers' own test suites over our adapters.

Their tests come from their own source distributions when ``nox -s peers`` runs, and
nothing of them is kept here.  Each file puts one of our adapters in the place of the
peer's sessions, as a plugin of pytest or as settings.
"""
