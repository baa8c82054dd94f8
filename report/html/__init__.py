"""The HTML report: one page that opens offline."""
