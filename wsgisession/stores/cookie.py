"""Sessions in the visitor's cookie: signed or encrypted, with nothing on the server.

It knows records, seals and, if it is given one, a store for what has ended.  It must not
know headers.  A cookie can be copied, and its copies cannot be seen: two requests at once
keep what the last response says, and a copy outlives the logout unless ``revocation`` is
given.  So it can neither lock, list, nor compare versions, and offers none of it.
"""

from __future__ import annotations

import logging
import math
import struct
import time
from collections.abc import Sequence

from ..errors import ConfigurationError, Conflict
from ..record import Key, Record
from ..sealing import EncryptedText, Signed, expand, plain, squeeze
from ..store import Store, TokenStore
from ._revocation import Revocations

SKEW = 60.0
"""Seconds by which the clocks of several servers may differ."""

LARGEST = 4096
"""Octets of one cookie, its name and attributes included."""

MOST_CHUNKS = 10
"""Cookies over which a session may be spread."""

# id, version, created, accessed, expires, issued, length of the user's name
_HEADER = struct.Struct(">32sIddddH")
_NOBODY = 0xFFFF

_log = logging.getLogger("wsgisession")


class CookieStore:
    """A sealed record as the token.

    :param secret: the keys, the newest first: it seals, all of them open.
    :param cookie_name: bound into the seal, so that no other cookie is taken for it.
    :param encrypt: whether the visitor cannot even read it.
    :param cookie_chunks: over how many cookies of 4096 octets it may be spread.
    :param compression: ``"none"`` or ``"zlib"``.  The length of what is compressed tells
        about its contents: not where an attacker's text stands beside a secret.
    :param revocation: a store on the server that remembers what has ended.
    :param revocation_fail: while that store is away, ``"closed"`` refuses every cookie
        with a ``StoreError``, ``"open"`` takes them, those that have ended too.
    :param absolute_timeout: seconds that a session can live.
    :param max_size: octets to which a record may expand.
    """

    def __init__(
        self,
        *,
        secret: Sequence[bytes],
        cookie_name: str = "session",
        encrypt: bool = False,
        cookie_chunks: int = 1,
        compression: str = "none",
        revocation: Store | None = None,
        revocation_fail: str = "closed",
        absolute_timeout: float = 30 * 86400,
        max_size: int = 1024 * 1024,
    ) -> None:
        if not secret:
            raise ConfigurationError(
                "the cookie store needs a secret, or anybody could write sessions; "
                "make one with: python -m wsgisession secret"
            )
        if not 1 <= cookie_chunks <= MOST_CHUNKS:
            raise ConfigurationError(
                f"cookie_chunks must be from 1 to {MOST_CHUNKS}, not {cookie_chunks!r}"
            )
        if compression not in ("none", "zlib"):
            raise ConfigurationError(
                f"compression must be 'none' or 'zlib', not {compression!r}"
            )
        if revocation_fail not in ("closed", "open"):
            raise ConfigurationError(
                f"revocation_fail must be 'closed' or 'open', not {revocation_fail!r}"
            )
        self.encrypted = encrypt
        self.max_token = LARGEST * cookie_chunks
        kind = EncryptedText if encrypt else Signed
        self._seal: EncryptedText | Signed = kind(secret, f"cookie.{cookie_name}")
        self._packed = squeeze if compression == "zlib" else plain
        self._absolute_timeout = absolute_timeout
        self._max_size = max_size
        self._warned = False
        self._revocations: Revocations | None = None
        if revocation is not None:
            self._revocations = Revocations(
                _on_a_server(revocation),
                scope=cookie_name,
                longest=absolute_timeout,
                fail_open=revocation_fail == "open",
            )

    def load(self, key: Key) -> Record | None:
        record = self._opened(key.token) if key.token else None
        if record is None or self._over(record, at=time.time()):
            return None
        return record

    def save(self, record: Record, *, expect: int) -> str | None:
        """The token that holds ``record``.

        Never a ``Conflict`` with another's save, which cannot be seen; with
        ``revocation`` one with another's end.  A record that is not live ends its
        session: at once, or a pointer, which cannot be followed, when its time is over.
        """
        if expect and self._over(record, at=math.inf):
            raise Conflict(record.id, None)
        if record.state == "live":
            return self._issued(record)
        self._end(record, record.expires if record.state == "moved" else time.time())
        return record.token

    def touch(self, record: Record) -> str | None:
        return None if self._over(record, at=math.inf) else self._issued(record)

    def delete(self, record: Record) -> None:
        self._end(record, time.time())

    def end_user(self, user: str, *, keep: str | None = None) -> None:
        """End all sessions of a user that have begun, but the one with the id ``keep``.

        A kept session is known by its id: it does not survive ``regenerate()``, but for
        the one in ``login()``.
        """
        if self._revocations is None:
            raise ConfigurationError(
                "the cookie store can end a user's sessions only with the option "
                "revocation, a store on the server that remembers what has ended"
            )
        self._revocations.end_user(user, keep=keep)

    # -- what has ended ----------------------------------------------------------------

    def _over(self, record: Record, *, at: float) -> bool:
        revocations = self._revocations
        return revocations is not None and revocations.over(record, at=at)

    def _end(self, record: Record, since: float) -> None:
        if self._revocations is not None:
            self._revocations.end(record, since=since)
        elif not self._warned:
            self._warned = True
            _log.warning(
                "a session was ended, but copies of its cookie are good until they "
                "expire; the option revocation prevents that"
            )

    # -- the seal ----------------------------------------------------------------------

    def _issued(self, record: Record) -> str:
        user = b"" if record.user is None else record.user.encode(*_CODEC)
        if len(user) >= _NOBODY:
            raise ValueError(f"a user's name has at most {_NOBODY - 1} octets")
        header = _HEADER.pack(
            bytes.fromhex(record.id),
            record.version,
            record.created,
            record.accessed,
            record.expires,
            time.time(),
            _NOBODY if record.user is None else len(user),
        )
        return self._seal.seal(header + user + self._packed(record.data))

    def _opened(self, token: str) -> Record | None:
        """The record in a token; None for whatever we would not issue, or not now."""
        content = self._seal.open(token) if len(token) <= self.max_token else None
        if content is None or len(content) < _HEADER.size:
            return None
        id, version, created, accessed, expires, issued, length = _HEADER.unpack_from(
            content
        )
        now = time.time()
        until = min(expires, created + self._absolute_timeout)
        if until <= now or issued > now + SKEW:
            return None
        rest = content[_HEADER.size :]
        user = None if length == _NOBODY else rest[:length].decode(*_CODEC)
        data = expand(rest[0 if user is None else length :], at_most=self._max_size)
        if data is None:
            return None
        return Record(
            id=id.hex(),
            data=data,
            version=version,
            created=created,
            accessed=accessed,
            expires=expires,
            user=user,
        )


_CODEC = ("utf-8", "surrogatepass")


def _on_a_server(store: Store) -> Store:
    if isinstance(store, Store) and not isinstance(store, TokenStore):
        return store
    raise ConfigurationError(
        f"revocation must be a store on the server, not {type(store).__name__}"
    )
