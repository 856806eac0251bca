"""Sessions for every WSGI application.

No lost update, no resurrected logout, readers that never wait.  Importing this imports
no store's driver and no framework.
"""

from .errors import ConfigurationError as ConfigurationError
from .errors import Conflict as Conflict
from .errors import LockTimeout as LockTimeout
from .errors import SerializationError as SerializationError
from .errors import SessionClosed as SessionClosed
from .errors import SessionConflict as SessionConflict
from .errors import SessionEnded as SessionEnded
from .errors import SessionError as SessionError
from .errors import SessionTooLarge as SessionTooLarge
from .errors import StoreError as StoreError
from .manager import SessionManager as SessionManager
from .merge import ABSENT as ABSENT
from .merge import Clash as Clash
from .middleware import SessionMiddleware as SessionMiddleware
from .middleware import get_session as get_session
from .options import Options as Options
from .record import Key as Key
from .record import Record as Record
from .serializers import JSONSerializer as JSONSerializer
from .session import Session as Session

__version__ = "0.1.0"
