"""The bundle: one ``.emoe`` file with everything that a device needs, and all that is checked when it is loaded.

``bundle`` has the file, ``parts`` its parts, ``document`` the types and ranges of its tables, ``contents`` what holds
between the parts, ``program`` and ``matmul`` what programs must keep to, ``trace`` the tables for comparing.
"""

from edgemoe.bundle.bundle import FORMAT_VERSION, METADATA_KEY, Bundle, BundleError, digest
from edgemoe.bundle.document import Phase
from edgemoe.bundle.parts import Joined, Joint, Task

__all__ = ["FORMAT_VERSION", "METADATA_KEY", "Bundle", "BundleError", "Joined", "Joint", "Phase", "Task", "digest"]
