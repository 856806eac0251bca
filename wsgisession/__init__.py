"""Sessions for every WSGI application.

No lost update, no resurrected logout, readers that never wait.  Importing this imports
no store's driver and no framework.
"""

from . import events as events
from ._core.merge import ABSENT as ABSENT
from ._core.merge import MergeConflict as MergeConflict
from .errors import ConfigurationError as ConfigurationError
from .errors import LockTimeout as LockTimeout
from .errors import SerializationError as SerializationError
from .errors import SessionClosed as SessionClosed
from .errors import SessionConflict as SessionConflict
from .errors import SessionEnded as SessionEnded
from .errors import SessionError as SessionError
from .errors import SessionReadOnly as SessionReadOnly
from .errors import SessionTooLarge as SessionTooLarge
from .errors import StoreError as StoreError
from .errors import TooManySessions as TooManySessions
from .errors import VersionConflict as VersionConflict
from .manager import SessionManager as SessionManager
from .middleware import SessionMiddleware as SessionMiddleware
from .middleware import get_manager as get_manager
from .middleware import get_session as get_session
from .options import Options as Options
from .record import Key as Key
from .record import Record as Record
from .record import Replaced as Replaced
from .serializers import JSONSerializer as JSONSerializer
from .serializers import Kind as Kind
from .session import Session as Session
from .store import Capabilities as Capabilities
from .user_data import UserData as UserData
from .views import external as external
from .views import read_only as read_only

__all__ = [
    "ABSENT",
    "Capabilities",
    "ConfigurationError",
    "JSONSerializer",
    "Key",
    "Kind",
    "LockTimeout",
    "MergeConflict",
    "Options",
    "Record",
    "Replaced",
    "SerializationError",
    "Session",
    "SessionClosed",
    "SessionConflict",
    "SessionEnded",
    "SessionError",
    "SessionManager",
    "SessionMiddleware",
    "SessionReadOnly",
    "SessionTooLarge",
    "StoreError",
    "TooManySessions",
    "UserData",
    "VersionConflict",
    "events",
    "external",
    "get_manager",
    "get_session",
    "read_only",
]

__version__ = "0.1.0"
