"""Sessions in files, for the processes of one host.

``store`` keeps the promises; below it are ``format`` (a record as octets), ``users``
(which sessions a user has), ``leases`` (who may write), ``disk`` (files that are whole or
not there) and ``folder`` (which folder is fit to hold sessions).
"""

from ._store import FileStore as FileStore
