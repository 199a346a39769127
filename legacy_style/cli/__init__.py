"""Every entry point; the only place that prints usage or exits."""
