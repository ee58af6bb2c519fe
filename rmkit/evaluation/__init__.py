"""From clips of every method to metrics.csv, and from there to tables, figures, claims and the report (section 4)."""
