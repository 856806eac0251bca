"""Sessions in the cookie of the client, and a memory of those that have ended.

``store`` knows the record and its seal; ``revocation`` knows marks in a store on the
server.  Neither knows headers.
"""

from ._store import CookieStore

__all__ = ["CookieStore"]
