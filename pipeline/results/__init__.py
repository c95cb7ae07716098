"""The tables that are the truth of every result: schemas, Parquet files and frames."""

from pipeline.results.files import digest_tables, probe_writable, read_table, write_table
from pipeline.results.schema import (
    CURVE_FACTS,
    FINISHED,
    HOST_COLUMNS,
    RESUMABLE,
    SCHEMAS,
    STATUSES,
    TRIAL_TABLES,
    check,
)

__all__ = [
    "CURVE_FACTS",
    "FINISHED",
    "HOST_COLUMNS",
    "RESUMABLE",
    "SCHEMAS",
    "STATUSES",
    "TRIAL_TABLES",
    "check",
    "digest_tables",
    "probe_writable",
    "read_table",
    "write_table",
]
