"""Sessions in files, for the processes of one host.

``_store`` keeps the promises; below it are ``_format`` (a record as octets), ``_users``
(which sessions a user has), ``_leases`` (who may write), ``_disk`` (files that are whole
or not there) and ``_folder`` (which folder is fit to hold sessions).
"""

from ._store import FileStore as FileStore

__all__ = ["FileStore"]
