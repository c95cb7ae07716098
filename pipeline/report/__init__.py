"""The report: a site that opens from disk, figures, tables and metrics, all made from result tables."""

from pipeline.report.build import build_report

__all__ = ["build_report"]
