from .run_folder import MANIFEST as MANIFEST
from .run_folder import Run as Run
from .run_folder import TABLES as TABLES
from .run_folder import TABLES_OF_PROBES as TABLES_OF_PROBES
from .run_folder import open_run as open_run
