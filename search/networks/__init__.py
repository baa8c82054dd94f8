"""Networks as immutable layer records: shapes, receptive fields, JSON."""
