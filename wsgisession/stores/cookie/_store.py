"""Sessions in the cookie of the client, signed or encrypted.

It knows records, seals and, if it is given one, a store on the server for what has ended.
It must not know headers.  A cookie can be copied, and the copies cannot be seen: of two
requests at once the last answer stays, and a copy outlives the logout unless
``revocation`` is given.  So it can neither lock, list, nor compare versions.
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Sequence

from ..._crypto.sealing import (
    EncryptedText,
    Signed,
    compressed,
    expanded,
    uncompressed,
)
from ..._crypto.secret import OTHER_KEY
from ...errors import ConfigurationError, SessionTooLarge, VersionConflict
from ...record import Key, Record, Replaced
from ...store import Capabilities, Store
from ._revocation import Origin, Revocations, Tags, unknown_origin

AHEAD = 60.0
"""Seconds by which the clock of the host that issued a token may be ahead of ours."""

LARGEST = 4096
"""Octets of one cookie, its name and attributes included."""

MOST_CHUNKS = 10
"""Cookies over which a session may be spread."""

LONGEST = 400 * 86400.0
"""Seconds that a token can live where nothing else limits it; browsers keep no cookie
longer (RFC 6265bis 5.5)."""

# id, version, created, accessed, expires, turned, issued, the tags of the session and of
# its user, and the length of the user's name.
_HEADER = struct.Struct(">16sQddddd8s8sH")
_NOBODY = 0xFFFF
_CODEC = ("utf-8", "surrogatepass")

NO_TAGS = Tags()

_log = logging.getLogger("wsgisession")


class CookieStore:
    """A sealed record as the token.

    A record that was loaded keeps what its token said of the marks in the field
    ``lease``: it is opaque, is never stored, and has to come back with ``save``.

    :param secret: the keys, the newest first: it seals, all of them open.
    :param cookie_name: bound into the seal, so that no other cookie is taken for it.
    :param encrypt: whether not even the client can read it.
    :param cookie_chunks: over how many cookies of 4096 octets it may be spread.
    :param compression: ``"none"`` or ``"zlib"``.  The length of what is compressed tells
        about its contents: not where text of a client stands beside a secret.
    :param revocation: a store on the server that remembers what has ended.  It must not
        evict: what it forgets has not ended.
    :param revocation_fail: while that store is out of reach, ``"closed"`` refuses every
        cookie with a ``StoreError``; ``"open"`` takes them, those that have ended too.
        A login, a new token and an end need the store in both cases.
    :param absolute_timeout: seconds that a session can live; None: no end.
    :param max_size: octets to which the data of a record may expand.
    """

    def __init__(
        self,
        *,
        secret: Sequence[bytes],
        cookie_name: str = "sid",
        encrypt: bool = False,
        cookie_chunks: int = 1,
        compression: str = "none",
        revocation: Store | None = None,
        revocation_fail: str = "closed",
        absolute_timeout: float | None = 30 * 86400.0,
        max_size: int = 1024 * 1024,
    ) -> None:
        _check(secret, cookie_chunks, compression, revocation, revocation_fail)
        self.capabilities: Capabilities = Capabilities(
            token_octets=LARGEST * cookie_chunks,
            ends_users=revocation is not None,
            encrypts=encrypt,
        )
        self._octets = LARGEST * cookie_chunks
        kind = EncryptedText if encrypt else Signed
        self._seal: EncryptedText | Signed = kind(secret, f"cookie.2.{cookie_name}")
        self._packed = compressed if compression == "zlib" else uncompressed
        self._absolute_timeout = absolute_timeout
        self._max_size = max_size
        self._has_warned = False
        self._has_met_other_secret = False
        self.marks = revocation
        """Where is remembered what has ended."""
        self._revocations: Revocations | None = None
        if revocation is not None:
            self._revocations = Revocations(
                revocation,
                scope=cookie_name,
                longest=LONGEST if absolute_timeout is None else absolute_timeout,
                fail_open=revocation_fail == "open",
            )

    def load(self, key: Key) -> Record | None:
        """The record in ``key.token``; ``key.id`` does not matter.

        Its proof is that of the key.  Where its token has ended, the record comes back as
        one whose proof was replaced at that moment, for a request under way must be told
        from a stranger; without a proof in the key it is absent.
        """
        opened = None if key.token is None else self._opened(key.token)
        if opened is None:
            return None
        record, origin = opened
        proof = key.proof or ""
        if self._revocations is None:
            return record._replace(proof=proof)
        if self._revocations.current(record.id, origin) is not None:
            return record._replace(proof=proof, lease=origin)
        ended = self._revocations.ended_at(record.id) if proof else None
        if ended is None:
            return None
        replaced = (Replaced(proof, 0.0),)
        return record._replace(replaced=replaced, turned=ended, lease=origin)

    def save(self, record: Record, *, expect: int, room: int | None = None) -> str:
        """The token that holds ``record``.

        Raises ``SessionTooLarge`` where it has more octets than ``room``; the older
        tokens are good as before then.  With ``revocation``, a record whose ``turned`` is
        not that of its token ends every older token, and a session that has ended is a
        ``VersionConflict`` with None.  Without it older tokens stay good.
        """
        token = self._issued(record, NO_TAGS)
        room = self._octets if room is None else room
        if len(token) > room:
            raise SessionTooLarge(len(token), room, ())
        revocations = self._revocations
        if revocations is None:
            return token
        if expect == 0:
            tags: Tags | None = revocations.begun(record.user)
        else:
            tags = revocations.following(record, self._origin(record))
        if tags is None:
            raise VersionConflict(record.id, None)
        return self._issued(record, tags)  # as long as the one without tags

    def delete(self, key: Key, *, user: str | None = None) -> bool:
        """End the session with the id of ``key``, or if that is empty, of its token.

        Whose session it is only its token can tell: with ``user`` and without a token
        nothing is ended.  True if every token of the session has ended, which takes
        ``revocation``.
        """
        id = key.id
        if user is not None or not id:
            record = self.load(key)
            if record is None or user not in (None, record.user):
                return False
            id = record.id
        if self._revocations is not None:
            self._revocations.end(id)
            return True
        if not self._has_warned:
            self._has_warned = True
            _log.warning(
                "a session was ended, but copies of its cookie are good until they "
                "expire; the option revocation prevents that"
            )
        return False

    def end_user(self, user: str, *, keep: str | None) -> None:
        """End the sessions that ``user`` has begun, but the one with the id ``keep``.

        A session that has ended before is not revived by keeping it.  Raises
        ``ConfigurationError`` without ``revocation``.
        """
        if self._revocations is None:
            raise ConfigurationError(
                "the cookie store can end a user's sessions only with the option "
                "revocation, a store on the server that remembers what has ended"
            )
        self._revocations.end_user(user, keep=keep)

    # -- the seal ----------------------------------------------------------------------

    def _origin(self, record: Record) -> Origin:
        """What the newest token of a record said.

        ``token`` is there where the record was saved after it was loaded, and is newer
        then.
        """
        opened = None if record.token is None else self._opened(record.token)
        if opened is not None:
            return opened[1]
        if isinstance(record.lease, Origin):
            return record.lease
        return unknown_origin(record.user)

    def _issued(self, record: Record, tags: Tags) -> str:
        user = b"" if record.user is None else record.user.encode(*_CODEC)
        if len(user) >= _NOBODY:
            raise ValueError(f"a user's name has at most {_NOBODY - 1} octets")
        header = _HEADER.pack(
            bytes.fromhex(record.id),
            record.version,
            record.created,
            record.accessed,
            record.expires,
            record.turned,
            time.time(),
            tags.session,
            tags.user,
            _NOBODY if record.user is None else len(user),
        )
        return self._seal.seal(header + user + self._packed(record.data))

    def _opened(self, token: str) -> tuple[Record, Origin] | None:
        """What is in a token; None for whatever we would not issue, or not now."""
        content = self._seal.open(token) if len(token) <= self._octets else None
        if content is None or len(content) < _HEADER.size:
            self._tell_of_secret(token)
            return None
        id, version, created, accessed, expires, turned, issued, *tags, length = (
            _HEADER.unpack_from(content)
        )
        end = (
            issued + LONGEST
            if self._absolute_timeout is None
            else created + self._absolute_timeout
        )
        now = time.time()
        if min(expires, end) <= now or issued > now + AHEAD:
            return None
        rest = content[_HEADER.size :]
        user = None if length == _NOBODY else rest[:length].decode(*_CODEC)
        data = expanded(rest[0 if user is None else length :], at_most=self._max_size)
        if data is None:
            return None
        record = Record(
            id=id.hex(),
            version=version,
            data=data,
            created=created,
            accessed=accessed,
            expires=expires,
            user=user,
            turned=turned,
        )
        return record, Origin(Tags(*tags), user, turned)

    def _tell_of_secret(self, token: str) -> None:
        if not self._has_met_other_secret and self._seal.has_form(token):
            self._has_met_other_secret = True
            _log.warning(OTHER_KEY)


def _check(
    secret: Sequence[bytes],
    cookie_chunks: int,
    compression: str,
    revocation: object,
    revocation_fail: str,
) -> None:
    """Refuse options that cannot work, with a sentence that says what is allowed."""
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
    if revocation is None or (
        isinstance(revocation, Store) and revocation.capabilities.token_octets is None
    ):
        return
    raise ConfigurationError(
        f"revocation must be a store on the server, not {type(revocation).__name__}"
    )
