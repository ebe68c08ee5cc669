"""Figures and pages: reads run folders, writes one HTML file that opens offline."""

from earthworks.report.page import write_joint_report as write_joint_report
from earthworks.report.page import write_report as write_report
