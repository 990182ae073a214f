"""From any pile of runs to a report one can act on: read, diagnose, draw, write."""

from markovlm.report.build import ReportResult, write_report
from markovlm.report.diagnose import Diagnosis, diagnose_paths

__all__ = ["Diagnosis", "ReportResult", "diagnose_paths", "write_report"]
