"""The tables that are the truth of every result: schemas, Parquet files and frames."""

from pipeline.core.training.rows import FACTS
from pipeline.results.files import digest_tables, probe_writable, read_table, write_table
from pipeline.results.schema import FINISHED, HOST_COLUMNS, OPEN_TABLES, SCHEMAS, STATUSES, TRIAL_TABLES, check

__all__ = [
    "FACTS",
    "FINISHED",
    "HOST_COLUMNS",
    "OPEN_TABLES",
    "SCHEMAS",
    "STATUSES",
    "TRIAL_TABLES",
    "check",
    "digest_tables",
    "probe_writable",
    "read_table",
    "write_table",
]
