"""Secrets, tokens and seals: bytes in, bytes out.

Nothing in here knows sessions, cookies or where a record is kept.
"""
